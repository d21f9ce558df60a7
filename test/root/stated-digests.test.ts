/** What a deployment makes of the digests that an image states of itself: claims, compared before anything is published. */

import { describe, expect, test } from 'vitest';
import { deployText } from '../../src/cli/view/deploy-text.ts';
import { digestImage } from '../../src/ops/digest-image.ts';
import { bootableLayout, type BootableOptions } from '../helpers/bootable-layout.ts';
import { withFakeVerity } from '../helpers/fake-verity.ts';
import { peFile } from '../helpers/pe-builder.ts';
import { scratchSysroot } from '../helpers/scratch-sysroot.ts';
import { snapshot } from '../helpers/snapshot.ts';
import { tarDir, tarFile } from '../helpers/tar-builder.ts';
import { testHost } from '../helpers/test-host.ts';

const foreign = 'ab'.repeat(64);
const annotated = (digest: string): BootableOptions => ({
  layout: {
    editManifest: (m) => ({ ...m, annotations: { 'composefs.merged.bootable.erofs.v1.fsverity-sha512-12': digest } }),
  },
});
const withUki = (cmdline: string): BootableOptions => ({
  more: [tarDir('boot/EFI/Linux'), tarFile('boot/EFI/Linux/x.efi', peFile([{ name: '.cmdline', content: cmdline }]))],
});

/** Everything but the directories that objects lie in, which may stay empty. */
function stateOf(path: string): Record<string, string> {
  return Object.fromEntries(Object.entries(snapshot(path)).filter(([name]) => !/^composefs\/objects\/..$/.test(name)));
}

async function digestOf(options: BootableOptions, formatVersion: 1 | 2): Promise<string> {
  const { reference } = bootableLayout(options);
  const { digest } = await digestImage(testHost(), {
    image: reference,
    algorithm: 'sha512',
    formatVersion,
    bootable: true,
  });
  return digest;
}

describe('deploy', () => {
  test('reports what fits, also made in another way', async () => {
    const sysroot = scratchSysroot();
    // The command line of a unified kernel is outside of the digest that it pins.
    const digest = await digestOf(withUki(''), 2);
    const { reference } = bootableLayout(withUki(`composefs=${digest} rw`));
    const result = await sysroot.deploy(reference, {}, withFakeVerity(sysroot.host));
    const fits = { parameters: 'v2-sha512-12', xattrs: 'allowlist-only', bootable: true };
    expect(result.stated).toEqual([{ kind: 'uki', name: '/boot/EFI/Linux/x.efi', digest, fits }]);
    expect(deployText(result)).toContain(
      'Stated by uki /boot/EFI/Linux/x.efi: fits as v2-sha512-12, allowlist-only, booted\n',
    );
  });

  test.each<readonly [string, BootableOptions, string]>([
    [
      'a unified kernel',
      withUki(`composefs.digest=v1-sha512-12:${foreign}`),
      'command line of "/boot/EFI/Linux/x.efi"',
    ],
    ['an annotation', annotated(foreign), 'annotation "composefs.merged.bootable.erofs.v1.fsverity-sha512-12"'],
  ])('refuses %s that pins another image, with both digests, and leaves nothing', async (_title, options, source) => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(bootableLayout({ version: 'before' }).reference);
    const before = stateOf(sysroot.path);
    const digest = await digestOf(options, 1);
    await expect(sysroot.deploy(bootableLayout(options).reference)).rejects.toMatchObject({
      code: 'digest-mismatch',
      message: `The ${source} states the digest ${foreign}, but the image has ${digest}`,
    });
    expect(stateOf(sysroot.path)).toEqual(before);
  });

  test('only warns of a label, which may be that of the image this one was built on', async () => {
    const sysroot = scratchSysroot();
    const { reference } = bootableLayout({ layout: { labels: { 'containers.composefs.fsverity': foreign } } });
    const { changed, stated } = await sysroot.deploy(reference);
    expect({ changed, stated }).toEqual({
      changed: true,
      stated: [{ kind: 'label', name: 'containers.composefs.fsverity', digest: foreign, fits: undefined }],
    });
    expect(sysroot.host.warnings.join()).toContain(
      `label "containers.composefs.fsverity" states the digest ${foreign}`,
    );
  });
});
