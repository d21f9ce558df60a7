import { createHash } from 'node:crypto';

import { describe, expect, test } from 'vitest';

import { formatDump } from '../../../src/format/dump/format.ts';
import { parseDump } from '../../../src/format/dump/parse.ts';
import { imageObjects } from '../../../src/format/erofs/image-objects.ts';
import { readComposefsImage } from '../../../src/format/erofs/reader.ts';
import { writeComposefsImage } from '../../../src/format/erofs/writer.ts';
import { digestAlgorithm } from '../../../src/format/fsverity/digest.ts';
import {
  fileVectors,
  microVectors,
  REFUSED_ON_PURPOSE,
  sha512Vectors,
  type Expected,
  type Vector,
} from '../../helpers/composefs-vectors.ts';

function sha256(data: string): string {
  return createHash('sha256').update(data, 'latin1').digest('hex');
}

/** The manifest's facts about what can be read back from the image in mkcomposefs' default mode. */
function readBack({ dump }: Vector): Partial<Expected> {
  const { bytes, version } = writeComposefsImage(parseDump(dump), { algorithm: 'sha256', minVersion: 0 });
  const tree = readComposefsImage(bytes);
  const text = [...formatDump(tree, { version })].join('');
  const paths = [...new Set(imageObjects(bytes).flatMap(({ path }) => (path === undefined ? [] : [path])))];
  const again = writeComposefsImage(parseDump(Buffer.from(text, 'latin1')), { algorithm: 'sha256', minVersion: 0 });
  const identical = again.version === version && Buffer.from(again.bytes.buffer).equals(Buffer.from(bytes.buffer));
  return {
    info_dump_sha256: sha256(text),
    objects: paths.length,
    objects_sha256: sha256(paths.map((path) => `${path}\n`).join('')),
    ...(identical ? {} : { roundtrip_identical: false }),
  };
}

function wanted({ info_dump_sha256, objects, objects_sha256, roundtrip_identical }: Expected): Partial<Expected> {
  return {
    ...(info_dump_sha256 === undefined ? {} : { info_dump_sha256 }),
    ...(objects === undefined ? {} : { objects }),
    ...(objects_sha256 === undefined ? {} : { objects_sha256 }),
    ...(roundtrip_identical === undefined ? {} : { roundtrip_identical }),
  };
}

describe('dump, objects and round trip agree with composefs-info', () => {
  test.each(fileVectors())('$name', (vector) => {
    expect(readBack(vector)).toEqual(wanted(vector.expect.default));
  });

  test('in all micro sweeps', () => {
    const vectors = microVectors().filter(
      ({ name, expect: { default: expected } }) => !(name in REFUSED_ON_PURPOSE) && expected.error === undefined,
    );
    for (const vector of vectors) {
      expect({ name: vector.name, ...readBack(vector) }).toEqual({
        name: vector.name,
        ...wanted(vector.expect.default),
      });
    }
  });
});

test('images with sha512 objects are read back with their digests', () => {
  for (const { dump, name } of sha512Vectors()) {
    const { bytes } = writeComposefsImage(parseDump(dump), { algorithm: 'sha512' });
    const again = writeComposefsImage(readComposefsImage(bytes), { algorithm: 'sha512' });
    const algorithms = imageObjects(bytes).map(({ digest }) => digest && digestAlgorithm(digest));
    expect({ name, size: again.bytes.length, algorithms: [...new Set(algorithms)] }).toEqual({
      name,
      size: bytes.length,
      algorithms: name === 'whiteout-dirs' ? [] : ['sha512'],
    });
  }
});
