/** `image seal --uki`: a publisher's image gets a unified kernel image, and keeps its digest. ukify is stood in for. */

import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { describe, expect, onTestFinished, test } from 'vitest';
import { digestImage } from '../../src/ops/digest-image.ts';
import { extractingSink } from '../../src/ops/extract-files.ts';
import type { UkiOptions } from '../../src/ops/make-uki.ts';
import { sealImage, type SealImageOptions } from '../../src/ops/seal-image.ts';
import { verifyImage } from '../../src/ops/verify-image.ts';
import { withImage } from '../../src/ops/with-image.ts';
import type { Host } from '../../src/sys/host.ts';
import type { VerityDigest } from '../../src/tree/node.ts';
import { bootableLayout, INITRD, KERNEL } from '../helpers/bootable-layout.ts';
import { withFakeVerity } from '../helpers/fake-verity.ts';
import { refName, writeIndex, writeJson, type LayoutSpec } from '../helpers/oci-builder.ts';
import { peFile } from '../helpers/pe-builder.ts';
import { hostctl } from '../helpers/run-program.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { knownKey, writeKey } from '../helpers/seal-keys.ts';
import { tarFile } from '../helpers/tar-builder.ts';
import { scratchSysroot } from '../helpers/scratch-sysroot.ts';
import { testHost } from '../helpers/test-host.ts';
import { file } from '../helpers/tree-builder.ts';

const foreign = 'ab'.repeat(64);

