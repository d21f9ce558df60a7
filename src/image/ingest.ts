/**
 * Turns the tar entries of one layer into a list of what the layer does, while the tar streams past: small files are
 * kept, larger ones go straight into the object sink. Nothing is extracted, and no name from the image is ever a path
 * on the host.
 */

import { HostctlError } from '../errors.ts';
import { objectPath, VerityHasher } from '../format/fsverity/digest.ts';
import type { TarEntry } from '../format/tar/entry.ts';
import type { TarHandler } from '../format/tar/reader.ts';
import type { RawName } from '../tree/name.ts';
import {
  encodeDevice,
  NO_CONTENT,
  NO_XATTRS,
  type FileContent,
  type Metadata,
  type Timestamp,
  type TreeNode,
  type VerityAlgorithm,
} from '../tree/node.ts';
import type { ObjectSink, ObjectWriter } from '../tree/objects.ts';
import { INLINE_LIMIT, MAX_XATTRS_SIZE } from '../tree/validate.ts';
import type { ImageTotals, LayerEntry } from '../tree/layer-entry.ts';
import { checkEntries, checkMetadata } from './limits.ts';
import { normalisePath, parseLayerPath } from './layer-path.ts';
import { isPolicyFile, MAX_POLICY_BYTES } from './selinux.ts';
import { isKeptXattr, type XattrMode } from './xattr-filter.ts';

const MAX_TARGET_BYTES = 4095;

/** A sink that keeps nothing: digests are all that is wanted. */
export function measuringSink(algorithm: VerityAlgorithm): ObjectSink {
  return {
    algorithm,
    create() {
      const hasher = new VerityHasher(algorithm);
      return {
        write: (chunk) => hasher.update(chunk),
        finish: () => hasher.digest(),
        abort: () => undefined,
      };
    },
  };
}

/** A file whose data is passing. */
interface OpenFile {
  readonly entry: TarEntry;
  readonly path: RawName;
  readonly writer: ObjectWriter | undefined;
  /** Kept content: that of a small file, or of one that will be read. */
  readonly kept: Uint8Array | undefined;
  keptBytes: number;
}

export class LayerIngest implements TarHandler {
  readonly entries: LayerEntry[] = [];
  readonly #sink: ObjectSink;
  readonly #xattrMode: XattrMode;
  readonly #keep: (path: RawName) => boolean;
  #entryCount: number;
  #metadataBytes: number;
  #file: OpenFile | undefined;
  /** Of the last node: most come with the time of the one before, and share it. */
  #mtime: Timestamp = { sec: 0n, nsec: 0 };

  /**
   * @param before - what the layers below used of the image's limits
   * @param keep - files whose content the caller wants at hand, besides those that labelling needs
   */
  constructor(
    sink: ObjectSink,
    xattrMode: XattrMode,
    before: ImageTotals,
    keep: (path: RawName) => boolean = () => false,
  ) {
    this.#sink = sink;
    this.#keep = keep;
    this.#xattrMode = xattrMode;
    this.#entryCount = before.entries;
    this.#metadataBytes = before.metadataBytes;
  }

