/** Which objects of images stay that can be made again. */

import { describe, expect, test } from 'vitest';
import {
  IMAGE_CACHE_BYTES,
  planRepositoryGarbage,
  type ImageReader,
  type RepositorySnapshot,
} from '../../src/store/collect.ts';
import type { ImageLayout } from '../../src/store/image-record.ts';
import type { ImageUse } from '../../src/store/usage.ts';
import type { VerityDigest } from '../../src/tree/node.ts';

const digest = (letter: string): VerityDigest => letter.repeat(128) as VerityDigest;
const BASE = digest('b');

interface Image {
  readonly layout: ImageLayout;
  /** Bytes of its own object; none where it is not here whole. */
  readonly bytes?: number;
  readonly used?: number;
}

/** Images by a letter, each named by a ref and, unless flat, laid over the base with a delta of that letter's capital. */
function repository(images: Readonly<Record<string, Image>>): { snapshot: RepositorySnapshot; reader: ImageReader } {
  const delta = (letter: string): string => letter.repeat(127) + '0';
  const uses = new Map<VerityDigest, ImageUse>([[BASE, { digest: BASE, objects: new Map([[BASE, 10]]) }]]);
  for (const [letter, { layout, bytes }] of Object.entries(images)) {
    const own = bytes === undefined ? [] : [[digest(letter), bytes] as const];
    const parts = { base: BASE, delta: delta(letter) as VerityDigest };
    uses.set(digest(letter), {
      digest: digest(letter),
      objects: new Map([...own, ...(layout === 'flat' ? [] : [[parts.delta, 10] as const])]),
      ...(layout === 'flat' ? {} : { parts: { ...parts, layout } }),
    });
  }
  const objects = [...new Set([...uses.values()].flatMap((use) => [...use.objects.keys()]))];
  const none = { records: [], layers: [], seals: [], temporaries: [], markers: [], blobs: [], streams: [] };
  return {
    snapshot: {
      ...none,
      refs: Object.keys(images).map((letter) => ({ name: letter, digest: digest(letter) })),
      images: [...uses.keys()],
      objects: objects.map((name) => ({ kind: 'object', name, path: name, bytes: 10 })),
      objectDirectories: [],
    },
    reader: {
      useOf: (of) => uses.get(of)!,
      layersOf: () => [],
      baseOf: (of) => uses.get(of)?.parts?.base,
      lastUse: (of) => images[of[0]!]?.used ?? 0,
    },
  };
}

function plan(
  images: Readonly<Record<string, Image>>,
  { droppedRefs = [], roots = [] }: { droppedRefs?: string[]; roots?: string[] } = {},
): string[] {
  const { snapshot, reader } = repository(images);
  const { items } = planRepositoryGarbage(
    { path: '/repo', objectsPath: '/repo/objects' },
    snapshot,
    roots.map((letter) => ({ digest: digest(letter), needed: 'a test', isOurs: true })),
    { droppedRefs: new Set(droppedRefs), keptBlobs: new Set() },
    reader,
  );
  return items.map(({ kind, name }) => `${kind} ${name.length > 4 ? `${name[0]}${name.at(-1)}` : name}`);
}

const THIRD = Math.floor(IMAGE_CACHE_BYTES / 3);

describe('gc', () => {
  test('keeps the base as long as an image that stays is laid over it', () => {
    const images = { c: { layout: 'split' }, d: { layout: 'split' } } as const;
    expect(plan(images, { droppedRefs: ['c'] })).toEqual(['ref c', 'image cc', 'object c0']);
    expect(plan(images, { droppedRefs: ['c', 'd'] })).toEqual([
      ...['ref c', 'ref d'],
      // The base last: what is there at any moment has what it is made of.
      ...['image cc', 'image dd', 'image bb'],
      ...['object bb', 'object c0', 'object d0'],
    ]);
  });

  test('removes the object of a split image, and of cached ones those that were not used for longest', () => {
    const cached = (used: number): Image => ({ layout: 'cached', bytes: THIRD, used });
    const images = {
      c: cached(3),
      d: cached(1),
      e: cached(4),
      f: cached(2),
      a: { layout: 'split', bytes: 1 },
    } as const;
    expect(plan(images)).toEqual(['object dd', 'object aa']);
  });

  test('removes the object of no image that something else needs than its name', () => {
    const images = { c: { layout: 'split', bytes: 5 }, d: { layout: 'cached', bytes: IMAGE_CACHE_BYTES + 1 } } as const;
    expect(plan(images, { roots: ['c', 'd'] })).toEqual([]);
    expect(plan(images)).toEqual(['object cc', 'object dd']);
  });

  test('stops where the base is missing', () => {
    const { snapshot, reader } = repository({ c: { layout: 'split' } });
    const without = { ...snapshot, images: snapshot.images.filter((image) => image !== BASE) };
    const choice = { droppedRefs: new Set<string>(), keptBlobs: new Set<string>() };
    expect(() => planRepositoryGarbage({ path: '/repo', objectsPath: '' }, without, [], choice, reader)).toThrow(
      /^The image b{128} that the image c{128} needs is not in "\/repo"; nothing was removed$/,
    );
  });
});
