/** One layer more: what follows from it changes, everything else stays as it was. */

import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { addLayer } from '../../../src/format/oci/add-layer.ts';

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const LAYER = 'application/vnd.oci.image.layer.v1.tar';
const bytes = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value));
const parse = (value: Uint8Array): unknown => JSON.parse(Buffer.from(value).toString());
const sha256 = (value: Uint8Array): string => `sha256:${createHash('sha256').update(value).digest('hex')}`;
const tar = Buffer.from('not looked into');
const history = { created_by: 'a test' };

test('stands last in manifest, config and history, and what the manifest says of the whole tree goes', () => {
  const merged = 'composefs.merged.erofs.v1.fsverity-sha512-12';
  const bootable = 'composefs.merged.bootable.erofs.v1.fsverity-sha512-12';
  const config = {
    os: 'linux',
    config: { Labels: { 'containers.composefs.fsverity': 'f', kept: 'yes' }, Env: [] },
    rootfs: { type: 'layers', diff_ids: ['a'] },
    history: [{ created_by: 'x' }],
    more: [1],
  };
  const manifest = {
    schemaVersion: 2,
    config: { mediaType: 'c', digest: 'd', size: 1, data: 'e30=', annotations: { [merged]: '1', kept: 'yes' } },
    layers: [{ mediaType: 'm', digest: 'e', size: 2 }],
    annotations: { [merged]: '1', [bootable]: '2', other: '3' },
    unknown: { kept: true },
  };
  const image = { manifestType: MANIFEST, manifestBytes: bytes(manifest), configBytes: bytes(config) };
  const result = addLayer(image, tar, history);
  const layer = { mediaType: LAYER, digest: sha256(tar), size: tar.length };
  expect(result.layer).toEqual({ descriptor: layer, bytes: tar });
  expect(parse(result.config.bytes)).toEqual({
    ...config,
    config: { Labels: { kept: 'yes' }, Env: [] },
    rootfs: { type: 'layers', diff_ids: ['a', sha256(tar)] },
    history: [{ created_by: 'x' }, history],
  });
  expect(parse(result.manifest.bytes)).toEqual({
    ...manifest,
    config: { annotations: { kept: 'yes' }, ...result.config.descriptor },
    layers: [...manifest.layers, layer],
    annotations: { [bootable]: '2', other: '3' },
  });
  expect(result.manifest.descriptor).toEqual({
    ...{ mediaType: MANIFEST, digest: sha256(result.manifest.bytes), size: result.manifest.bytes.length },
  });
});

test('makes no history and no annotations where there are none', () => {
  const image = {
    manifestType: MANIFEST,
    manifestBytes: bytes({ config: {}, layers: [] }),
    configBytes: bytes({ rootfs: { diff_ids: [] } }),
  };
  const { config, manifest } = addLayer(image, tar, history);
  expect(Object.keys(parse(config.bytes) as object)).toEqual(['rootfs']);
  expect(Object.keys(parse(manifest.bytes) as object)).toEqual(['config', 'layers']);
});
