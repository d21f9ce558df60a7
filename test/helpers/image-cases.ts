/**
 * Whole images as rows of a table: a rule of docs/layers.md, a title, the layers, and the tree that comes out or the
 * refusal. Every image but a bare one ends with a layer that states `/usr`, which images must have.
 */

import type { ErrorCode } from '../../src/errors.ts';
import { fsverityDigest } from '../../src/format/fsverity/digest.ts';
import { parseImageReference } from '../../src/format/oci/reference.ts';
import { buildTree, type BuiltTree } from '../../src/image/build.ts';
import { measuringSink } from '../../src/image/ingest.ts';
import { openImageSource } from '../../src/image/source.ts';
import type { XattrMode } from '../../src/image/xattr-filter.ts';
import type { ObjectSink } from '../../src/tree/objects.ts';
import { ociLayout, type Json, type LayerSpec, type LayoutSpec } from './oci-builder.ts';
import { scratchDir } from './scratch-dir.ts';
import { startFilter } from './start-filter.ts';
import { tar, tarDir, tarFile, tarHardlink, tarSymlink } from './tar-builder.ts';

/** Entries of a complete tar, a whole archive, or a layer with all that belongs to it. */
export type CaseLayer = readonly Buffer[] | Buffer | LayerSpec;

export interface Refusal {
  readonly code: ErrorCode;
  readonly message: RegExp;
}

export interface CaseOptions {
  /** No layer is added for `/usr`. */
  readonly bare?: boolean;
  readonly xattrMode?: XattrMode;
  /** Pieces of the warnings, in order; none without. */
  readonly warnings?: readonly string[];
  readonly tag?: string;
  /** Everything about the layout besides its layers. */
  readonly layout?: Partial<LayoutSpec>;
  /** Changes the finished layout. */
  readonly after?: (directory: string) => void;
  /** No host can hold it at any path. */
  readonly notOnDisk?: boolean;
  /** Why another program makes something else of it. */
  readonly umoci?: string;
  readonly gnuTar?: string;
  readonly bsdtar?: string;
}

/** What a case expects: path to node as in `listing`, without "/usr" and "/" where these are as usual; or a refusal. */
export type CaseResult = Readonly<Record<string, string>> | Refusal;

export type ImageCase = readonly [
  rule: string,
  title: string,
  layers: readonly CaseLayer[],
  result: CaseResult,
  options?: CaseOptions,
];

export function refused(message: RegExp, code: ErrorCode = 'image-invalid'): Refusal {
  return { code, message };
}

export function isRefusal(result: CaseResult): result is Refusal {
  return result['message'] instanceof RegExp;
}

export const f = (name: string, content = name): Buffer => tarFile(name, content);
export const d = (name: string, mode = 0o755): Buffer => tarDir(name, { mode });
export const s = (name: string, target: string): Buffer => tarSymlink(name, target);
export const h = (name: string, target: string): Buffer => tarHardlink(name, target);
export const wh = (name: string): Buffer => tarFile(name);
export const opaque = (directory: string): Buffer => wh(`${directory}/.wh..wh..opq`);

/** How a large file of this content is listed. */
export function object(content: string): string {
  const bytes = Buffer.from(content, 'latin1');
  return `<${bytes.length} ${fsverityDigest('sha256', bytes).slice(0, 12)}>`;
}

function layerSpec(layer: CaseLayer): LayerSpec {
  // Plain tar unless a case is about compression: the table is read faster.
  if (Buffer.isBuffer(layer)) return { tar: layer, compression: 'none' };
  return 'tar' in layer ? layer : { tar: tar(layer), compression: 'none' };
}

/** Writes the image of a case as a layout; returns its directory. */
export function writeCase([, , layers, , options = {}]: ImageCase): string {
  const all = options.bare === true ? layers : [...layers, [d('usr')]];
  const { directory } = ociLayout(scratchDir(), { ...options.layout, layers: all.map(layerSpec) });
  options.after?.(directory);
  return directory;
}

/** Reads the image of a case, for a host of linux/amd64. */
export async function readCase(directory: string, options: CaseOptions = {}, sink?: ObjectSink): Promise<BuiltTree> {
  const tag = options.tag === undefined ? '' : `:${options.tag}`;
  const source = openImageSource(parseImageReference(`oci:${directory}${tag}`), { os: 'linux', architecture: 'amd64' });
  return buildTree(source, {
    sink: sink ?? measuringSink('sha256'),
    signal: new AbortController().signal,
    startFilter,
    ...(options.xattrMode === undefined ? {} : { xattrMode: options.xattrMode }),
  });
}

/** A change of one field of a document. */
export function withField(field: string, value: unknown): (document: Json) => Json {
  return (document) => ({ ...document, [field]: value });
}
