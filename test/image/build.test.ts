/** From an OCI layout on disk to the tree of the image. */

import { describe, expect, test } from 'vitest';
import { fsverityDigest } from '../../src/format/fsverity/digest.ts';
import { parseImageReference } from '../../src/format/oci/reference.ts';
import { bootableTree, buildTree, type BuildTreeOptions } from '../../src/image/build.ts';
import { measuringSink } from '../../src/image/ingest.ts';
import { openImageSource } from '../../src/image/source.ts';
import { lookup } from '../../src/tree/lookup.ts';
import type { RawName } from '../../src/tree/name.ts';
import type { ObjectSink } from '../../src/tree/objects.ts';
import { ociLayout, sha256, type Compression, type LayoutSpec } from '../helpers/oci-builder.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { startFilter } from '../helpers/start-filter.ts';
import { tar, tarDir, tarFile, tarHardlink, tarSymlink } from '../helpers/tar-builder.ts';
import { listing } from '../helpers/tree-listing.ts';

const host = { os: 'linux', architecture: 'amd64' };
const large = 'x'.repeat(5000);
const largeDigest = fsverityDigest('sha256', Buffer.from(large)).slice(0, 12);

const selinux = 'security.selinux' as RawName;

async function build(spec: LayoutSpec, options: Partial<BuildTreeOptions> = {}) {
  const { directory } = ociLayout(scratchDir(), spec);
  const source = openImageSource(parseImageReference(`oci:${directory}`), host);
  const signal = new AbortController().signal;
  return buildTree(source, { sink: measuringSink('sha256'), signal, startFilter, ...options });
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

  test('labels a bootable image by the policy that lies in its layers', async () => {
    const files = 'etc/selinux/targeted/contexts/files';
    const kernel = 'usr/lib/modules/6.1';
    const rules = `# ${'a comment that makes the file an object '.repeat(3)}\n/.* base\n/usr(/.*)? usr\n`;
    const entries = [tarFile('etc/selinux/config', 'SELINUXTYPE=targeted\n'), tarFile(`${files}/file_contexts`, rules)];
    const boot = [
      tarDir('boot'),
      tarDir('sysroot'),
      tarFile(`${kernel}/vmlinuz`, 'k'),
      tarFile(`${kernel}/initramfs.img`, 'i'),
    ];
    const { tree } = await build({ layers: [{ tar: tar([...entries, ...boot]) }] });
    const bootable = bootableTree(tree).tree;
    const label = (path: string): string => Buffer.from(lookup(bootable, path)?.xattrs.get(selinux) ?? []).toString();
    expect(['', 'etc', 'usr', `${kernel}/vmlinuz`].map(label)).toEqual(['base', 'base', 'usr', 'usr']);
    expect(lookup(tree, 'usr')?.xattrs).toEqual(new Map());
  });

  test('tells what it has read, and warns of what is wrong', async () => {
    const seen: [number, number][] = [];
    const twice = Array.from({ length: 25 }, () => tarFile('usr/a', 'x'));
    const spec: LayoutSpec = {
      layers: [{ tar: tar([tarDir('usr')]) }, { tar: Buffer.concat([tar(twice), Buffer.from('junk')]) }],
    };
    const { warnings } = await build(spec, { progress: (done, total) => seen.push([done, total]) });
    const total = seen.at(-1)![1];
    expect(seen).toEqual([[expect.any(Number), total], [total, total]]); // prettier-ignore
    expect([warnings.length, warnings[0], warnings[1], warnings.at(-1)]).toEqual([
      21,
      expect.stringMatching(/^Layer 2 of 2 \(sha256:\w+\) goes on behind the end of its tar$/),
      expect.stringMatching(/^Layer 2 of 2 \(sha256:\w+\): "usr\/a" stands in the layer twice$/),
      '5 more warnings of this kind',
    ]);
  });

  test('names image, layer and entry of what it refuses, and gives up on the open object', async () => {
    let aborted = 0;
    const sink = measuringSink('sha256');
    const counting: ObjectSink = { ...sink, create: (size) => ({ ...sink.create(size), abort: () => aborted++ }) };
    const broken = tar([tarDir('usr'), tarFile('usr/large', large)]).subarray(0, 4096);
    const refused = build(
      { layers: [{ tar: tar([tarDir('usr')]) }, { tar: broken, diffId: sha256(broken) }] },
      { sink: counting },
    );
    await expect(refused).rejects.toMatchObject({
      code: 'image-invalid',
      message: expect.stringMatching(/^Cannot use "oci:\S+": layer 2 of 2 \(sha256:\w+\): entry 2 "usr\/large" at offset 512: archive ends inside the content$/) as string,
    }); // prettier-ignore
    expect(aborted).toBe(1);
  });

  test('refuses what a layer does to the tree with the same words', async () => {
    const refused = build({ layers: [{ tar: tar([tarDir('usr')]) }, { tar: tar([tarHardlink('a', 'b')]) }] });
    await expect(refused).rejects.toThrow(
      /^Cannot use "oci:\S+": layer 2 of 2 \(sha256:\w+\): entry 1 "a": hard link target "b" does not exist$/,
    );
  });
});
