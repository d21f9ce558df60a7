/** Digests that an image states of itself, matched against every way of making one. */

import { describe, expect, test } from 'vitest';
import { writeComposefsImage } from '../../src/format/erofs/writer.ts';
import { fsverityDigest } from '../../src/format/fsverity/digest.ts';
import { bootTransform } from '../../src/image/build.ts';
import { measuringSink } from '../../src/image/ingest.ts';
import { flattenImage } from '../../src/ops/build.ts';
import { openImage } from '../../src/ops/with-image.ts';
import { digestImage } from '../../src/ops/digest-image.ts';
import { inspectImage } from '../../src/ops/image-tools.ts';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import type { Json } from '../helpers/oci-builder.ts';
import { peFile } from '../helpers/pe-builder.ts';
import { paxHeader, tarDir, tarFile } from '../helpers/tar-builder.ts';
import { testHost } from '../helpers/test-host.ts';

const host = testHost({ architecture: 'amd64' });
/** What makes each way of making a digest another one. */
const more = [paxHeader({ 'SCHILY.xattr.user.a': 'b' }), tarFile('usr/with-xattr', 'x'), tarFile('boot/left')];

type Making = readonly [
  algorithm: 'sha256' | 'sha512',
  formatVersion: 0 | 1 | 2,
  bootable: boolean,
  keepsUser: boolean,
];
const makings: readonly Making[] = (['sha256', 'sha512'] as const).flatMap((algorithm) =>
  ([0, 1, 2] as const).flatMap((version) =>
    [true, false].flatMap((bootable) => [true, false].map((keeps): Making => [algorithm, version, bootable, keeps])),
  ),
);

/** The digest of an image by one way of making it, computed straight. */
async function digestBy(reference: string, [algorithm, formatVersion, bootable, keepsUser]: Making): Promise<string> {
  const mode = keepsUser ? 'keep-user-xattrs' : 'allowlist-only';
  const flat = await flattenImage(
    host,
    await openImage(host, reference, undefined),
    measuringSink(algorithm),
    () => false,
    mode,
  );
  const tree = bootable ? bootTransform(flat) : flat;
  const { bytes } = writeComposefsImage(tree, { algorithm, minVersion: formatVersion, maxVersion: formatVersion });
  return fsverityDigest(algorithm, bytes);
}

const plainImage = (): string => bootableLayout({ more }).reference;

async function statedOf(reference: string): Promise<unknown> {
  return (await inspectImage(host, { image: reference })).stated;
}

describe('a stated digest', () => {
  test('names the parameters that fit, whichever they are', async () => {
    const plain = plainImage();
    const digests = await Promise.all(makings.map((making) => digestBy(plain, making)));
    expect(new Set(digests).size).toBe(makings.length);
    const annotations = Object.fromEntries(
      digests.map((digest, i) => [`composefs.merged.erofs.v${i}.fsverity-x-12`, digest]),
    );
    const editManifest = (manifest: Json): Json => ({ ...manifest, annotations });
    const { reference } = bootableLayout({ more, layout: { editManifest } });
    expect(await statedOf(reference)).toEqual(
      makings.map(([algorithm, version, bootable, keeps], i) => ({
        kind: 'annotation',
        name: `composefs.merged.erofs.v${i}.fsverity-x-12`,
        digest: digests[i],
        fits: {
          parameters: `v${version}-${algorithm}-12`,
          xattrs: keeps ? 'keep-user-xattrs' : 'allowlist-only',
          bootable,
        },
      })),
    );
  });

  test('is found in annotations, a label and command lines of unified kernels, and may fit nothing', async () => {
    const plain = plainImage();
    const usual = await digestBy(plain, ['sha512', 1, true, false]);
    const old = await digestBy(plain, ['sha256', 2, true, false]);
    const foreign = '0'.repeat(128);
    const annotations = {
      'composefs.merged.bootable.erofs.v1.fsverity-sha512-12': usual,
      'composefs.merged.bootable.erofs.v1.fsverity-sha512-12.sig': 'c2ln',
      'composefs.merged.fsverity-sha256-12': 'no digest',
      'composefs.layer.erofs.v1.fsverity-sha512-12': foreign,
    };
    const uki = (cmdline: string): Buffer =>
      peFile([
        { name: '.linux', content: Buffer.alloc(90_000) },
        { name: '.cmdline', content: cmdline },
      ]);
    const kernels = [
      tarDir('boot/EFI/Linux'),
      tarFile('boot/EFI/Linux/a.efi', uki(`quiet composefs=${old}\0`)),
      tarFile('boot/EFI/Linux/b.EFI', uki(`composefs.digest=?v1-sha512-12:${foreign} rw`)),
      tarFile('boot/EFI/Linux/readme.txt', 'no kernel'),
    ];
    const { reference } = bootableLayout({
      more: [...more, ...kernels],
      layout: {
        editManifest: (manifest) => ({ ...manifest, annotations }),
        labels: { 'containers.composefs.fsverity': foreign },
      },
    });
    const fits = (parameters: string) => ({ parameters, xattrs: 'allowlist-only', bootable: true });
    expect(await statedOf(reference)).toEqual([
      {
        kind: 'annotation',
        name: 'composefs.merged.bootable.erofs.v1.fsverity-sha512-12',
        digest: usual,
        fits: fits('v1-sha512-12'),
      },
      { kind: 'label', name: 'containers.composefs.fsverity', digest: foreign, fits: null },
      { kind: 'uki', name: '/boot/EFI/Linux/a.efi', digest: old, fits: fits('v2-sha256-12') },
      { kind: 'uki', name: '/boot/EFI/Linux/b.EFI', digest: foreign, fits: null },
    ]);
  });

  test('is nothing where none is stated', async () => {
    expect(await statedOf(plainImage())).toEqual([]);
  });
});

test('what is computed straight here is what "image digest" says', async () => {
  const options = { image: plainImage(), algorithm: 'sha512', formatVersion: 1, bootable: true } as const;
  expect((await digestImage(host, options)).digest).toBe(await digestBy(plainImage(), ['sha512', 1, true, false]));
});
