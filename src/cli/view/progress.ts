/** Progress of long steps, as text. Pure. */

import type { ProgressEvent } from '../../sys/host.ts';

/** Rewrites the line it stands on; the last one of a step stays. */
export function terminalProgress(event: ProgressEvent): string {
  const { done, total } = event;
  return `\r\x1b[K${describe(event)}${total !== undefined && done >= total ? '\n' : ''}`;
}

/** Where lines stay, as in a journal, only what takes long is worth one. */
const PLAIN_EVERY_MS = 30_000;

/** Lines for what is no terminal: one for every half minute that a step takes. */
export function plainProgress(): (event: ProgressEvent, nowMs: number) => string | undefined {
  let step: string | undefined;
  let lastMs = 0;
  return (event, nowMs) => {
    if (event.step !== step) {
      step = event.step;
      lastMs = nowMs;
    }
    if (nowMs - lastMs < PLAIN_EVERY_MS) return undefined;
    lastMs = nowMs;
    return `hostctl: ${describe(event)}\n`;
  };
}

function describe({ step, done, total, unit }: ProgressEvent): string {
  const show = (value: number): string => (unit === 'bytes' ? `${(value / 2 ** 20).toFixed(0)} MiB` : String(value));
  return `${step}: ${show(done)}${total === undefined ? '' : ` of ${show(total)}`}`;
}
