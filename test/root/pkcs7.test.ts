/** Signatures for other tools, made and verified: against those of openssl and fsverity, which know nothing of hostctl. */

import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { NewArtifact } from '../../src/format/oci/artifact.ts';
import { parseOciDigest } from '../../src/format/oci/digest.ts';
import { writeLayoutArtifact } from '../../src/image/layout-artifact.ts';
import { verifyMetadata } from '../../src/ops/metadata-artifact.ts';
import { sealImage } from '../../src/ops/seal-image.ts';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { withFakeVerity } from '../helpers/fake-verity.ts';
import type { BuiltLayout } from '../helpers/oci-builder.ts';
import { hostctl } from '../helpers/run-program.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { flipped, knownKey, writeKey } from '../helpers/seal-keys.ts';
import { scratchSysroot } from '../helpers/scratch-sysroot.ts';
import { testHost } from '../helpers/test-host.ts';

const METADATA = 'application/vnd.composefs.metadata.v1';
const PKCS7 = 'application/vnd.composefs.signature.v1+pkcs7';
const NAMES = ['manifest', 'config', 'merged.erofs.v1', 'merged.bootable.erofs.v1'].flatMap((what) =>
  ['sha512', 'sha256'].map((hash) => `composefs.${what}.fsverity-${hash}-12`),
);

type Layout = BuiltLayout & { readonly reference: string };
interface Part {
  readonly name: string;
  readonly digest: string;
  readonly bytes: Uint8Array;
  readonly mediaType?: string;
}
interface Signer {
  readonly privateKey: string;
  readonly certificate: string;
}

let keyFolder: string;
let rsa: Signer;
let ec: Signer;