describe('image seal --uki', () => {
  const STUB = tarFile('usr/lib/systemd/boot/efi/linuxx64.efi.stub', Buffer.alloc(3000, 'stub'));
  const TAG = 'stable';

  /** A host whose ukify puts the parts together as the real one does, unsigned, and what it was told. */
  function hostWithUkify(edit: (cmdline: string) => string = (cmdline) => cmdline): {
    host: Host;
    told: string[];
    parts: Record<string, string>;
  } {
    const real = testHost();
    const told: string[] = [];
    const parts: Record<string, string> = {};
    const host: Host = {
      ...withFakeVerity(real),
      exec: {
        ...real.exec,
        run: async (program, args, options) => {
          if (program !== 'ukify') return real.exec.run(program, args, options);
          for (const arg of args) {
            const [, name = '', path = ''] = /^--(linux|initrd|stub|cmdline|os-release)=@?(.+)$/.exec(arg) ?? [];
            if (name === '') told.push(arg);
            else parts[name] = readFileSync(path, 'utf8');
          }
          const output = args.find((arg) => arg.startsWith('--output='))?.slice('--output='.length) ?? '';
          const { cmdline = '', initrd = '', linux = '' } = parts;
          writeFileSync(
            output,
            peFile([
              { name: '.cmdline', content: edit(cmdline) },
              { name: '.initrd', content: initrd },
              { name: '.linux', content: linux },
            ]),
          );
          return Promise.resolve({ exitCode: 0, stdout: '', stderr: '' });
        },
      },
    };
    return { host, told, parts };
  }

  function secureBootFiles(): { secureBootKey: string; secureBootCertificate: string } {
    const directory = scratchDir();
    const [secureBootKey, secureBootCertificate] = [`${directory}/db.key`, `${directory}/db.crt`];
    // Keys are often links to where a manager of secrets puts them.
    writeFileSync(`${directory}/secret`, 'as far as hostctl looks');
    for (const path of [secureBootKey, secureBootCertificate]) symlinkSync('secret', path);
    return { secureBootKey, secureBootCertificate };
  }

  function seal(host: Host, image: string, more: Partial<SealImageOptions> = {}): ReturnType<typeof sealImage> {
    return sealImage(host, {
      ...{ image, keys: [], name: undefined, securityVersion: 0, expires: undefined, algorithms: ['sha512', 'sha256'] },
      uki: { ...secureBootFiles(), kargs: [] },
      ...more,
    });
  }

  test('puts one file of kernel, initramfs and command line into the image, whose digest stays', async () => {
    const claim = { 'composefs.merged.erofs.v1.fsverity-sha512-12': foreign, 'org.example.kept': 'yes' };
    const layout = { tag: TAG, editManifest: (m: object) => ({ ...m, annotations: claim }) };
    const { directory, manifestDigest } = bootableLayout({ kargs: ['from=image'], more: [STUB], layout });
    const image = `oci:${directory}:${TAG}`;
    const { host, told, parts } = hostWithUkify();
    const { digest } = await digestImage(host, { image, algorithm: 'sha512', formatVersion: 1, bootable: true });
    const files = secureBootFiles();
    const result = await seal(host, image, { uki: { ...files, kargs: ['mine', 'rw'] } });
    const cmdline = `rw composefs.digest=v1-sha512-12:${digest} panic=30 rd.shell=0 rd.emergency=reboot from=image mine`;
    const path = '/boot/EFI/Linux/6.12.0.efi';
    expect(result).toEqual({
      ...{
        manifestDigest: expect.not.stringContaining(manifestDigest) as string,
        keys: [],
        artifact: null,
        pkcs7: null,
      },
      digests: [`v1-sha512-12:${digest}`],
      uki: { path, manifestDigest: result.manifestDigest, digest: `v1-sha512-12:${digest}`, cmdline },
    });
    expect(parts).toEqual({
      linux: KERNEL.toString(),
      initrd: INITRD.toString(),
      stub: Buffer.alloc(3000, 'stub').toString(),
      cmdline,
      'os-release': 'ID=example\nPRETTY_NAME="Example OS 1"\nVERSION_ID=1\n',
    });
    expect(told).toEqual([
      'build',
      '--uname=6.12.0',
      `--secureboot-private-key=${files.secureBootKey}`,
      `--secureboot-certificate=${files.secureBootCertificate}`,
      '--signtool=sbsign',
      expect.stringMatching(/^--output=/),
    ]);
    expect(readdirSync(directory).sort()).toEqual(['blobs', 'index.json', 'oci-layout']);
    const inspected = await withImage(host, image, undefined, ({ manifest, config, manifestDigest: now, layers }) =>
      Promise.resolve({
        now,
        annotations: [...manifest.annotations],
        layers: layers.length,
        labels: [...config.labels.keys()],
      }),
    );
    expect(inspected).toEqual({
      ...{ now: result.manifestDigest, layers: 4, labels: ['containers.bootc', 'org.opencontainers.image.version'] },
      annotations: [['org.example.kept', 'yes']],
    });
    const sysroot = scratchSysroot();
    expect(await sysroot.deploy(image, { allowMissingVerity: false }, host)).toMatchObject({ digest });
    expect(sysroot.status().deployments[0]?.entry?.kargs.join(' ')).toBe(cmdline);
    await expect(seal(host, image)).rejects.toMatchObject({
      code: 'image-unsupported',
      message: `"${image}" has a unified kernel image already: "${path}"`,
      hint: 'Seal it as it is, without --uki, or start from the image without that file',
    });
  });

  test('is followed by the seal of what came of it, where there are keys', async () => {
    const { directory } = bootableLayout({ layout: { tag: TAG } });
    const image = `oci:${directory}:${TAG}`;
    const { host } = hostWithUkify();
    const key = knownKey('ours');
    const result = await seal(host, image, { keys: [writeKey(scratchDir(), 'ours', key)] });
    expect(result).toMatchObject({ keys: [key.id], manifestDigest: result.uki?.manifestDigest });
    expect(result.digests[0]).toBe(result.uki?.digest);
    const trusted = writeFileIn(scratchDir(), 'ours.pub', key.publicPem);
    await expect(verifyImage(host, { image, keys: [trusted] })).resolves.toMatchObject({ keys: [key.id] });
  });

  test.each<readonly [string, Partial<LayoutSpec>, (files: ReturnType<typeof secureBootFiles>) => UkiOptions, string, RegExp]>([
    ['a key that is not there', {}, (files) => ({ ...files, secureBootKey: '/nowhere', kargs: [] }), 'usage', /"\/nowhere" is not a file/],
    ['an argument that is for hostctl alone', {}, (files) => ({ ...files, kargs: ['hostctl.state=x'] }), 'usage', /set by hostctl/],
    ['an argument that no boot entry can hold', {}, (files) => ({ ...files, kargs: ['a=$b'] }), 'format-invalid', /Cannot use "\/boot\/EFI\/Linux\/6\.12\.0\.efi".*has a "\$"/],
    ['an image of Docker', { docker: true }, (files) => ({ ...files, kargs: [] }), 'image-unsupported', /Cannot add a layer to an image of type/],
  ])('refuses %s, and changes nothing', async (_what, layout, ukiOf, code, message) => {
    const { directory } = bootableLayout({ layout: { tag: TAG, ...layout } });
    const before = readFileSync(`${directory}/index.json`);
    const image = `oci:${directory}:${TAG}`;
    await expect(seal(hostWithUkify().host, image, { uki: ukiOf(secureBootFiles()) })).rejects.toMatchObject({ code, message: expect.stringMatching(message) as string });
    expect(readFileSync(`${directory}/index.json`)).toEqual(before);
    expect(readdirSync(directory).sort()).toEqual(['blobs', 'index.json', 'oci-layout']);
  }); // prettier-ignore

  test('refuses an image that an index below the index names, which would name the old one', async () => {
    const { directory, reference } = bootableLayout();
    const value = JSON.parse(readFileSync(`${directory}/index.json`, 'utf8')) as unknown;
    const inner = writeJson(directory, { mediaType: 'application/vnd.oci.image.index.v1+json', value });
    writeIndex(directory, { schemaVersion: 2, manifests: [inner] });
    await expect(seal(hostWithUkify().host, reference)).rejects.toMatchObject({
      code: 'image-unsupported',
      message: expect.stringMatching(/does not name the manifest .* once/) as string,
    });
  });

  test('leaves what another tag names', async () => {
    const { directory, manifest } = bootableLayout({ layout: { tag: TAG } });
    const old = { ...manifest, annotations: refName('old') };
    writeIndex(directory, { schemaVersion: 2, manifests: [{ ...manifest, annotations: refName(TAG) }, old] });
    const { manifestDigest } = await seal(hostWithUkify().host, `oci:${directory}:${TAG}`);
    const { manifests } = JSON.parse(readFileSync(`${directory}/index.json`, 'utf8')) as { manifests: object[] };
    expect(manifests).toMatchObject([{ digest: manifestDigest, annotations: refName(TAG) }, old]);
  });

  test('refuses what has not the command line that was meant', async () => {
    const { directory, reference } = bootableLayout();
    const before = readFileSync(`${directory}/index.json`);
    const { host } = hostWithUkify((cmdline) => cmdline.replace('panic=30', 'init=/bin/sh'));
    await expect(seal(host, reference)).rejects.toMatchObject({
      code: 'command-failed',
      message: expect.stringContaining('init=/bin/sh') as string,
    });
    expect(readFileSync(`${directory}/index.json`)).toEqual(before);
  });

  test('loses nothing where a file is written in parts, and leaves none of it', () => {
    const directory = scratchDir();
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8k', 'none', directory]);
    onTestFinished(() => void execFileSync('umount', [directory]));
    const content = { kind: 'external', size: 12_000, digest: foreign as VerityDigest } as const;
    const { sink } = extractingSink('sha512', [{ file: { ...file(), content }, path: `${directory}/linux` }]);
    const writer = sink.create(content.size);
    expect(() => writer.write(Buffer.alloc(content.size))).toThrow(/ENOSPC/);
    writer.abort();
    writer.abort();
    expect(readdirSync(directory)).toEqual([]);
  });

  test.each([
    [['--uki'], /--uki needs --secureboot-private-key and --secureboot-certificate/],
    [['--karg', 'debug'], /go with --uki/],
    [['--uki', '--security-version', '3'], /of a seal: they need --key/],
  ])('takes no %j', (args, message) => {
    const { exitCode, stderr } = hostctl(['image', 'seal', 'oci:/nowhere', ...args]);
    expect({ exitCode, stderr }).toEqual({ exitCode: 2, stderr: expect.stringMatching(message) as string });
  });
});

function writeFileIn(directory: string, name: string, text: string): string {
  writeFileSync(`${directory}/${name}`, text);
  return `${directory}/${name}`;
}
