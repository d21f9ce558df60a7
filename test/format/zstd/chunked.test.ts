/** What the annotations of a layer say of its parts, before anything is asked for. */

import { expect, test } from 'vitest';
import { chunkedLayer } from '../../../src/format/zstd/chunked.ts';
import type { OciDigest } from '../../../src/format/oci/digest.ts';

const PREFIX = 'io.github.containers.zstd-chunked.';
const digest = `sha256:${'a'.repeat(64)}` as OciDigest;
const GOOD = {
  'manifest-position': '100:50:400:1',
  'manifest-checksum': digest,
  'tarsplit-position': '158:40:300',
};

function read(change: Readonly<Record<string, string | undefined>>): ReturnType<typeof chunkedLayer> {
  const stated = Object.entries({ ...GOOD, ...change }).flatMap(([name, value]) =>
    value === undefined ? [] : [[PREFIX + name, value] as const],
  );
  return chunkedLayer({ mediaType: 'x', digest, size: 198, annotations: new Map(stated) });
}

test('where the tables lie', () => {
  expect(read({})).toEqual({ toc: { start: 100, end: 150 }, tocDigest: digest, tarSplit: { start: 158, end: 198 } });
});

test.each([
  ['without a table', { 'manifest-position': undefined }],
  ['without the digest of the table', { 'manifest-checksum': undefined }],
  ['without a tar-split', { 'tarsplit-position': undefined }],
  ['whose table is of another kind', { 'manifest-position': '100:50:400:2' }],
  ['whose digest is another one', { 'manifest-checksum': `sha512:${'a'.repeat(128)}` }],
  ['whose table is empty', { 'manifest-position': '100:0:400:1' }],
  ['whose tar-split comes first', { 'tarsplit-position': '50:40:300' }],
  ['whose tar-split lies in the table', { 'tarsplit-position': '149:40:300' }],
  ['whose tar-split ends behind the layer', { 'tarsplit-position': '158:41:300' }],
  ['whose table is larger than is held', { 'manifest-position': `100:${(32 << 20) + 1}:1:1` }],
  ['whose place is no number', { 'manifest-position': '-1:50:400:1' }],
])('a layer %s is fetched whole', (_title, change) => {
  expect(read(change)).toBeUndefined();
});
