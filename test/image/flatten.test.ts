/** What flattening costs; what it does is the table of `cases.test.ts`. */

import { describe, expect, test } from 'vitest';
import { TarReader } from '../../src/format/tar/reader.ts';
import { Flattener } from '../../src/image/flatten.ts';
import { LayerIngest, measuringSink } from '../../src/image/ingest.ts';
import { NO_TOTALS } from '../../src/tree/layer-entry.ts';
import type { DirectoryNode } from '../../src/tree/node.ts';
import { d, h, opaque, s, wh } from '../helpers/image-cases.ts';
import { paxHeader, tar, tarFile } from '../helpers/tar-builder.ts';
import { listing } from '../helpers/tree-listing.ts';

type Layer = readonly Buffer[];

function flatten(layers: readonly Layer[]): DirectoryNode {
  const flattener = new Flattener(() => undefined);
  for (const [i, layer] of layers.entries()) {
    const ingest = new LayerIngest(measuringSink('sha256'), 'allowlist-only', NO_TOTALS);
    const reader = new TarReader(ingest);
    reader.push(tar(layer));
    reader.end();
    flattener.applyLayer(ingest.entries, `Layer ${i + 1}`);
  }
  return flattener.finish();
}

const f = (name: string): Buffer => tarFile(name);

describe('time grows with the layers, not with their product', () => {
  const many = 20_000;
  const range = (make: (i: number) => Buffer): Buffer[] => Array.from({ length: many }, (_, i) => make(i));
  test.each<readonly [string, readonly Layer[]]>([
    ['a marker for each of many files', [range((i) => f(`d/${i}`)), range((i) => wh(`d/.wh.${i}`))]],
    ['many opaque markers in one large directory', [range((i) => f(`d/${i}`)), range(() => opaque('d'))]],
    ['many links', [[f('a')], range((i) => h(`l${i}`, 'a'))]],
    [
      'many links to what is hidden later',
      [range((i) => f(`d/${i}`)), [...range((i) => h(`l${i}`, `d/${i}`)), wh('.wh.d')]],
    ],
    ['many entries through a symlink', [[d('d'), s('l', 'd')], range((i) => f(`l/${i}/x`))]],
  ])('%s', (_title, layers) => {
    const start = performance.now();
    flatten(layers);
    expect(performance.now() - start).toBeLessThan(10_000);
  });

  test('trees as deep as paths allow', () => {
    const deep = 'd/'.repeat(2047);
    const tree = flatten([[paxHeader({ path: `${deep}f` }), f('x'), paxHeader({ path: `${deep}g`, linkpath: `${deep}f` }), h('x', 'y')]]); // prettier-ignore
    expect(Object.keys(listing(tree)).length).toBe(2049);
  });
});