  /** What the image has used up to here. */
  get used(): Pick<ImageTotals, 'entries' | 'metadataBytes'> {
    return { entries: this.#entryCount, metadataBytes: this.#metadataBytes };
  }

  entry(entry: TarEntry): void {
    this.#entryCount++;
    checkEntries(this.#entryCount);
    const layerPath = parseLayerPath(entry.name);
    if (layerPath.kind === 'ignored') return;
    const { path } = layerPath;
    const { number } = entry;
    this.#charge(path.length);
    if (layerPath.kind !== 'plain') {
      this.entries.push({ kind: layerPath.kind, number, path });
    } else if (path === '' && entry.type !== 'directory') {
      throw new HostctlError('image-invalid', `Root is a ${entry.type} instead of a directory`);
    } else if (entry.type === 'file') {
      this.#startFile(entry, path);
    } else if (entry.type === 'hardlink') {
      const target = normalisePath(entry.linkname, 'Hard link target');
      this.#charge(target.length);
      this.entries.push({ kind: 'hardlink', number, path, target });
    } else {
      this.entries.push({ kind: 'node', number, path, node: this.#node(entry, entry.type) });
    }
  }

  data(chunk: Uint8Array): void {
    const file = this.#file;
    // Without a file, this is the content of a whiteout marker: only its name counts.
    if (file === undefined) return;
    file.writer?.write(chunk);
    if (file.kept !== undefined) {
      file.kept.set(chunk, file.keptBytes);
      file.keptBytes += chunk.length;
    }
  }

  entryEnd(): void {
    const file = this.#file;
    if (file === undefined) return;
    const node: TreeNode = { kind: 'file', ...this.#metadata(file.entry), content: contentOf(file), nlink: 0 };
    this.#file = undefined;
    this.entries.push({ kind: 'node', number: file.entry.number, path: file.path, node });
  }

  /** Gives up on a file that is half read. Harmless otherwise. */
  abort(): void {
    this.#file?.writer?.abort();
    this.#file = undefined;
  }

  #startFile(entry: TarEntry, path: RawName): void {
    const isInline = entry.size <= INLINE_LIMIT;
    const isKept = isInline || ((isPolicyFile(path) || this.#keep(path)) && entry.size <= MAX_POLICY_BYTES);
    if (isKept) this.#charge(entry.size);
    this.#file = {
      entry,
      path,
      writer: isInline ? undefined : this.#sink.create(entry.size),
      kept: isKept ? new Uint8Array(entry.size) : undefined,
      keptBytes: 0,
    };
  }

  #node(entry: TarEntry, type: Exclude<TarEntry['type'], 'file' | 'hardlink'>): TreeNode {
    const metadata = this.#metadata(entry);
    switch (type) {
      case 'directory':
        return { kind: 'directory', ...metadata, entries: new Map() };
      case 'symlink':
        return { kind: 'symlink', ...metadata, target: this.#symlinkTarget(entry.linkname), nlink: 0 };
      case 'char':
      case 'block':
        return { kind: type, ...metadata, rdev: encodeDevice(entry.devMajor, entry.devMinor), nlink: 0 };
      case 'fifo':
        return { kind: 'fifo', ...metadata, nlink: 0 };
    }
  }

  #symlinkTarget(target: RawName): RawName {
    if (target.length < 1 || target.length > MAX_TARGET_BYTES) {
      throw new HostctlError(
        'image-invalid',
        `Symlink target has ${target.length} bytes, allowed are 1 to ${MAX_TARGET_BYTES}`,
      );
    }
    this.#charge(target.length);
    return target;
  }

  #metadata({ mode, uid, gid, mtime, xattrs }: TarEntry): Metadata {
    if (mtime.sec !== this.#mtime.sec || mtime.nsec !== this.#mtime.nsec) this.#mtime = mtime;
    return { mode, uid, gid, mtime: this.#mtime, xattrs: this.#keptXattrs(xattrs) };
  }

  #keptXattrs(xattrs: ReadonlyMap<RawName, Uint8Array>): Metadata['xattrs'] {
    const kept = new Map<RawName, Uint8Array>();
    let bytes = 12;
    for (const [name, value] of xattrs) {
      if (!isKeptXattr(name, this.#xattrMode)) continue;
      kept.set(name, value);
      bytes += 7 + name.length + value.length;
    }
    if (bytes > MAX_XATTRS_SIZE) {
      throw new HostctlError('image-unsupported', `Xattrs take ${bytes} bytes, at most ${MAX_XATTRS_SIZE} fit`);
    }
    if (kept.size === 0) return NO_XATTRS;
    this.#charge(bytes);
    return kept;
  }

  #charge(bytes: number): void {
    this.#metadataBytes += bytes;
    checkMetadata(this.#metadataBytes);
  }
}

/** The content of a file whose data has passed. */
function contentOf({ entry, writer, kept }: OpenFile): FileContent {
  if (entry.size === 0) return NO_CONTENT;
  if (writer === undefined) return { kind: 'inline', bytes: kept! };
  const digest = writer.finish();
  const external = { kind: 'external', size: entry.size, digest, path: objectPath(digest) } as const;
  return kept === undefined ? external : { ...external, bytes: kept };
}
