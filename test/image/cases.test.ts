/**
 * What images mean: every rule of docs/layers.md by whole images, each with the tree that comes out of it or the
 * refusal. The same table stands against other programs in `conformance/image-cases.test.ts`.
 */

import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { HostctlError } from '../../src/errors.ts';
import { isRefusal, readCase, writeCase, type ImageCase } from '../helpers/image-cases.ts';
import { describeFully, listing } from '../helpers/tree-listing.ts';
import { imageCases } from './cases/all.ts';

const usual = { '/': 'd755', usr: 'd755' };

/** The tree with its warnings, or the refusal. */
async function resultOf(row: ImageCase): Promise<unknown> {
  const directory = writeCase(row);
  try {
    const { tree, warnings } = await readCase(directory, row[4]);
    return { tree: { '/': describeFully(tree), ...listing(tree, describeFully) }, warnings };
  } catch (error) {
    if (!(error instanceof HostctlError)) throw error;
    return { code: error.code, message: error.message };
  }
}

describe.each([...new Set(imageCases.map(([rule]) => rule))])('rule %s:', (rule) => {
  const rows = imageCases.filter((row) => row[0] === rule);
  test.each(rows.map((row) => [row[1], row] as const))('%s', async (_title, row) => {
    const [, , , expected, options = {}] = row;
    const warnings = (options.warnings ?? []).map((piece) => expect.stringContaining(piece) as string);
    expect(await resultOf(row)).toEqual(
      isRefusal(expected)
        ? { code: expected.code, message: expect.stringMatching(expected.message) as string }
        : { tree: { ...usual, ...expected }, warnings },
    );
  });
});

test('every rule has a case, and every case a rule', () => {
  const text = readFileSync('docs/layers.md', 'utf8');
  const rules = [...text.matchAll(/^- \*\*([A-Z]+[0-9]+)\*\*/gm)].map(([, rule]) => rule!);
  // R5 is about the tree that is booted, which is not made here: transform.test.ts.
  const shown = new Set(imageCases.map(([rule]) => rule)).add('R5');
  expect([...shown].sort()).toEqual([...rules].sort());
});

test('titles tell the cases apart', () => {
  const titles = imageCases.map(([rule, title]) => `${rule} ${title}`);
  expect(titles.filter((title, i) => titles.indexOf(title) !== i)).toEqual([]);
});
