/** A thread of `ObjectReader`: reads objects, each the next one that no other thread has taken. */

import { parentPort, workerData } from 'node:worker_threads';
import type { Syscalls } from '../sys/syscalls.ts';
import { packError, type PackedError } from '../sys/thread-errors.ts';
import { lookAtObject, type CheckedPlace, type ObjectProblem } from './check-object.ts';

/** What all threads share. */
export interface CheckWork {
  readonly place: CheckedPlace;
  /** The digests of the objects, one behind the other, and the bytes of each. */
  readonly digests: Uint8Array;
  readonly digestSize: number;
  /** The number of the object that is to be taken next. */
  readonly next: Int32Array;
  /** Of each object; -1 where there is no file. */
  readonly sizes: Float64Array;
}

/** What a thread says. */
export type CheckMessage =
  | { readonly kind: 'log'; readonly line: string }
  | { readonly kind: 'failed'; readonly error: PackedError }
  /** There are no objects left. By their numbers, those that are not as they should be. */
  | { readonly kind: 'done'; readonly problems: ReadonlyMap<number, ObjectProblem> };

const say = (message: CheckMessage): void => parentPort!.postMessage(message);

async function openVerity(): Promise<Syscalls> {
  const [{ openExec }, { openSyscalls }] = await Promise.all([import('../sys/exec.ts'), import('../sys/syscalls.ts')]);
  return openSyscalls(openExec((line) => say({ kind: 'log', line }), new AbortController().signal));
}

async function readObjects(work: CheckWork): Promise<ReadonlyMap<number, ObjectProblem>> {
  const { place, digests, digestSize, next, sizes } = work;
  // Loading what makes system calls takes longer than reading a thousand objects.
  const syscalls = place.hasVerity ? await openVerity() : undefined;
  const bytes = Buffer.from(digests.buffer);
  const problems = new Map<number, ObjectProblem>();
  for (;;) {
    const at = Atomics.add(next, 0, 1);
    if (at >= sizes.length) return problems;
    const digest = bytes.toString('hex', at * digestSize, (at + 1) * digestSize);
    const { sizeBytes, problem } = lookAtObject(place, digest, true, syscalls);
    sizes[at] = sizeBytes ?? -1;
    if (problem !== undefined) problems.set(at, problem);
  }
}

try {
  say({ kind: 'done', problems: await readObjects(workerData as CheckWork) });
} catch (error) {
  say({ kind: 'failed', error: packError(error) });
}
