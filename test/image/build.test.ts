/** From an OCI layout on disk to the tree of the image. */

import { describe, expect, test } from 'vitest';
import { fsverityDigest } from '../../src/format/fsverity/digest.ts';
import { parseImageReference } from '../../src/format/oci/reference.ts';
import { buildTree } from '../../src/image/build.ts';
import { measuringSink } from '../../src/image/ingest.ts';
import { openImageSource } from '../../src/image/source.ts';
import { ociLayout, type Compression, type LayoutSpec } from '../helpers/oci-builder.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { startFilter } from '../helpers/start-filter.ts';
import { tar, tarDir, tarFile, tarHardlink, tarSymlink } from '../helpers/tar-builder.ts';
import { listing } from '../helpers/tree-listing.ts';

const host = { os: 'linux', architecture: 'amd64' };
const large = 'x'.repeat(5000);
const largeDigest = fsverityDigest('sha256', Buffer.from(large)).slice(0, 12);

async function build(spec: LayoutSpec) {
  const { directory } = ociLayout(scratchDir(), spec);
  const source = openImageSource(parseImageReference(`oci:${directory}`), host);
  return buildTree(source, { sink: measuringSink('sha256'), signal: new AbortController().signal, startFilter });
}

describe('building a tree', () => {
  test.each<Compression>(['none', 'gzip', 'zstd'])('reads %s layers into one tree', async (compression) => {
    const { tree, warnings } = await build({
      layers: [
        {
          compression,
          tar: tar([tarDir('usr'), tarFile('usr/a', 'a'), tarFile('usr/b', 'b'), tarFile('usr/large', large)]),
        },
        {
          compression,
          tar: tar([
            tarFile('usr/.wh.a'),
            tarFile('usr/c', 'c'),
            tarHardlink('usr/d', 'usr/b'),
            tarSymlink('l', 'usr'),
          ]),
        },
      ],
    });
    expect({ entries: listing(tree), warnings }).toEqual({
      entries: {
        usr: 'd755',
        'usr/b': 'f644 b x2',
        'usr/c': 'f644 c',
        'usr/d': '= usr/b',
        'usr/large': `f644 <5000 ${largeDigest}>`,
        l: '-> usr',
      },
      warnings: [],
    });
  });
});
