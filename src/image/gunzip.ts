/**
 * Gunzip that runs where it is called, into a buffer of the caller's. Node's streams offer only a trip through the
 * thread pool and a new buffer for each megabyte, which costs a third more processor time; the handle inside the
 * stream does better. It is not a public interface: where it does not look as expected, `openGunzip` returns undefined.
 */

import { constants, createGunzip } from 'node:zlib';
import type { SyncDecompressor } from './decoder.ts';

/** The part of `Gunzip` that is used (Node 20 to 24). */
interface Internals {
  readonly _handle: {
    onerror: (message: string) => void;
    writeSync(
      flush: number,
      input: Uint8Array,
      inputOffset: number,
      inputLength: number,
      output: Uint8Array,
      outputOffset: number,
      outputLength: number,
    ): void;
  };
  /** After a write: room left in the output, bytes left of the input. */
  readonly _writeState: Uint32Array;
}

/** Undefined where Node has it in another form. */
export function openGunzip(): SyncDecompressor | undefined {
  const stream = createGunzip();
  if (!hasInternals(stream)) {
    stream.destroy();
    return undefined;
  }
  const { _handle: handle, _writeState: state } = stream;
  let failure: string | undefined;
  handle.onerror = (message) => (failure = message);
  return {
    run(input, output, isLast) {
      const flush = isLast ? constants.Z_FINISH : constants.Z_NO_FLUSH;
      handle.writeSync(flush, input, 0, input.length, output, 0, output.length);
      if (failure !== undefined) throw new Error(failure);
      return { taken: input.length - state[1]!, made: output.length - state[0]! };
    },
    close: () => void stream.destroy(),
  };
}

function hasInternals(stream: object): stream is Internals {
  const { _handle: handle, _writeState: state } = stream as Partial<Internals>;
  return typeof handle?.writeSync === 'function' && state instanceof Uint32Array && state.length === 2;
}
