import { expect, test } from 'vitest';

import { writeComposefsImage, type ComposefsImageOptions } from '../../../src/format/erofs/writer.ts';
import { charDevice, dir, link, tree } from '../../helpers/tree-builder.ts';

const whiteout = charDevice(0);
const plain = tree({ '/d': dir() });
const marked = tree({ '/d/gone': whiteout });
const linked = tree({ '/a': whiteout, '/d/again': link(whiteout) });

test.each<[Omit<ComposefsImageOptions, 'algorithm'>, number, number]>([
  [{}, 1, 1],
  [{ minVersion: 0 }, 0, 1],
  [{ minVersion: 1 }, 1, 1],
  [{ maxVersion: 0 }, 0, 0],
  [{ maxVersion: 1 }, 1, 1],
  [{ minVersion: 0, maxVersion: 0 }, 0, 0],
  [{ minVersion: 0, maxVersion: 1 }, 0, 1],
  [{ minVersion: 1, maxVersion: 0 }, 1, 1],
  [{ minVersion: 1, maxVersion: 1 }, 1, 1],
])('with %j a tree becomes version %i, one with whiteouts version %i', (options, without, having) => {
  const version = (root: typeof plain): number => {
    const image = writeComposefsImage(root, { algorithm: 'sha256', ...options });
    expect(image.bytes[12]).toBe(image.version);
    return image.version;
  };
  expect([version(plain), version(marked), version(linked)]).toEqual([without, having, having]);
});
