/** A thousand mounts under the eyes of findmnt, a half of them killed: never an EROFS mount, never anything left. */

import { expect, test } from 'vitest';
import { repositoryContent } from '../../src/deploy/materialize.ts';
import { readComposefsImage } from '../../src/format/erofs/reader.ts';
import { readImage } from '../../src/store/images.ts';
import { requireRepository } from '../../src/store/repository.ts';
import type { VerityDigest } from '../../src/tree/node.ts';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { setup } from '../helpers/build-program.ts';
import { factDifferences, factsOfDirectory, factsOfTree } from '../helpers/file-facts.ts';
import { loopsOf, runMountCycles } from '../helpers/mount-cycles.ts';
import { hostctl } from '../helpers/run-program.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { testHost } from '../helpers/test-host.ts';

test('a thousand mounts and unmounts', async () => {
  setup();
  const repo = `${scratchDir()}/repo`;
  const { reference } = bootableLayout();
  const digest = hostctl(['image', 'pull', reference, '--repo', repo]).stdout.trim() as VerityDigest;
  const host = testHost();
  const repository = requireRepository(host, repo);
  const facts = factsOfTree(readComposefsImage(readImage(repository, digest)), repositoryContent(repository));
  const checkTree = (directory: string): void => {
    const shown = factsOfDirectory(directory, (path) => host.syscalls.listXattrs(path));
    expect(factDifferences(shown, facts)).toEqual([]);
  };
  const { killed, finished, seen } = await runMountCycles({ count: 1000, repo, digest, checkTree });
  console.log(`${finished} mounts, ${killed} killed, ${seen.reads} reads of the table, ${seen.asked} of findmnt`);
  expect(killed).toBeGreaterThan(200);
  expect(finished).toBeGreaterThanOrEqual(500);
  expect(seen.asked).toBeGreaterThan(1000);
  expect(seen.lines.filter((line) => line.includes('erofs'))).toEqual([]);
  const object = `${repo}/objects/${digest.slice(0, 2)}/${digest.slice(2)}`;
  await expect.poll(() => loopsOf(object), { timeout: 10_000 }).toEqual([]);
});
