/**
 * `meta.json` of a composefs repository, as composefs-rs writes it: what the digests in it are made with, and which
 * features a program must know before it writes, or before it reads at all.
 */

import { HostctlError } from '../errors.ts';
import type { VerityAlgorithm } from '../tree/node.ts';

export type FormatVersion = 0 | 1 | 2;

export interface RepoMeta {
  readonly version: 1;
  readonly algorithm: VerityAlgorithm;
  readonly logBlockSize: 12;
  /** Image formats kept for each tree. Without the field in the file: version 2, or 1 with the `v1_erofs` feature. */
  readonly erofsFormats: { readonly default: FormatVersion; readonly extra: readonly FormatVersion[] };
  readonly features: {
    readonly compatible: readonly string[];
    readonly readOnlyCompatible: readonly string[];
    readonly incompatible: readonly string[];
  };
}

const MAX_CHARS = 65_536;
const V1_EROFS = 'v1_erofs';
const KNOWN_READ_ONLY_COMPATIBLE = new Set([V1_EROFS]);

/** A new repository of ours: version 1 images only. */
export function newRepoMeta(algorithm: VerityAlgorithm): RepoMeta {
  return {
    version: 1,
    algorithm,
    logBlockSize: 12,
    erofsFormats: { default: 1, extra: [] },
    features: { compatible: [], readOnlyCompatible: [V1_EROFS], incompatible: [] },
  };
}

/**
 * Reads `meta.json`. Throws `format-invalid` for what is malformed, `host-unsupported` for a newer version, an unknown
 * hash or block size, or any incompatible feature. Unknown members are ignored: features are how a change is announced.
 */
export function parseRepoMeta(text: string): RepoMeta {
  if (text.length > MAX_CHARS) throw malformed(`it has ${text.length} characters`);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw malformed('it is not JSON', cause);
  }
  const root = membersOf(json, 'it');
  const version = root.get('version');
  if (typeof version !== 'number' || !Number.isInteger(version) || version < 1)
    throw malformed('"version" is no number');
  if (version > 1) throw unsupported(`version ${version} is newer than 1`);
  const { algorithm, logBlockSize } = parseAlgorithm(root.get('algorithm'));
  const features = parseFeatures(root.get('features'));
  const [incompatible] = features.incompatible;
  if (incompatible !== undefined) throw unsupported(`it needs feature ${JSON.stringify(incompatible)}`);
  return {
    version: 1,
    algorithm,
    logBlockSize,
    erofsFormats: parseFormats(root.get('erofs_formats'), features),
    features,
  };
}

/** Whether hostctl may write: false with a read-only compatible feature it does not know. */
export function isRepoWritable(meta: RepoMeta): boolean {
  return meta.features.readOnlyCompatible.every((feature) => KNOWN_READ_ONLY_COMPATIBLE.has(feature));
}

/** The text of `meta.json`, ending in a newline. */
export function formatRepoMeta(meta: RepoMeta): string {
  const { compatible, readOnlyCompatible, incompatible } = meta.features;
  const json = {
    version: meta.version,
    algorithm: `fsverity-${meta.algorithm}-${meta.logBlockSize}`,
    erofs_formats: meta.erofsFormats,
    features: { compatible, 'read-only-compatible': readOnlyCompatible, incompatible },
  };
  return `${JSON.stringify(json, undefined, 2)}\n`;
}

/** Whether a description that can be read says only what is known here and what some tool writes. */
export function isPlainRepoMeta(text: string): boolean {
  const meta = parseRepoMeta(text);
  const known: unknown = JSON.parse(formatRepoMeta(meta));
  return meta.erofsFormats.default !== 0 && JSON.stringify(JSON.parse(text)) === JSON.stringify(known);
}

function parseAlgorithm(value: unknown): { algorithm: VerityAlgorithm; logBlockSize: 12 } {
  if (typeof value !== 'string') throw malformed('"algorithm" is no string');
  switch (value) {
    case 'fsverity-sha256-12':
      return { algorithm: 'sha256', logBlockSize: 12 };
    case 'fsverity-sha512-12':
      return { algorithm: 'sha512', logBlockSize: 12 };
    default:
      throw unsupported(`it uses ${JSON.stringify(value)}`);
  }
}

function parseFeatures(value: unknown): RepoMeta['features'] {
  const members = value === undefined ? new Map<string, unknown>() : membersOf(value, '"features"');
  const list = (key: string): string[] => {
    const items = members.get(key) ?? [];
    if (!Array.isArray(items) || !items.every((item) => typeof item === 'string')) {
      throw malformed(`feature list "${key}" is no list of strings`);
    }
    return items;
  };
  return {
    compatible: list('compatible'),
    readOnlyCompatible: list('read-only-compatible'),
    incompatible: list('incompatible'),
  };
}

function parseFormats(value: unknown, features: RepoMeta['features']): RepoMeta['erofsFormats'] {
  if (value === undefined) return { default: features.readOnlyCompatible.includes(V1_EROFS) ? 1 : 2, extra: [] };
  const members = membersOf(value, '"erofs_formats"');
  const extra: unknown = members.get('extra') ?? [];
  if (!Array.isArray(extra)) throw malformed('"extra" is no list');
  return { default: parseFormat(members.get('default')), extra: extra.map(parseFormat) };
}

function parseFormat(value: unknown): FormatVersion {
  if (value === 0 || value === 1 || value === 2) return value;
  if (typeof value === 'number' && Number.isInteger(value)) throw unsupported(`it keeps image format ${value}`);
  throw malformed('an image format is no number');
}

function membersOf(value: unknown, what: string): Map<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw malformed(`${what} is no object`);
  return new Map(Object.entries(value));
}

function malformed(problem: string, cause?: unknown): HostctlError {
  return new HostctlError('format-invalid', `Cannot read repository description "meta.json": ${problem}`, { cause });
}

function unsupported(problem: string): HostctlError {
  return new HostctlError('host-unsupported', `Cannot use this repository: ${problem}`, {
    hint: 'It was made by a newer program; update hostctl',
  });
}
