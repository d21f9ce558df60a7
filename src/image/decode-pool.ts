/**
 * Layers decoded in threads of their own, ahead of their use and in their order: while this thread hashes and writes
 * what is in one layer, another one decompresses it, and more of them the layers behind it. So even a single layer keeps
 * two processors busy. How far they run ahead is bounded by the buffers they share with this thread.
 */

import { setImmediate as nextTurn } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { HostctlError, isHostctlError } from '../errors.ts';
import { createSlots, SlotReader } from '../sys/slots.ts';
import { unpackError } from '../sys/thread-errors.ts';
import { stopped, type LayerOutput, type LayerSource } from './decode-layer.ts';
import type { DecodeMessage } from './decode-worker.ts';

/** What came of a layer and was not looked at yet. */
class Inbox {
  readonly #messages: DecodeMessage[] = [];
  #failure: Error | undefined;
  #wake: (() => void) | undefined;

  push(message: DecodeMessage): void {
    this.#messages.push(message);
    this.#wake?.();
  }

  fail(error: Error): void {
    this.#failure ??= error;
    this.#wake?.();
  }

  async next(): Promise<DecodeMessage> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      const message = this.#messages.shift();
      if (message !== undefined) return message;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}

interface Thread {
  readonly worker: Worker;
  readonly slots: SlotReader;
  inbox: Inbox | undefined;
  /** Settles when it works on nothing any more. */
  idle: Promise<void>;
  setIdle: () => void;
}

interface Job {
  readonly layer: LayerSource;
  readonly inbox: Inbox;
  thread: Thread | undefined;
}

export class DecodePool {
  readonly #jobs: readonly Job[];
  readonly #waiting: Job[];
  readonly #threads: Thread[];
  readonly #signal: AbortSignal;
  readonly #log: (line: string) => void;
  readonly #abort = (): void => this.#failAll(stopped(this.#signal.reason));
  #isClosing = false;

  /**
   * Begins with the first of `layers`; all of them are to be asked for, in this order.
   * @param log - receives the command lines of programs that are started
   */
  constructor(layers: readonly LayerSource[], threads: number, signal: AbortSignal, log: (line: string) => void) {
    this.#signal = signal;
    this.#log = log;
    this.#jobs = layers.map((layer) => ({ layer, inbox: new Inbox(), thread: undefined }));
    this.#waiting = [...this.#jobs];
    signal.addEventListener('abort', this.#abort);
    if (signal.aborted) this.#abort();
    this.#threads = Array.from({ length: Math.min(threads, layers.length) }, () => this.#startThread());
    for (const thread of this.#threads) this.#giveWork(thread);
  }

  /** Hands on what comes of a layer. Rejects with what `output` threw, or with what is wrong with the layer. */
  async decode(layer: LayerSource, output: LayerOutput): Promise<void> {
    const job = this.#jobs.find((other) => other.layer === layer)!;
    for (;;) {
      const message = await job.inbox.next();
      if (message.kind === 'done') return;
      if (message.kind === 'failed') throw unpackError(message.error);
      if (message.kind === 'log') {
        this.#log(message.line);
        continue;
      }
      const { slots } = job.thread!;
      try {
        slots.read(message.slot, message.length, (bytes) => output(bytes, message.takenBytes));
      } catch (error) {
        throw await explain(error, job);
      }
      // Signals come in between.
      await nextTurn();
    }
  }

  /** Ends all threads and whatever they started. To be called in any case. */
  async close(): Promise<void> {
    this.#isClosing = true;
    this.#signal.removeEventListener('abort', this.#abort);
    await Promise.all(
      this.#threads.map(async ({ worker, slots, idle }) => {
        slots.stop();
        await idle;
        await worker.terminate();
      }),
    );
  }

  #startThread(): Thread {
    const slots = createSlots();
    const worker = new Worker(new URL('./decode-worker.js', import.meta.url), { workerData: slots });
    const thread: Thread = {
      worker,
      slots: new SlotReader(slots),
      inbox: undefined,
      idle: Promise.resolve(),
      setIdle: () => undefined,
    };
    worker.on('message', (message: DecodeMessage) => {
      thread.inbox?.push(message);
      if (message.kind === 'done' || message.kind === 'failed') this.#giveWork(thread);
    });
    const lost = (cause?: unknown): void => {
      this.#failAll(new HostctlError('internal', 'A decoding thread ended without a result', { cause }));
      thread.setIdle();
    };
    worker.on('error', lost);
    worker.on('exit', () => lost());
    return thread;
  }

  /** The next layer, now that the last one is through. */
  #giveWork(thread: Thread): void {
    thread.setIdle();
    const job = this.#isClosing ? undefined : this.#waiting.shift();
    thread.inbox = job?.inbox;
    if (job === undefined) return;
    job.thread = thread;
    thread.idle = new Promise((resolve) => (thread.setIdle = resolve));
    thread.worker.postMessage(job.layer);
  }

  #failAll(error: Error): void {
    for (const { inbox } of this.#jobs) inbox.fail(error);
  }
}

/** A damaged blob fails in many ways; that it is damaged is what should be said. So it is read to its end first. */
async function explain(error: unknown, { inbox, thread }: Job): Promise<unknown> {
  if (!isHostctlError(error, 'image-invalid', 'image-unsupported')) return error;
  thread!.slots.refuse();
  for (;;) {
    const message = await inbox.next();
    if (message.kind === 'done') return error;
    if (message.kind !== 'failed') continue;
    const found = unpackError(message.error);
    if (!isHostctlError(found, 'digest-mismatch')) return error;
    return new HostctlError(found.code, found.message, { cause: error });
  }
}
