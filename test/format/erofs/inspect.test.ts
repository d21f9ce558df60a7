import { expect, test } from 'vitest';

import { inspectImage } from '../../../src/format/erofs/inspect.ts';
import { writeComposefsImage } from '../../../src/format/erofs/writer.ts';
import { charDevice, dir, fifo, file, link, symlink, tree } from '../../helpers/tree-builder.ts';

const owner = { uid: 0, gid: 0, mtime: { sec: 1_700_000_000n, nsec: 0 } };
const label = { 'security.selinux': 'system_u:object_r:usr_t:s0' };

function sample(): Uint8Array {
  const tool = file('#!/bin/sh\n', { ...owner, mode: 0o755, xattrs: label });
  const root = tree({
    '/': dir({ ...owner, xattrs: label }),
    '/dev': dir(owner),
    '/dev/console': charDevice(0x501, owner),
    '/etc': dir(owner),
    '/etc/hidden': charDevice(0, owner),
    '/usr': dir(owner),
    '/usr/big': file('x'.repeat(70_000), { ...owner, uid: 70_000 }),
    '/usr/page': file('p'.repeat(4100), owner),
    '/usr/late': symlink('tool', { ...owner, mtime: { sec: 1_800_000_000n, nsec: 5 } }),
    '/usr/tool': tool,
    '/usr/tool-again': link(tool),
    '/usr/pipe': fifo({ ...owner, xattrs: { 'user.note': 'a\nb' } }),
  });
  return writeComposefsImage(root, { algorithm: 'sha256' }).bytes;
}

test('the annotated dump of a small image is as recorded', async () => {
  await expect(`${[...inspectImage(sample())].join('\n')}\n`).toMatchFileSnapshot(
    '../../golden/composefs-small.dump.txt',
  );
});

test('the ranges cover the image without gap or overlap', () => {
  const image = sample();
  let end = 0;
  expect([...inspectImage(image)].join('\n')).not.toContain('unclaimed');
  for (const line of inspectImage(image)) {
    const match = /^([0-9a-f]{8}) .*\((\d+) bytes\)/.exec(line);
    if (match === null) continue;
    expect({ line, offset: parseInt(match[1]!, 16) }).toEqual({ line, offset: end });
    end += Number(match[2]);
  }
  expect(end).toBe(image.length);
});

test('bytes that belong to nothing are shown', () => {
  const image = sample();
  image[600] = 0x41;
  expect([...inspectImage(image)]).toContainEqual(expect.stringMatching(/^00000020 unclaimed \(992 bytes\)/));
});
