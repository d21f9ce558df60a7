/**
 * Takes back what a command did when it cannot go on, last step first, so that a failed command leaves nothing but
 * cache behind.
 */

import type { Log } from '../sys/host.ts';

export interface Undo {
  /** Remembers how to take one step back. */
  add(what: string, step: () => void): void;
}

/** Runs `body`; when it throws, takes its steps back and throws the same error. */
export async function withUndo<T>(log: Log, body: (undo: Undo) => T | Promise<T>): Promise<T> {
  const steps: { what: string; step: () => void }[] = [];
  try {
    return await body({ add: (what, step) => steps.push({ what, step }) });
  } catch (error) {
    for (const { what, step } of steps.reverse()) {
      try {
        step();
      } catch (second) {
        // The first error is the one to report. What this step would have removed may stand on the steps before it, so
        // they stay too; gc removes what turns out to be unreferenced.
        log.warn(`Could not ${what}: ${second instanceof Error ? second.message : String(second)}`);
        break;
      }
    }
    throw error;
  }
}
