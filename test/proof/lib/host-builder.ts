/**
 * Hand-made hosts for the checker's own tests: deployments written file by file as the documentation has them, with
 * every part open to be spoilt. Nothing here writes as hostctl does.
 */

import { createHash } from 'node:crypto';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { writeComposefsImage } from '../../../src/format/erofs/writer.ts';
import { rawFromText } from '../../../src/tree/name.ts';
import type { DirectoryNode, Metadata, TreeNode, VerityDigest } from '../../../src/tree/node.ts';
import { verityHex } from '../checker/verity.ts';

export interface BuiltDeployment {
  readonly digest: string;
  readonly options: string;
  readonly entryPath: string;
  readonly kernelDirectory: string;
  /** Paths of all objects of the image, the image's own first, below the root directory. */
  readonly objects: readonly string[];
}

/** Files of an image by path; more than 64 bytes become objects. */
export type ImageFiles = Readonly<Record<string, string>>;

export const IMAGE_FILES: ImageFiles = {
  'etc/hostname': 'host',
  'etc/long.conf': 'long '.repeat(100),
  'usr/bin/tool': 'tool '.repeat(2000),
  'usr/lib/small': 'small',
};

/** Writes one deployment below `root` and `boot` (two directories that stand for file systems). */
export function buildDeployment(
  root: string,
  boot: string,
  sequence: number,
  files: ImageFiles = IMAGE_FILES,
  counter = '',
): BuiltDeployment {
  const objects: string[] = [];
  const store = (content: Buffer): string => {
    const digest = verityHex('sha256', content);
    const path = `composefs/objects/${digest.slice(0, 2)}/${digest.slice(2)}`;
    put(`${root}/${path}`, content);
    objects.push(path);
    return digest;
  };
  const tree = buildTree(files, store);
  const digest = store(Buffer.from(writeComposefsImage(tree, { algorithm: 'sha256' }).bytes));
  mkdirSync(`${root}/composefs/images`, { recursive: true });
  symlinkSync(`../objects/${digest.slice(0, 2)}/${digest.slice(2)}`, `${root}/composefs/images/${digest}`);

  const state = `${root}/state/deploy/${digest}`;
  for (const [path, text] of Object.entries(files)) if (path.startsWith('etc/')) put(`${state}/${path}`, text);
  symlinkSync('../../os/default/var', `${state}/var`);
  mkdirSync(`${root}/state/os/default/var`, { recursive: true });
  put(`${state}/${digest}.origin`, '[origin]\ncontainer-image-reference = docker://example.org/x\n');

  const kernel = Buffer.alloc(5000, `kernel ${sequence}`);
  const initrd = Buffer.alloc(9000, `initrd ${sequence}`);
  const sha256 = (bytes: Buffer): Buffer => createHash('sha256').update(bytes).digest();
  const kernelDirectory = `hostctl/${sha256(Buffer.concat([sha256(kernel), sha256(initrd)])).toString('hex')}`;
  put(`${boot}/${kernelDirectory}/linux`, kernel);
  put(`${boot}/${kernelDirectory}/initrd`, initrd);
  const options = `root=UUID=1 rw composefs.digest=v1-sha256-12:${digest} quiet`;
  const entryPath = `loader/entries/hostctl-${String(sequence).padStart(8, '0')}${counter}.conf`;
  put(
    `${boot}/${entryPath}`,
    [
      'title Test',
      `version ${sequence}`,
      'sort-key hostctl',
      `linux /${kernelDirectory}/linux`,
      `initrd /${kernelDirectory}/initrd`,
      `options ${options}`,
      '',
    ].join('\n'),
  );
  return { digest, options, entryPath, kernelDirectory, objects: objects.reverse() };
}

function put(path: string, content: string | Buffer): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
}

function buildTree(files: ImageFiles, store: (content: Buffer) => string): DirectoryNode {
  const root = directory();
  for (const [path, text] of Object.entries(files)) {
    const parts = path.split('/');
    const name = parts.pop() ?? '';
    let parent = root;
    for (const part of parts) {
      let next = parent.entries.get(rawFromText(part)) as DirectoryNode | undefined;
      if (!next) {
        next = directory();
        parent.entries.set(rawFromText(part), next);
      }
      parent = next;
    }
    parent.entries.set(rawFromText(name), file(Buffer.from(text), store));
  }
  return root;
}

function metadata(mode: number): Metadata {
  return { mode, uid: 0, gid: 0, mtime: { sec: 0n, nsec: 0 }, xattrs: new Map() };
}

function directory(): DirectoryNode {
  return { kind: 'directory', ...metadata(0o755), entries: new Map() };
}

function file(content: Buffer, store: (content: Buffer) => string): TreeNode {
  if (content.length <= 64)
    return { kind: 'file', ...metadata(0o644), nlink: 1, content: { kind: 'inline', bytes: content } };
  const digest = store(content) as VerityDigest;
  return {
    kind: 'file',
    ...metadata(0o644),
    nlink: 1,
    content: {
      kind: 'external',
      size: content.length,
      digest,
      path: rawFromText(`${digest.slice(0, 2)}/${digest.slice(2)}`),
    },
  };
}
