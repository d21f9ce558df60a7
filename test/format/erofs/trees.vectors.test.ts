import { describe, expect, test } from 'vitest';

import { formatDump } from '../../../src/format/dump/format.ts';
import { readComposefsImage } from '../../../src/format/erofs/reader.ts';
import { writeComposefsImage } from '../../../src/format/erofs/writer.ts';
import { fsverityDigest } from '../../../src/format/fsverity/digest.ts';
import { encodeDevice, type DirectoryNode, type TreeEntry } from '../../../src/tree/node.ts';
import {
  contentOfEntry,
  directoryVectors,
  OPTIONS,
  type DirectoryEntry,
  type DirectoryVector,
} from '../../helpers/directory-vectors.ts';
import {
  charDevice,
  dir,
  fifo,
  file,
  socket,
  symlink,
  tree,
  type MetadataOptions,
} from '../../helpers/tree-builder.ts';

type Options = (typeof OPTIONS)[string];

/** The tree that reading the described directory would give; every name is an inode of its own. */
function treeOf(entries: readonly DirectoryEntry[], options: Options): DirectoryNode {
  const byPath = new Map(entries.map((entry) => [entry.path, entry]));
  const kept = entries.filter(({ type }) => options.skipDevices !== true || (type !== 'chr' && type !== 'blk'));
  return tree(
    Object.fromEntries(
      kept.map((entry) => {
        const source = entry.type === 'hardlink' ? byPath.get(entry.target!)! : entry;
        return [entry.path === '.' ? '/' : `/${entry.path}`, nodeOf(source, options)];
      }),
    ),
  );
}

function nodeOf(entry: DirectoryEntry, options: Options): TreeEntry {
  const nanoseconds = options.useEpoch === true ? 0n : BigInt(entry.mtime_ns!);
  const wanted = Object.entries(entry.xattrs ?? {}).filter(
    ([name]) => options.xattrs === undefined || (options.xattrs === 'user' && name.startsWith('user.')),
  );
  const metadata: MetadataOptions = {
    ...(entry.mode === undefined ? {} : { mode: entry.mode & 0o7777 }),
    uid: entry.uid ?? 0,
    gid: entry.gid ?? 0,
    mtime: { sec: nanoseconds / 1_000_000_000n, nsec: Number(nanoseconds % 1_000_000_000n) },
    xattrs: Object.fromEntries(wanted.map(([name, value]) => [name, Buffer.from(value, 'hex')])),
  };
  const rdev = encodeDevice(entry.major ?? 0, entry.minor ?? 0);
  switch (entry.type) {
    case 'dir':
      return dir(metadata);
    case 'symlink':
      return symlink(entry.target!, metadata);
    case 'chr':
      return charDevice(rdev, metadata);
    case 'blk':
      return { ...charDevice(rdev, metadata), kind: 'block' };
    case 'fifo':
      return fifo(metadata);
    case 'sock':
      return socket(metadata);
    case 'file':
    case 'hardlink':
      return file(contentOfEntry(entry), metadata);
  }
}

function written({ entries }: DirectoryVector, option: string): object {
  const { minVersion, maxVersion } = OPTIONS[option]!;
  const { bytes, version } = writeComposefsImage(treeOf(entries, OPTIONS[option]!), {
    algorithm: 'sha256',
    ...(minVersion === undefined ? {} : { minVersion }),
    ...(maxVersion === undefined ? {} : { maxVersion }),
  });
  return {
    digest: fsverityDigest('sha256', bytes),
    size: bytes.length,
    header_version: version,
    info_dump: [...formatDump(readComposefsImage(bytes), { version })].join(''),
  };
}

describe.each(directoryVectors())('the tree of the directory "$name"', (vector) => {
  test.each(Object.keys(vector.expect))('becomes the image of mkcomposefs with options %s', (option) => {
    const { digest, size, header_version, info_dump } = vector.expect[option]!;
    const ours = written(vector, option);
    expect(ours).toMatchObject({ digest, size, header_version, ...(info_dump === undefined ? {} : { info_dump }) });
  });
});
