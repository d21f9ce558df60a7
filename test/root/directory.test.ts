import { createHash } from 'node:crypto';
import { chmodSync, chownSync, lchownSync, linkSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';

import { describe, expect, test } from 'vitest';

import { formatDump } from '../../src/format/dump/format.ts';
import { readComposefsImage } from '../../src/format/erofs/reader.ts';
import { writeComposefsImage } from '../../src/format/erofs/writer.ts';
import { fsverityDigest, objectPath } from '../../src/format/fsverity/digest.ts';
import { readDirectoryTree } from '../../src/image/directory.ts';
import { openExec } from '../../src/sys/exec.ts';
import { openSyscalls, type Syscalls } from '../../src/sys/syscalls.ts';
import type { ObjectSink } from '../../src/tree/objects.ts';
import {
  contentOfEntry,
  directoryVectors,
  OPTIONS,
  type DirectoryEntry,
  type DirectoryExpected,
} from '../helpers/directory-vectors.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { makeDevice, makeFifo, makeSocket } from '../helpers/special-file.ts';

function make(top: string, entry: DirectoryEntry, sys: Syscalls): void {
  const path = `${top}/${entry.path}`;
  switch (entry.type) {
    case 'dir':
      mkdirSync(path, { recursive: true });
      break;
    case 'file':
      writeFileSync(path, contentOfEntry(entry));
      break;
    case 'symlink':
      symlinkSync(entry.target!, path);
      break;
    case 'hardlink':
      linkSync(`${top}/${entry.target!}`, path);
      return;
    case 'fifo':
      makeFifo(path);
      break;
    case 'sock':
      makeSocket(path);
      break;
    default:
      makeDevice(path, entry.type === 'chr' ? 'char' : 'block', entry.major ?? 0, entry.minor ?? 0);
  }
  lchownSync(path, entry.uid ?? 0, entry.gid ?? 0);
  if (entry.type !== 'symlink') {
    chownSync(path, entry.uid ?? 0, entry.gid ?? 0);
    chmodSync(path, entry.mode!);
  }
  for (const [name, value] of Object.entries(entry.xattrs ?? {})) sys.setXattr(path, name, Buffer.from(value, 'hex'));
}

/** Times last, children before parents: making a child changes its parent. */
function stamp(top: string, entries: readonly DirectoryEntry[], sys: Syscalls): void {
  for (const { path, mtime_ns: mtime } of [...entries].sort((a, b) => b.path.length - a.path.length)) {
    if (mtime === undefined) continue;
    sys.setMtime(`${top}/${path}`, {
      sec: BigInt(mtime) / 1_000_000_000n,
      nsec: Number(BigInt(mtime) % 1_000_000_000n),
    });
  }
}

class MemoryStore implements ObjectSink {
  readonly algorithm = 'sha256';
  readonly objects: Record<string, { sha256: string; size: number; mode: string }> = {};

  create(): ReturnType<ObjectSink['create']> {
    const pieces: Uint8Array[] = [];
    return {
      write: (piece) => void pieces.push(piece.slice()),
      finish: () => {
        const bytes = Buffer.concat(pieces);
        const digest = fsverityDigest('sha256', bytes);
        const sha256 = createHash('sha256').update(bytes).digest('hex');
        this.objects[objectPath(digest)] = { sha256, size: bytes.length, mode: '0o644' };
        return digest;
      },
      abort: () => undefined,
    };
  }
}

const sys = openSyscalls(openExec(() => undefined, new AbortController().signal));

describe.each(directoryVectors())(
  'the directory "$name" becomes the image of mkcomposefs',
  ({ entries, expect: expected }) => {
    test('under every option', () => {
      const top = `${scratchDir()}/top`;
      for (const entry of entries) make(top, entry, sys);
      stamp(top, entries, sys);
      const found: Record<string, DirectoryExpected> = {};
      for (const option of Object.keys(expected)) {
        const { minVersion, maxVersion, ...rest } = OPTIONS[option]!;
        const store = new MemoryStore();
        const tree = readDirectoryTree(top, store, { ...rest, listXattrs: (path) => sys.listXattrs(path) });
        const versions = {
          ...(minVersion === undefined ? {} : { minVersion }),
          ...(maxVersion === undefined ? {} : { maxVersion }),
        };
        const { bytes, version } = writeComposefsImage(tree, { algorithm: 'sha256', ...versions });
        found[option] = {
          digest: fsverityDigest('sha256', bytes),
          sha256: createHash('sha256').update(bytes).digest('hex'),
          size: bytes.length,
          header_version: version,
          ...(expected[option]!.info_dump === undefined
            ? {}
            : { info_dump: [...formatDump(readComposefsImage(bytes), { version })].join('') }),
          ...(expected[option]!.store === undefined ? {} : { store: store.objects }),
        };
      }
      expect(found).toEqual(expected);
    });
  },
);
