/**
 * Looks at many objects, and reads them on all processors where that is worth it. Threads begin at once with every object
 * there is, while this one still finds out which there should be; what is found does not depend on how many they are.
 */

import * as fs from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { HostctlError } from '../errors.ts';
import { VERITY_PARAMETERS } from '../format/fsverity/algorithm.ts';
import type { Host } from '../sys/host.ts';
import { unpackError } from '../sys/thread-errors.ts';
import { lookAtObject, type CheckedPlace, type ObjectLook, type ObjectProblem } from './check-object.ts';
import type { CheckMessage, CheckWork } from './check-worker.ts';
import { objectFile } from './repository.ts';

/** As many bytes as are hashed while a small object is opened, read and closed. */
const OBJECT_BYTES = 8 << 10;
/** Less than this is read before threads have started. */
const THREADS_FROM_BYTES = 32 << 20;
/** Read without a look at whether to stop. */
const TURN_BYTES = 4 << 20;

/** Opened for objects that will probably be asked for. `close()` it in any case. */
export class ObjectReader {
  readonly #host: Host;
  readonly #place: CheckedPlace;
  readonly #deep: boolean;
  readonly #ahead: ReadAhead | undefined;

  /** With `deep`, begins to read `digests`. */
  constructor(host: Host, place: CheckedPlace, digests: readonly string[], deep: boolean) {
    this.#host = host;
    this.#place = place;
    this.#deep = deep;
    if (deep && host.threads > 0 && isMuch(place, digests)) this.#ahead = new ReadAhead(host, place, digests);
  }

  /** What there is under each of these names, in their order. `host.signal` ends it. */
  async look(digests: readonly string[]): Promise<ObjectLook[]> {
    await this.#ahead?.finished;
    const looks: ObjectLook[] = [];
    let room = 0;
    for (const digest of digests) {
      if (room <= 0) {
        await nextTurn();
        if (this.#host.signal.aborted) throw stopped();
        room = TURN_BYTES;
      }
      const look = this.#ahead?.lookOf(digest) ?? this.#lookHere(digest);
      looks.push(look);
      room -= OBJECT_BYTES + (look.sizeBytes ?? 0);
    }
    return looks;
  }

  async close(): Promise<void> {
    await this.#ahead?.close();
  }

  #lookHere(digest: string): ObjectLook {
    return lookAtObject(this.#place, digest, this.#deep, this.#place.hasVerity ? this.#host.syscalls : undefined);
  }
}

/** Whether it takes longer to read all these than to start threads. */
function isMuch(place: CheckedPlace, digests: readonly string[]): boolean {
  let bytes = 0;
  for (const digest of digests) {
    bytes += OBJECT_BYTES + (fs.lstatSync(objectFile(place, digest), { throwIfNoEntry: false })?.size ?? 0);
    if (bytes >= THREADS_FROM_BYTES) return true;
  }
  return false;
}

/** Objects that threads read. */
class ReadAhead {
  /** Rejects with what a thread threw, or 'interrupted'. */
  readonly finished: Promise<unknown>;
  readonly #numbers: ReadonlyMap<string, number>;
  readonly #work: CheckWork;
  readonly #problems = new Map<number, ObjectProblem>();
  readonly #workers: readonly Worker[];
  readonly #host: Host;
  #abort = (): void => undefined;

  constructor(host: Host, { objectsPath, algorithm, hasVerity }: CheckedPlace, digests: readonly string[]) {
    const { digestSize } = VERITY_PARAMETERS[algorithm];
    // Others may lie there; they are looked at when they are asked for.
    const own = digests.filter((digest) => digest.length === 2 * digestSize);
    const packed = Buffer.from(new SharedArrayBuffer(own.length * digestSize));
    for (const [i, digest] of own.entries()) packed.write(digest, i * digestSize, 'hex');
    this.#host = host;
    this.#numbers = new Map(own.map((digest, i) => [digest, i]));
    this.#work = {
      place: { objectsPath, algorithm, hasVerity },
      digests: new Uint8Array(packed.buffer),
      digestSize,
      next: new Int32Array(new SharedArrayBuffer(4)),
      sizes: new Float64Array(new SharedArrayBuffer(own.length * 8)),
    };
    const interrupted = new Promise<never>((_, reject) => (this.#abort = () => reject(stopped())));
    host.signal.addEventListener('abort', this.#abort);
    if (host.signal.aborted) this.#abort();
    this.#workers = Array.from(
      { length: Math.min(host.threads, own.length) },
      () => new Worker(new URL('./check-worker.js', import.meta.url), { workerData: this.#work }),
    );
    const ends = this.#workers.map((worker) => this.#endOf(worker));
    this.finished = Promise.race([interrupted, Promise.all(ends)]);
    // Whoever waits for it is told; before that something else may have failed.
    this.finished.catch(() => undefined);
  }

  /** Once it has finished; undefined for what was not among the objects. */
  lookOf(digest: string): ObjectLook | undefined {
    const number = this.#numbers.get(digest);
    if (number === undefined) return undefined;
    const size = this.#work.sizes[number]!;
    return { sizeBytes: size < 0 ? undefined : size, problem: this.#problems.get(number) };
  }

  async close(): Promise<void> {
    this.#host.signal.removeEventListener('abort', this.#abort);
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  #endOf(worker: Worker): Promise<void> {
    return new Promise((resolve, reject) => {
      const lost = (cause?: unknown): void =>
        reject(new HostctlError('internal', 'A checking thread ended without a result', { cause }));
      worker.on('message', (message: CheckMessage) => {
        if (message.kind === 'log') return this.#host.log.debug(`run: ${message.line}`);
        if (message.kind === 'failed') return reject(unpackError(message.error));
        for (const [number, problem] of message.problems) this.#problems.set(number, problem);
        resolve();
      });
      worker.on('error', lost);
      worker.on('exit', () => lost());
    });
  }
}

function stopped(): HostctlError {
  return new HostctlError('interrupted', 'Stopped checking');
}
