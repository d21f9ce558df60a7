/**
 * Program of the scale test: makes a tree of as many files as its argument says, writes it as an image, reads the
 * objects back, and prints how many there are and the CPU seconds of both. Meant to run with a limited heap.
 */

import { imageObjects } from '../../src/format/erofs/image-objects.ts';
import { writeComposefsImage } from '../../src/format/erofs/writer.ts';
import { objectPath, parseVerityDigest } from '../../src/format/fsverity/digest.ts';
import { rawFromText } from '../../src/tree/name.ts';
import type { Metadata } from '../../src/tree/node.ts';
import { dir, metadata } from './tree-builder.ts';

const count = Number(process.argv[2]);
const label = { 'security.selinux': 'system_u:object_r:usr_t:s0' };
const common = (): Metadata => metadata({ uid: 0, gid: 0, xattrs: label });
const root = dir();
let parent = root;
for (let i = 0; i < count; i++) {
  if (i % 50 === 0) {
    parent = dir();
    root.entries.set(rawFromText(`directory-${i}`), parent);
  }
  const digest = parseVerityDigest(i.toString(16).padStart(64, '0'));
  const content = { kind: 'external', size: 1000 + i, digest, path: objectPath(digest) } as const;
  parent.entries.set(rawFromText(`file-number-${i}`), { kind: 'file', ...common(), nlink: 1, content });
}
const before = process.cpuUsage();
const { bytes } = writeComposefsImage(root, { algorithm: 'sha256' });
const objects = imageObjects(bytes).length;
const { user, system } = process.cpuUsage(before);
console.log(JSON.stringify({ objects, cpuSeconds: (user + system) / 1e6 }));
