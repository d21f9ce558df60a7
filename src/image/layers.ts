/**
 * One layer from its blob to tar entries, in one pass: decoded (`decode-layer.ts`), held against the limits of an
 * image, read as tar. The handler sees entries before the digests are known to be right, so what it made counts only
 * once `readLayer` has resolved.
 */

import { HostctlError } from '../errors.ts';
import { withContext } from '../format/error-context.ts';
import { TarReader, type TarHandler } from '../format/tar/reader.ts';
import type { Decode, LayerSource } from './decode-layer.ts';
import { checkOutput } from './limits.ts';

export interface ReadLayerOptions {
  readonly decode: Decode;
  /** What the layers below gave out, for the limit of the whole image. */
  readonly outputBytesBefore: number;
  /** Called with the blob bytes taken since the last call. */
  readonly onBytes?: (bytes: number) => void;
}

export interface LayerResult {
  /** Output of this layer and those before it: decompressed bytes and expanded holes. */
  readonly outputBytes: number;
  /** Something other than zeros follows the end of the tar; it was not read as entries. */
  readonly trailingData: boolean;
}

const MAX_RATIO = 1000;
const RATIO_FREE_BYTES = 2 ** 30;

/** Reads a layer through `handler`. Errors name the layer; digests that do not match win over what follows from that. */
export async function readLayer(
  layer: LayerSource,
  handler: TarHandler,
  options: ReadLayerOptions,
): Promise<LayerResult> {
  const { number, count, descriptor } = layer;
  const content = new LayerContent(handler, options);
  try {
    await options.decode(layer, (chunk, takenBytes) => content.take(chunk, takenBytes));
    content.end(descriptor.size);
  } catch (error) {
    throw withContext(`Layer ${number} of ${count} (${descriptor.digest})`, error);
  }
  return { outputBytes: content.outputBytes, trailingData: content.trailingData };
}

/** What happens to decompressed bytes: limits, tar. */
class LayerContent {
  readonly #tar: TarReader;
  readonly #options: ReadLayerOptions;
  #takenBytes = 0;
  outputBytes: number;

  constructor(handler: TarHandler, options: ReadLayerOptions) {
    this.#options = options;
    this.outputBytes = options.outputBytesBefore;
    this.#tar = new TarReader({
      entry: (entry) => {
        this.#count(entry.holeBytes);
        handler.entry(entry);
      },
      data: (chunk) => handler.data(chunk),
      entryEnd: () => handler.entryEnd(),
    });
  }

  get trailingData(): boolean {
    return this.#tar.trailingData;
  }

  take(chunk: Uint8Array, takenBytes: number): void {
    this.#report(takenBytes);
    this.#count(chunk.length);
    this.#tar.push(chunk);
  }

  end(blobBytes: number): void {
    this.#report(blobBytes);
    this.#tar.end();
  }

  #report(takenBytes: number): void {
    if (takenBytes > this.#takenBytes) this.#options.onBytes?.(takenBytes - this.#takenBytes);
    this.#takenBytes = takenBytes;
  }

  #count(bytes: number): void {
    this.outputBytes += bytes;
    checkOutput(this.outputBytes);
    const ofLayer = this.outputBytes - this.#options.outputBytesBefore;
    if (ofLayer > RATIO_FREE_BYTES && ofLayer > MAX_RATIO * this.#takenBytes) {
      throw new HostctlError('image-unsupported', `Content is more than ${MAX_RATIO} times as large as the blob`);
    }
  }
}