beforeAll(() => {
  keyFolder = mkdtempSync(`${os.tmpdir()}/hostctl-pkcs7-keys-`);
  rsa = makeSigner('rsa', ['-newkey', 'rsa:2048']);
  ec = makeSigner('ec', ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1']);
});
afterAll(() => rmSync(keyFolder, { recursive: true }));

function makeSigner(name: string, key: readonly string[]): Signer {
  const [privateKey, certificate, config] = ['key', 'crt', 'cnf'].map((end) => `${keyFolder}/${name}.${end}`) as [
    string,
    string,
    string,
  ];
  writeFileSync(config, '[req]\ndistinguished_name = dn\n[dn]\n');
  const args = ['req', '-config', config, '-x509', ...key, '-nodes', '-subj', `/CN=${name}/`, '-days', '3650'];
  execFileSync('openssl', [...args, '-keyout', privateKey, '-out', certificate], { stdio: 'pipe' });
  return { privateKey, certificate };
}

const host = withFakeVerity(testHost());
const hashOf = (name: string): string => /sha(?:256|512)/.exec(name)![0];
const blob = ({ directory }: BuiltLayout, digest: string): string => `${directory}/blobs/${digest.replace(':', '/')}`;
const readJson = <T>(path: string): T => JSON.parse(readFileSync(path, 'utf8')) as T;

async function sealed(signer: Signer, layout: Layout = bootableLayout()): Promise<Layout> {
  const options = {
    name: undefined,
    securityVersion: 0,
    expires: undefined,
    algorithms: ['sha512', 'sha256'],
  } as const;
  const result = await sealImage(host, { ...options, image: layout.reference, keys: [], pkcs7: signer });
  expect(result).toMatchObject({ keys: [], artifact: null, uki: null, manifestDigest: layout.manifestDigest });
  return layout;
}

/** The artifact that is there, by its document. */
function artifactOf(layout: Layout): {
  readonly artifactType: string;
  readonly subject: object;
  readonly parts: Part[];
} {
  const index = readJson<{ manifests: { artifactType?: string; digest: string }[] }>(`${layout.directory}/index.json`);
  const entry = index.manifests.find(({ artifactType }) => artifactType === METADATA);
  const manifest = readJson<{
    artifactType: string;
    subject: object;
    layers: { mediaType: string; digest: string; annotations: Record<string, string> }[];
  }>(blob(layout, entry!.digest));
  const parts = manifest.layers.map(({ mediaType, digest, annotations }) => {
    expect(mediaType).toBe(PKCS7);
    const [[name = '', stated = ''] = []] = Object.entries(annotations);
    return { name, digest: stated, bytes: readFileSync(blob(layout, digest)) };
  });
  return { ...manifest, parts };
}

/** Puts these signatures in the place of those that are there. */
function replaceParts(layout: Layout, parts: readonly Part[]): void {
  const subject = { mediaType: layout.manifest.mediaType, size: layout.manifest.size };
  const artifact: NewArtifact = {
    artifactType: METADATA,
    subject: { ...subject, digest: parseOciDigest(layout.manifestDigest, 'Digest') },
    parts: parts.map(({ name, digest, bytes, mediaType = PKCS7 }) => ({
      mediaType,
      bytes,
      annotations: { [name]: digest },
    })),
  };
  writeLayoutArtifact(layout.directory, artifact);
}

/** What fsverity says of a file: its digest, and a signature over it. */
function byFsverity(file: string, hash: string, { privateKey, certificate }: Signer): Omit<Part, 'name'> {
  const out = `${scratchDir()}/signature`;
  const args = [`--hash-alg=${hash}`, `--key=${privateKey}`, `--cert=${certificate}`];
  execFileSync('fsverity', ['sign', file, out, ...args], { stdio: 'pipe' });
  const digest = execFileSync('fsverity', ['digest', `--hash-alg=${hash}`, '--compact', file], { encoding: 'utf8' });
  return { digest: digest.trim(), bytes: readFileSync(out) };
}

/** The kernel's `struct fsverity_formatted_digest`, written down once more. */
function formatted(digest: string): Buffer {
  const head = digest.length === 64 ? '01002000' : '02004000';
  return Buffer.concat([Buffer.from('FSVerity'), Buffer.from(head + digest, 'hex')]);
}

/** Whether openssl finds the signature good. */
function isGoodByOpenssl({ digest, bytes }: Part, { certificate }: Signer): boolean {
  const directory = scratchDir();
  writeFileSync(`${directory}/content`, formatted(digest));
  writeFileSync(`${directory}/signature`, bytes);
  const files = ['-in', `${directory}/signature`, '-content', `${directory}/content`, '-certfile', certificate];
  const options = ['-verify', '-binary', '-inform', 'DER', '-noverify', '-out', '/dev/null'];
  return spawnSync('openssl', ['cms', ...options, ...files]).status === 0;
}

function byOpensslCms(digest: string, { privateKey, certificate }: Signer, more: readonly string[] = []): Buffer {
  const options = ['-sign', '-binary', '-outform', 'DER', '-signer', certificate, '-inkey', privateKey, ...more];
  return execFileSync('openssl', ['cms', ...options], { input: formatted(digest) });
}

const verify = (layout: Layout, { certificate }: Signer): ReturnType<typeof verifyMetadata> =>
  verifyMetadata(host, { image: layout.reference, certificate });

describe('image seal with a PKCS#7 key', () => {
  test('makes the very signatures of fsverity, over documents and images as they are stored', async () => {
    const layout = await sealed(rsa);
    const { artifactType, subject, parts } = artifactOf(layout);
    expect(artifactType).toBe(METADATA);
    expect(subject).toEqual(layout.manifest);
    expect(parts.map(({ name }) => name)).toEqual(NAMES);
    const files = { manifest: blob(layout, layout.manifestDigest), config: blob(layout, layout.config.digest) };
    const expectSame = (part: Part | undefined, file: string): void => {
      expect(part).toEqual({ name: part?.name, ...byFsverity(file, hashOf(part!.name), rsa) });
    };
    for (const part of parts.slice(0, 4))
      expectSame(part, files[part.name.includes('manifest') ? 'manifest' : 'config']);

    const sysroot = scratchSysroot();
    const booted = await sysroot.deploy(layout.reference, {}, withFakeVerity(sysroot.host));
    const object = (repo: string, digest: string): string => `${repo}/objects/${digest.slice(0, 2)}/${digest.slice(2)}`;
    const bootable = parts.find(({ name }) => name === NAMES[6]);
    expect(bootable?.digest).toBe(booted.digest);
    const repo = `${sysroot.path}/composefs`;
    expectSame(bootable, object(repo, booted.digest));
    const pulled = hostctl(['image', 'pull', layout.reference, '--repo', repo, '--json']);
    const { digest } = JSON.parse(pulled.stdout) as { digest: string };
    expectSame(
      parts.find(({ name }) => name === NAMES[4]),
      object(repo, digest),
    );
  });

  test('makes what openssl finds good, by either kind of key and beside a seal', () => {
    const layout = bootableLayout();
    const key = writeKey(scratchDir(), 'ours', knownKey('ours'));
    expect(
      hostctl([
        ...['image', 'seal', layout.reference, '--key', key],
        ...['--pkcs7-private-key', ec.privateKey, '--pkcs7-certificate', ec.certificate],
      ]),
    ).toMatchObject({ exitCode: 0 });
    const { parts } = artifactOf(layout);
    expect(parts).toHaveLength(8);
    for (const part of parts) {
      expect(isGoodByOpenssl(part, ec)).toBe(true);
      expect(isGoodByOpenssl(part, rsa)).toBe(false);
    }
    expect(hostctl(['image', 'verify', layout.reference, '--key', key.replace(/key$/, 'pub')]).exitCode).toBe(0);
    const verified = hostctl(['image', 'verify', layout.reference, '--pkcs7-certificate', ec.certificate]);
    expect(verified.stdout).toBe(parts.map(({ name, digest }) => `${name} ${digest}\n`).join(''));
    const other = hostctl(['image', 'verify', layout.reference, '--pkcs7-certificate', rsa.certificate]);
    expect(other).toMatchObject({
      exitCode: 3,
      stderr: expect.stringContaining('is not signed by the key of') as string,
    });
  });

  test.each<[string, () => string[], string]>([
    ['a key alone', () => ['--pkcs7-private-key', rsa.privateKey], 'go together'],
    [
      'a certificate of another key',
      () => ['--pkcs7-private-key', rsa.privateKey, '--pkcs7-certificate', ec.certificate],
      'is not for the key',
    ],
    [
      'a certificate that is none',
      () => ['--pkcs7-private-key', rsa.privateKey, '--pkcs7-certificate', rsa.privateKey],
      'Cannot use the certificate',
    ],
    [
      'a key that is not there',
      () => ['--pkcs7-private-key', '/nowhere', '--pkcs7-certificate', rsa.certificate],
      'does not exist',
    ],
    [
      'what a seal would say',
      () => [
        ...['--pkcs7-private-key', rsa.privateKey, '--pkcs7-certificate', rsa.certificate],
        ...['--security-version', '3'],
      ],
      'they need --key',
    ],
  ])('does not take %s, and writes nothing', (_, options, why) => {
    const layout = bootableLayout();
    const before = readFileSync(`${layout.directory}/index.json`, 'utf8');
    const result = hostctl(['image', 'seal', layout.reference, ...options()]);
    expect(result).toMatchObject({ exitCode: 2, stderr: expect.stringContaining(why) as string });
    expect(readFileSync(`${layout.directory}/index.json`, 'utf8')).toBe(before);
  });
});

describe('image verify with a certificate', () => {
  test('takes signatures of fsverity and of openssl cms, by its key', async () => {
    for (const signer of [rsa, ec]) {
      const layout = await sealed(signer);
      const { parts } = artifactOf(layout);
      const manifest = byFsverity(blob(layout, layout.manifestDigest), 'sha512', signer);
      const others = parts.slice(1).map((part, at) => ({
        ...part,
        // With and without attributes, and with the signer's certificate inside.
        bytes: byOpensslCms(part.digest, signer, [['-noattr', '-nocerts'], ['-nocerts'], []][at % 3]),
      }));
      replaceParts(layout, [{ ...parts[0]!, ...manifest }, ...others]);
      const { signed } = await verify(layout, signer);
      expect(signed).toEqual(parts.map(({ name, digest }) => ({ name, digest })));
    }
  });

  const edits: [string, (parts: Part[]) => Part[], string, string?][] = [
    [
      'one bit of a signature changed',
      ([first, ...rest]) => [{ ...first!, bytes: flipped(first!.bytes, 390) }, ...rest],
      'signature-invalid',
    ],
    [
      'what is no signature',
      ([first, ...rest]) => [{ ...first!, bytes: Buffer.from('{}') }, ...rest],
      'signature-invalid',
    ],
    ['nothing', ([first, ...rest]) => [{ ...first!, bytes: Buffer.alloc(0) }, ...rest], 'signature-invalid'],
    [
      'a digest that was not signed',
      ([first, ...rest]) => [{ ...first!, digest: 'ab'.repeat(64) }, ...rest],
      'signature-invalid',
    ],
    [
      'a signature over another thing',
      ([first, second, third, ...rest]) => [{ ...first!, bytes: third!.bytes }, second!, third!, ...rest],
      'signature-invalid',
    ],
    [
      'the name of another thing',
      ([first, second, third, ...rest]) => [{ ...third!, name: first!.name }, second!, third!, ...rest],
      'digest-mismatch',
    ],
    ['digests of another image', (parts) => parts, 'digest-mismatch', '2'],
    [
      'a signature by a key whose certificate it brings along',
      (parts) => parts.map((part) => ({ ...part, bytes: byOpensslCms(part.digest, ec) })),
      'signature-invalid',
    ],
    [
      'a signature that brings its content along',
      ([first, ...rest]) => [
        { ...first!, digest: 'ab'.repeat(64), bytes: byOpensslCms(first!.digest, rsa, ['-nodetach']) },
        ...rest,
      ],
      'signature-invalid',
    ],
    [
      'digests of the other hash',
      (parts) => parts.slice(0, 1).map((part) => ({ ...part, digest: 'ab'.repeat(32) })),
      'image-unsigned',
    ],
    [
      'what is of another type',
      (parts) => parts.map((part) => ({ ...part, mediaType: 'application/octet-stream' })),
      'image-unsigned',
    ],
    [
      'names that nobody knows',
      (parts) => parts.map((part) => ({ ...part, name: `${part.name}-x` })),
      'image-unsigned',
    ],
  ];
  test.each(edits)('does not take %s', async (_, edit, code, version = '1') => {
    const layout = await sealed(rsa);
    await verify(layout, rsa);
    const source = version === '1' ? layout : await sealed(rsa, bootableLayout({ version }));
    replaceParts(layout, edit(artifactOf(source).parts));
    await expect(verify(layout, rsa)).rejects.toMatchObject({ code });
  });

  test('knows digests of format version 2 too, and needs one signature at least', async () => {
    const layout = await sealed(rsa);
    const digest = hostctl([
      'image',
      'digest',
      layout.reference,
      '--bootable',
      '--composefs-version',
      '2',
    ]).stdout.trim();
    const name = 'composefs.merged.bootable.erofs.v2.fsverity-sha512-12';
    replaceParts(layout, [{ name, digest, bytes: byOpensslCms(digest, rsa) }]);
    expect((await verify(layout, rsa)).signed).toEqual([{ name, digest }]);
    replaceParts(layout, []);
    await expect(verify(layout, rsa)).rejects.toMatchObject({ code: 'image-unsigned' });
  });

  test('takes no key of a seal besides', () => {
    const { reference } = bootableLayout();
    const result = hostctl(['image', 'verify', reference, '--pkcs7-certificate', rsa.certificate, '--key', 'x']);
    expect(result).toMatchObject({ exitCode: 2 });
  });
});
