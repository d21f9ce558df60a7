/** The other thread of `DecodePool`: decodes the layers it is told to, one after the other, into shared buffers. */

import { parentPort, workerData } from 'node:worker_threads';
import { HostctlError } from '../errors.ts';
import { SlotWriter, type SharedSlots } from '../sys/slots.ts';
import { hasZstdLibrary } from '../sys/zstd.ts';
import { packError, type PackedError } from '../sys/thread-errors.ts';
import { decodeLayer, type LayerSource } from './decode-layer.ts';
import type { StartFilter } from './zstd-decoder.ts';

/** What a worker says of the layer it was given. */
export type DecodeMessage =
  | { readonly kind: 'chunk'; readonly slot: number; readonly length: number; readonly takenBytes: number }
  | { readonly kind: 'log'; readonly line: string }
  | { readonly kind: 'done' }
  | { readonly kind: 'failed'; readonly error: PackedError };

const port = parentPort!;
const say = (message: DecodeMessage): void => port.postMessage(message);
let takenBytes = 0;
const slots = new SlotWriter(workerData as SharedSlots, (slot, length) =>
  say({ kind: 'chunk', slot, length, takenBytes }),
);

async function decode(layer: LayerSource): Promise<void> {
  const output = (chunk: Uint8Array, taken: number): void => {
    takenBytes = taken;
    slots.write(chunk);
  };
  await decodeLayer(layer, output, {
    startFilter: layer.descriptor.compression === 'zstd' ? await filterStarter() : noFilter,
    checkStop: () => slots.checkStop(),
    nextBuffer: () => slots.buffer(),
  });
}

async function filterStarter(): Promise<StartFilter> {
  if (hasZstdLibrary()) return noFilter;
  const { openExec } = await import('../sys/exec.ts');
  const exec = openExec((line) => say({ kind: 'log', line }), new AbortController().signal);
  return (program, args) => exec.filter(program, args);
}

function noFilter(): never {
  throw new HostctlError('internal', 'This layer needs no program');
}

port.on('message', (layer: LayerSource) => {
  decode(layer).then(
    () => say({ kind: 'done' }),
    (error: unknown) => say({ kind: 'failed', error: packError(error) }),
  );
});
