/**
 * Layers of an image that need not be read, because their records say what is in them. Not all the objects of such a
 * layer are needed: what a layer above hides is in no image, and gc takes it. So what is missing is looked for in the
 * finished tree, and only a layer that lacks something there has to be read after all.
 */

import * as fs from 'node:fs';
import { errnoOf, isHostctlError } from '../errors.ts';
import { fsverityDigest } from '../format/fsverity/digest.ts';
import type { LayerContent } from '../format/layer-record.ts';
import type { DiffId } from '../format/oci/digest.ts';
import { readLayerRecord } from '../store/layer-records.ts';
import { objectFile, type Repository } from '../store/repository.ts';
import type { LayerEntry } from '../tree/layer-entry.ts';
import type { RawName } from '../tree/name.ts';
import type { DirectoryNode, FileNode, VerityDigest } from '../tree/node.ts';
import { externalFiles } from '../tree/walk.ts';
import type { LayerSource } from './decode-layer.ts';
import { normalisePath } from './layer-path.ts';
import { isPolicyFile, MAX_POLICY_BYTES } from './selinux.ts';

export interface KnownLayer extends LayerContent {
  /** How many of its files have an object that is here. */
  readonly presentFiles: number;
  /** Objects it names that are not here, or cannot be trusted. */
  readonly absent: ReadonlySet<VerityDigest>;
}

export type KnownLayers = ReadonlyMap<LayerSource, KnownLayer>;

/** Tells whether an object is in the repository, and to be trusted. */
export interface ObjectLookup {
  has(digest: VerityDigest, sizeBytes: number): boolean;
}

/**
 * Those of `layers` that have a record, without `unusable` ones. The caller holds the shared repository lock. What is
 * returned is for one tree, which takes it over.
 */
export function readKnownLayers(
  repository: Repository,
  layers: readonly LayerSource[],
  lookup: ObjectLookup,
  unusable: ReadonlySet<DiffId>,
): KnownLayers {
  const known = new Map<LayerSource, KnownLayer>();
  for (const layer of layers) {
    const content = unusable.has(layer.diffId) ? undefined : readLayerRecord(repository, layer.diffId);
    if (content?.entries.every(hasLegalPaths) === true) known.set(layer, lookUp(repository, content, lookup));
  }
  return known;
}

/** Layers without which an object of one of these trees is not here. */
export function lackingLayers(
  known: KnownLayers,
  trees: readonly DirectoryNode[],
  lookup: ObjectLookup,
): readonly LayerSource[] {
  const suspects = [...known].filter(([, { absent }]) => absent.size > 0);
  if (suspects.length === 0) return [];
  const missing = new Set<VerityDigest>();
  for (const [digest, size] of trees.flatMap((tree) => [...externalFiles(tree)])) {
    const isSuspect = suspects.some(([, { absent }]) => absent.has(digest));
    // A layer that was read may have brought it.
    if (isSuspect && !lookup.has(digest, size)) missing.add(digest);
  }
  return suspects.flatMap(([layer, { absent }]) => ([...absent].some((digest) => missing.has(digest)) ? [layer] : []));
}

function lookUp(repository: Repository, content: LayerContent, lookup: ObjectLookup): KnownLayer {
  const absent = new Set<VerityDigest>();
  let presentFiles = 0;
  for (const { path, node, digest, size } of externalEntries(content.entries)) {
    if (!lookup.has(digest, size)) absent.add(digest);
    if (!absent.has(digest) && isPolicyFile(path) && size <= MAX_POLICY_BYTES) {
      const bytes = readObject(repository, digest);
      if (bytes === undefined) absent.add(digest);
      else node.content = { ...node.content, bytes };
    }
    if (!absent.has(digest)) presentFiles += 1;
  }
  return { ...content, presentFiles, absent };
}

/** What labelling reads, checked as it is when it comes out of a layer. */
function readObject(repository: Repository, digest: VerityDigest): Uint8Array | undefined {
  try {
    const bytes = fs.readFileSync(objectFile(repository, digest));
    return fsverityDigest(repository.algorithm, bytes) === digest ? bytes : undefined;
  } catch (error) {
    // Damaged under fs-verity: as good as absent.
    if (errnoOf(error) === undefined) throw error;
    return undefined;
  }
}

interface ExternalEntry {
  readonly path: RawName;
  readonly node: FileNode;
  readonly digest: VerityDigest;
  readonly size: number;
}

function* externalEntries(entries: readonly LayerEntry[]): Generator<ExternalEntry> {
  for (const entry of entries) {
    if (entry.kind !== 'node' || entry.node.kind !== 'file') continue;
    const { node, path } = entry;
    const { content } = node;
    if (content.kind === 'external' && content.digest !== undefined) {
      yield { path, node, digest: content.digest, size: content.size };
    }
  }
}

/** Whether what is said of a layer could have come out of its tar. */
function hasLegalPaths(entry: LayerEntry): boolean {
  return isLegalPath(entry.path) && (entry.kind !== 'hardlink' || isLegalPath(entry.target));
}

function isLegalPath(path: RawName): boolean {
  if (path === '') return true;
  try {
    return normalisePath(path, 'Path') === path;
  } catch (error) {
    if (isHostctlError(error, 'image-invalid')) return false;
    throw error;
  }
}
