/**
 * mkcomposefs and fsck.erofs of Debian sid as referees of a thousand random trees. Fails where that system cannot be
 * made: a referee who stays at home has found nothing.
 */

import { readdirSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';

import { formatDump } from '../../src/format/dump/format.ts';
import { parseDump } from '../../src/format/dump/parse.ts';
import { imageObjects } from '../../src/format/erofs/image-objects.ts';
import { readComposefsImage } from '../../src/format/erofs/reader.ts';
import { writeComposefsImage, type ComposefsImageOptions } from '../../src/format/erofs/writer.ts';
import { fsverityDigest } from '../../src/format/fsverity/digest.ts';
import { createImage } from '../../src/ops/composefs-tools.ts';
import type { RawName } from '../../src/tree/name.ts';
import { treeArbitrary } from '../helpers/arbitraries.ts';
import { rawDump } from '../helpers/raw-dump.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { inSidRoot, sidRoot } from '../helpers/sid-root.ts';
import { testHost } from '../helpers/test-host.ts';

const TREES = Number(process.env['HOSTCTL_LONG_TREES'] ?? 1200);
const SEED = Number(process.env['HOSTCTL_SEED'] ?? Date.now() % 0x7fffffff);

const MODES: Readonly<Record<string, { flags: string; options: Omit<ComposefsImageOptions, 'algorithm'> }>> = {
  default: { flags: '', options: { minVersion: 0 } },
  v0: { flags: '--max-version=0', options: { maxVersion: 0 } },
  v1: { flags: '--min-version=1', options: {} },
};

const SCRIPT = `for dump in *.dump; do
  name=\${dump%.dump}
${Object.entries(MODES)
  .map(([mode, { flags }]) => `  mkcomposefs ${flags} --from-file "$dump" "$name.${mode}" 2>"$name.${mode}.error"`)
  .join('\n')}
  composefs-info dump "$name.default" >"$name.info" 2>&1
  composefs-info objects "$name.default" >"$name.objects" 2>&1
  fsck.erofs "$name.v1" >"$name.fsck" 2>&1
  echo "status $?" >>"$name.fsck"
done
exit 0`;

/**
 * Where composefs-info 1.0.8 itself errs: a regular file that already has the xattr by which a whiteout is told is read
 * as one, but printed with an empty CONTENT field if it had content; an object path that ends where its padding would
 * begin is read beyond its end; a last xattr of four bytes (no suffix, no value) is dropped.
 */
function isMisreadByReferee(dump: Uint8Array, paths: Iterable<RawName>): boolean {
  const text = Buffer.from(dump).toString('latin1');
  const fileLikeWhiteout = /^\S+ \d+ 10\d+ .* trusted\.overlay\.whiteout=/m;
  const emptyXattr = / (user\.|system\.posix_acl_(access|default))=( |$)/m;
  return fileLikeWhiteout.test(text) || emptyXattr.test(text) || [...paths].some(({ length }) => length % 4 === 3);
}

interface Case {
  readonly name: string;
  readonly dump: Uint8Array;
}

/** What the programs in the sid root made of one case. */
interface Outcome {
  readonly images: Readonly<Record<string, Uint8Array>>;
  readonly info: string;
  readonly objects: string;
  readonly fsck: string;
}

async function judge(root: string, cases: readonly Case[]): Promise<Outcome[]> {
  return inSidRoot(
    root,
    SCRIPT,
    async (folder) => {
      for (const { name, dump } of cases) await writeFile(join(folder, `${name}.dump`), dump);
    },
    async (folder) => {
      const outcomes: Outcome[] = [];
      for (const { name } of cases) {
        const images: Record<string, Uint8Array> = {};
        for (const mode of Object.keys(MODES)) {
          const error = await readFile(join(folder, `${name}.${mode}.error`), 'utf8');
          if (error !== '') throw new Error(`mkcomposefs refuses ${name} (seed ${SEED}) in mode ${mode}: ${error}`);
          images[mode] = await readFile(join(folder, `${name}.${mode}`));
        }
        const text = (suffix: string): Promise<string> => readFile(join(folder, `${name}.${suffix}`), 'latin1');
        outcomes.push({ images, info: await text('info'), objects: await text('objects'), fsck: await text('fsck') });
      }
      return outcomes;
    },
  );
}

function wholeLines(text: string): string[] {
  return text.split('\n');
}

function linesWithSortedXattrs(text: string): string[] {
  return wholeLines(text).map((line) => {
    const fields = line.split(' ');
    return [...fields.slice(0, 11), ...fields.slice(11).sort()].join(' ');
  });
}

describe(`random trees (seed ${SEED})`, () => {
  let cases: Case[];
  let outcomes: Outcome[];

  beforeAll(async () => {
    const trees = fc.sample(treeArbitrary({ statedSizes: true, shortMarks: true }), { numRuns: TREES, seed: SEED });
    cases = trees.map((tree, index) => ({ name: `tree-${index}`, dump: Buffer.from(rawDump(tree), 'latin1') }));
    outcomes = await judge(await sidRoot(), cases);
  });

  test('become the same image, byte for byte, in every mode', () => {
    expect(outcomes).toHaveLength(TREES);
    for (const [index, { name, dump }] of cases.entries()) {
      const tree = parseDump(dump);
      for (const [mode, { options }] of Object.entries(MODES)) {
        const { bytes } = writeComposefsImage(tree, { algorithm: 'sha256', ...options });
        const same = Buffer.from(bytes.buffer).equals(outcomes[index]!.images[mode]!);
        if (!same) expect.fail(`${name} differs in mode ${mode}:\n${Buffer.from(dump).toString('latin1')}`);
      }
    }
  });

  test('are read back as composefs-info reads them', () => {
    let compared = 0;
    for (const [index, { name, dump }] of cases.entries()) {
      const { images, info, objects } = outcomes[index]!;
      const image = images['default']!;
      const version = image[12] === 0 ? 0 : 1;
      const tree = readComposefsImage(image);
      const paths = new Set(imageObjects(image).flatMap(({ path }) => (path === undefined ? [] : [path])));
      if (isMisreadByReferee(dump, paths)) continue;
      compared++;
      const again = writeComposefsImage(tree, { algorithm: 'sha256', minVersion: version, maxVersion: version });
      // The order of xattrs is that of the image of the tree, which is another one where a hard-linked whiteout moved.
      const lines = Buffer.from(again.bytes.buffer).equals(image) ? wholeLines : linesWithSortedXattrs;
      expect({
        name,
        info: lines([...formatDump(tree, { version })].join('')),
        objects: [...paths].map((path) => `${path}\n`).join(''),
      }).toEqual({ name, info: lines(info), objects });
    }
    expect(compared).toBeGreaterThan(TREES / 2);
  });

  test('pass the current fsck.erofs', () => {
    for (const [index, { name }] of cases.entries()) {
      expect({ name, fsck: outcomes[index]!.fsck }).toEqual({ name, fsck: 'status 0\n' });
    }
  });
});

test('a directory of a real Debian system becomes the same image, and the same objects', async () => {
  const root = await sidRoot();
  const store = scratchDir();
  const host = testHost();
  const script =
    'mkcomposefs --min-version=1 --digest-store=store /usr image && (cd store && find . -type f | sort >../objects)';
  const { image, objects } = await inSidRoot(
    root,
    script,
    () => Promise.resolve(),
    async (folder) => ({
      image: await readFile(join(folder, 'image')),
      objects: await readFile(join(folder, 'objects'), 'utf8'),
    }),
  );
  const out = join(store, 'image');
  const digest = await createImage(host, {
    source: join(root, 'usr'),
    out,
    fromDump: false,
    digestStore: join(store, 'objects'),
    formatVersion: 1,
    algorithm: 'sha256',
    readStdin: () => Promise.reject(new Error('not asked for')),
  });
  const ours = await readFile(out);
  expect(ours.equals(image)).toBe(true);
  expect(digest).toBe(fsverityDigest('sha256', image));
  const stored = readdirSync(join(store, 'objects'), { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.includes('/'),
  );
  expect(
    stored
      .map((name) => `./${name}\n`)
      .sort()
      .join(''),
  ).toBe(objects);
  expect(stored.length).toBeGreaterThan(1000);
});
