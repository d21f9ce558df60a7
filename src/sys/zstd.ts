/**
 * libzstd in this process, through koffi: the library that dpkg itself needs, where Node 20 has none. A program with its
 * two pipes takes twice the processor time. The lengths that reach C are those of our own buffers.
 */

import { loadLibrary } from './koffi.ts';

/** A decompressor of one stream of any number of frames, skippable ones included. */
export interface ZstdStream {
  /**
   * Decompresses from `input` into `output`, until one of them is used up; where the output is full there may be more to
   * come. Throws what libzstd says.
   */
  run(input: Uint8Array, output: Uint8Array): { readonly taken: number; readonly made: number };
  close(): void;
}

interface Input {
  readonly src: Uint8Array;
  readonly size: number;
  /** Bytes that were used, as in the other. */
  readonly pos: number;
}

interface Output {
  readonly dst: Uint8Array;
  readonly size: number;
  readonly pos: number;
}

interface Zstd {
  /** Null where there is no memory for it. */
  readonly create: () => object | null;
  readonly free: (stream: object) => void;
  /** How much to feed next, or an error. */
  readonly decompress: (stream: object, output: Output, input: Input) => number | bigint;
  readonly isError: (code: number | bigint) => number;
  readonly nameOf: (code: number | bigint) => string;
}

/** Null where it cannot be had; undefined before it was looked for. */
let zstd: Zstd | null | undefined;

function loadZstd(): Zstd | null {
  const loaded = loadLibrary('libzstd.so.1');
  if (loaded === undefined) return null;
  const { koffi, library } = loaded;
  const func = (prototype: string): unknown => library.func(prototype);
  koffi.struct('ZSTD_inBuffer', { src: 'const void *', size: 'size_t', pos: 'size_t' });
  koffi.struct('ZSTD_outBuffer', { dst: 'void *', size: 'size_t', pos: 'size_t' });
  return {
    create: func('void *ZSTD_createDCtx()') as Zstd['create'],
    free: func('size_t ZSTD_freeDCtx(void *stream)') as Zstd['free'],
    decompress: func(
      'size_t ZSTD_decompressStream(void *stream, _Inout_ ZSTD_outBuffer *output, _Inout_ ZSTD_inBuffer *input)',
    ) as Zstd['decompress'],
    isError: func('unsigned int ZSTD_isError(size_t code)') as Zstd['isError'],
    nameOf: func('const char *ZSTD_getErrorName(size_t code)') as Zstd['nameOf'],
  };
}

/** Whether streams can be opened here. */
export function hasZstdLibrary(): boolean {
  if (zstd === undefined) zstd = loadZstd();
  return zstd !== null;
}

/** A new stream, to be closed; undefined where libzstd cannot be had. */
export function openZstdStream(): ZstdStream | undefined {
  if (!hasZstdLibrary()) return undefined;
  const { create, free, decompress, isError, nameOf } = zstd!;
  let stream = create();
  if (stream === null) return undefined;
  return {
    run(input, output) {
      const to: Output = { dst: output, size: output.length, pos: 0 };
      const from: Input = { src: input, size: input.length, pos: 0 };
      const code = decompress(stream!, to, from);
      if (isError(code) !== 0) throw new Error(nameOf(code));
      return { taken: from.pos, made: to.pos };
    },
    close() {
      if (stream !== null) free(stream);
      stream = null;
    },
  };
}
