/**
 * From an opened container image to its tree: every layer read once and checked, merged, transformed. The tree is
 * returned only when every digest was right; objects that the sink took for an image that failed are the caller's to
 * drop.
 */

import type { ObjectSink } from '../tree/objects.ts';
import { withContext } from '../format/error-context.ts';
import { formatImageReference } from '../format/oci/reference.ts';
import type { LayerContent } from '../format/layer-record.ts';
import { NO_TOTALS, type ImageTotals } from '../tree/layer-entry.ts';
import { copyTree, lookupDirectory } from '../tree/lookup.ts';
import type { RawName } from '../tree/name.ts';
import type { DirectoryNode } from '../tree/node.ts';
import { findBootFiles, type BootFiles } from './boot-files.ts';
import { decodeHere, type Decode, type LayerSource } from './decode-layer.ts';
import { DecodePool } from './decode-pool.ts';
import { Flattener } from './flatten.ts';
import { LayerIngest } from './ingest.ts';
import type { KnownLayers } from './known-layers.ts';
import { readLayer } from './layers.ts';
import { addTotals, subtractTotals } from './limits.ts';
import { relabel } from './selinux.ts';
import type { ImageSource } from './source.ts';
import { emptyMountPoints, transformForOci } from './transform.ts';
import type { XattrMode } from './xattr-filter.ts';
import type { StartFilter } from './zstd-decoder.ts';

export interface BuildTreeOptions {
  /** Where files over 64 bytes go; `measuringSink` if only the digest is wanted. */
  readonly sink: ObjectSink;
  readonly signal: AbortSignal;
  readonly startFilter: StartFilter;
  /** Threads that may decode layers beside this one; none by default. */
  readonly threads?: number;
  /** Receives the command lines of programs that they start. */
  readonly log?: (line: string) => void;
  readonly xattrMode?: XattrMode;
  /** Files, by their paths in the image, whose content stays at hand in the tree. */
  readonly keep?: (path: RawName) => boolean;
  /** How many layers, from the lowest, `base` is to be made of; none by default. */
  readonly baseLayers?: number;
  /** Layers that need not be read, since what is in them is known. */
  readonly known?: KnownLayers;
  /** Called with what is in a layer that was read and found right, before the tree takes it over. */
  readonly onRead?: (layer: LayerSource, content: LayerContent) => void;
  /** Called with the bytes of all blobs taken so far, of `total`. */
  readonly progress?: (doneBytes: number, totalBytes: number) => void;
}

export interface BuiltTree {
  /** The OCI-transformed tree. */
  readonly tree: DirectoryNode;
  /** The same of the lowest layers alone, if it was asked for and these are an image. */
  readonly base?: DirectoryNode;
  /** What is wrong with the image, though not enough to refuse it. */
  readonly warnings: readonly string[];
}

const MAX_WARNINGS = 20;

/**
 * Reads all layers and merges them. Errors name the image, the layer and the entry: 'image-invalid',
 * 'image-unsupported', 'digest-mismatch', 'size-mismatch', 'interrupted', and whatever the sink throws.
 */
export async function buildTree(source: ImageSource, options: BuildTreeOptions): Promise<BuiltTree> {
  try {
    return await mergeLayers(source, options);
  } catch (error) {
    throw withContext(`Cannot use "${formatImageReference(source.reference)}"`, error);
  }
}

/** Less than this is decoded before a thread has started. */
const THREADS_FROM_BYTES = 4 << 20;

async function mergeLayers(source: ImageSource, options: BuildTreeOptions): Promise<BuiltTree> {
  const unread = source.layers.filter((layer) => options.known?.has(layer) !== true);
  if ((options.threads ?? 0) === 0 || blobBytes(unread) < THREADS_FROM_BYTES) {
    return mergeDecoded(source, options, decodeHere(options.signal, options.startFilter));
  }
  const pool = new DecodePool(unread, options.threads ?? 0, options.signal, options.log ?? (() => undefined));
  try {
    return await mergeDecoded(source, options, (layer, output) => pool.decode(layer, output));
  } finally {
    await pool.close();
  }
}

async function mergeDecoded(source: ImageSource, options: BuildTreeOptions, decode: Decode): Promise<BuiltTree> {
  const warnings = new Warnings();
  const flattener = new Flattener((message) => warnings.add(message));
  const totalBytes = blobBytes(source.layers);
  let doneBytes = 0;
  let totals: ImageTotals = NO_TOTALS;
  let base: DirectoryNode | undefined;
  const onBytes = (bytes: number): void => {
    doneBytes += bytes;
    options.progress?.(doneBytes, totalBytes);
  };
  for (const layer of source.layers) {
    const label = `Layer ${layer.number} of ${layer.count} (${layer.descriptor.digest})`;
    const known = options.known?.get(layer);
    const content = known ?? (await readContent(layer, options, { decode, before: totals, onBytes }));
    if (known === undefined) options.onRead?.(layer, content);
    else onBytes(layer.descriptor.size);
    totals = addTotals(totals, content.used);
    if (content.trailingData) warnings.add(`${label} goes on behind the end of its tar`);
    flattener.applyLayer(content.entries, label);
    if (layer.number === options.baseLayers) base = flattener.snapshot();
  }
  const tree = flattener.finish();
  transformForOci(tree);
  if (base === undefined || lookupDirectory(base, 'usr') === undefined) return { tree, warnings: warnings.list() };
  transformForOci(base);
  return { tree, base, warnings: warnings.list() };
}

interface ReadContent {
  readonly decode: Decode;
  /** What the layers below used. */
  readonly before: ImageTotals;
  readonly onBytes: (bytes: number) => void;
}

async function readContent(
  layer: LayerSource,
  { sink, xattrMode, keep }: BuildTreeOptions,
  { decode, before, onBytes }: ReadContent,
): Promise<LayerContent> {
  const ingest = new LayerIngest(sink, xattrMode ?? 'allowlist-only', before, keep);
  try {
    const { outputBytes, trailingData } = await readLayer(layer, ingest, {
      decode,
      outputBytesBefore: before.outputBytes,
      onBytes,
    });
    const used = subtractTotals({ ...ingest.used, outputBytes }, before);
    return { entries: ingest.entries, used, trailingData };
  } finally {
    ingest.abort();
  }
}

function blobBytes(layers: readonly LayerSource[]): number {
  return layers.reduce((sum, { descriptor }) => sum + descriptor.size, 0);
}

export interface BootableTree {
  /** A tree of its own; the one it was made from is unchanged. */
  readonly tree: DirectoryNode;
  readonly bootFiles: BootFiles;
}

/** The tree that is booted, from an OCI-transformed one. Throws 'image-not-bootable' or 'image-unsupported'. */
export function bootableTree(ociTree: DirectoryNode): BootableTree {
  const bootFiles = findBootFiles(ociTree);
  return { tree: bootTransform(ociTree), bootFiles };
}

/** The same of an image of which nobody asks how it boots. */
export function bootTransform(ociTree: DirectoryNode): DirectoryNode {
  const tree = copyTree(ociTree);
  emptyMountPoints(tree);
  relabel(tree);
  return tree;
}

/** The first warnings, and how many more there were. */
class Warnings {
  readonly #messages: string[] = [];
  #more = 0;

  add(message: string): void {
    if (this.#messages.length < MAX_WARNINGS) this.#messages.push(message);
    else this.#more++;
  }

  list(): readonly string[] {
    return this.#more === 0 ? this.#messages : [...this.#messages, `${this.#more} more warnings of this kind`];
  }
}
