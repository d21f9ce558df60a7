import fc from 'fast-check';
import { expect, test } from 'vitest';

import { XattrPool } from '../../../src/format/erofs/xattrs.ts';
import { objectPath } from '../../../src/format/fsverity/digest.ts';
import type { RawName } from '../../../src/tree/name.ts';
import type { ExternalContent, VerityDigest } from '../../../src/tree/node.ts';

const digests = ['ab', 'cd', 'ef'].map((byte) => byte.repeat(32) as VerityDigest);
const paths = [...digests.map(objectPath), 'elsewhere' as RawName, digests[0]!.slice(0, 65) as RawName];

const content = fc.record<ExternalContent, 'kind' | 'size'>(
  {
    kind: fc.constant('external'),
    size: fc.constant(1),
    digest: fc.constantFrom(...digests),
    path: fc.constantFrom(...paths),
  },
  { requiredKeys: ['kind', 'size'] },
);

test('what several inodes have of objects is shared, wherever the objects lie', () => {
  fc.assert(
    fc.property(fc.array(content, { maxLength: 6 }), (contents) => {
      const [objects, values] = [new XattrPool(), new XattrPool()];
      for (const object of contents) {
        objects.useObject(object);
        values.use('trusted.overlay.metacopy', object.digest ?? '');
        if (object.path !== undefined) values.use('trusted.overlay.redirect', object.path);
      }
      const shared = (pool: XattrPool): unknown =>
        pool.share().entries.map(({ name, key, sharedOffset }) => [name.full, key, sharedOffset]);
      expect(shared(objects)).toEqual(shared(values));
    }),
  );
});
