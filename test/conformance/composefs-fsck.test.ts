/** `fsck.erofs` as referee of our images. Version 1.5 and later read everything that composefs writes. */

import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { parseDump } from '../../src/format/dump/parse.ts';
import { writeComposefsImage } from '../../src/format/erofs/writer.ts';
import type { DirectoryNode } from '../../src/tree/node.ts';
import { treeArbitrary } from '../helpers/arbitraries.ts';
import { fileVectors } from '../helpers/composefs-vectors.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';

const missing = spawnSync('fsck.erofs', ['-V']).error !== undefined;
if (missing && process.env['HOSTCTL_CONFORMANCE'] === 'require') throw new Error('fsck.erofs is missing');

interface Verdict {
  readonly status: number | null;
  readonly stderr: string;
}

function fsck(path: string, tree: DirectoryNode): Verdict {
  writeFileSync(path, writeComposefsImage(tree, { algorithm: 'sha256' }).bytes);
  const { status, stderr } = spawnSync('fsck.erofs', [path], { encoding: 'utf8', timeout: 60_000 });
  return { status, stderr };
}

const clean: Verdict = { status: 0, stderr: '' };

describe.skipIf(missing)('fsck.erofs finds nothing wrong', () => {
  test.each(fileVectors())('with $name', ({ dump }) => {
    expect(fsck(`${scratchDir()}/image`, parseDump(dump))).toEqual(clean);
  });

  test('with random trees', () => {
    const path = `${scratchDir()}/image`;
    fc.assert(
      fc.property(treeArbitrary(), (tree) => {
        expect(fsck(path, tree)).toEqual(clean);
      }),
      { numRuns: 100 },
    );
  });

  test('but does find damage, so that its silence means something', () => {
    const path = `${scratchDir()}/image`;
    const { bytes } = writeComposefsImage(parseDump(fileVectors()[0]!.dump), { algorithm: 'sha256' });
    bytes.fill(0xff, 1152 + 16, 1152 + 20);
    writeFileSync(path, bytes);
    expect(spawnSync('fsck.erofs', [path]).status).not.toBe(0);
  });
});
