/** Sealed images from the publisher to the boot entry, on a sysroot that passes for the running one. */

import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { afterAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { withChecksum } from '../../src/format/checksum.ts';
import { formatSignatures, parseSignatures } from '../../src/format/seal/signatures.ts';
import { deploy, type DeployOptions, type DeployResult } from '../../src/ops/deploy.ts';
import { gc } from '../../src/ops/gc.ts';
import { markGood } from '../../src/ops/mark-good.ts';
import { revokeImages } from '../../src/ops/revoke-image.ts';
import { rollback } from '../../src/ops/rollback.ts';
import { sealImage, signImage, type SealImageOptions } from '../../src/ops/seal-image.ts';
import { upgrade } from '../../src/ops/upgrade.ts';
import { verifyImage } from '../../src/ops/verify-image.ts';
import type { Host } from '../../src/sys/host.ts';
import { bless } from '../helpers/bless.ts';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { withFakeVerity } from '../helpers/fake-verity.ts';
import { memoryDir } from '../helpers/memory-dir.ts';
import { writeBlob, writeIndex, type Descriptor } from '../helpers/oci-builder.ts';
import { hostctl } from '../helpers/run-program.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { scratchSysroot, type ScratchSysroot } from '../helpers/scratch-sysroot.ts';
import { flipped, testKey, writeKey, type TestKey } from '../helpers/seal-keys.ts';
import { snapshot } from '../helpers/snapshot.ts';
import { tarDir, tarFile } from '../helpers/tar-builder.ts';

vi.mock('../../src/deploy/sysroot.ts', async (original) =>
  (await import('../model/running.ts')).asRunning(await original()),
);

const ours = testKey();
const next = testKey('p256');
const foreign = testKey();
const shared = memoryDir();
const keyFile = {
  ours: writeKey(shared, 'ours', ours),
  next: writeKey(shared, 'next', next),
  foreign: writeKey(shared, 'foreign', foreign),
};
afterAll(() => rmSync(shared, { recursive: true }));

const publicOf = (path: string): string => path.replace(/key$/, 'pub');

interface Layout {
  readonly directory: string;
  readonly reference: string;
  readonly manifestDigest: string;
}

/** An image; with `imageKeys` in its `/etc`, and so in its initramfs. */
function image(version: string, imageKeys: readonly TestKey[] = [], directory = scratchDir()): Layout {
  const more = [
    tarFile('usr/bin/version', Buffer.alloc(3000, `version ${version}`)),
    ...(imageKeys.length > 0 ? [tarDir('etc/hostctl'), tarDir('etc/hostctl/keys.d')] : []),
    ...imageKeys.map(({ id, publicPem }) => tarFile(`etc/hostctl/keys.d/${id.slice(0, 8)}.pub`, publicPem)),
  ];
  return bootableLayout({ version, more, directory, layout: { tag: 'os' } });
}

let sysroot: ScratchSysroot;
let host: Host & { readonly warnings: string[] };
beforeEach(() => {
  sysroot = scratchSysroot();
  host = withFakeVerity(sysroot.host);
});

function seal({ reference }: Layout, more: Partial<SealImageOptions> = {}) {
  return sealImage(host, {
    image: reference,
    keys: [keyFile.ours],
    name: undefined,
    securityVersion: 0,
    expires: undefined,
    algorithms: ['sha512'],
    ...more,
  });
}

/** A layout of its own, made once and copied: sealing reads every layer. */
const made = new Map<string, Layout>();

async function sealed(
  version: string,
  more: Partial<SealImageOptions> = {},
  imageKeys: readonly TestKey[] = [],
): Promise<Layout> {
  const recipe = JSON.stringify([version, more, imageKeys.map(({ id }) => id)]);
  let template = made.get(recipe);
  if (template === undefined) {
    const directory = `${shared}/${made.size}`;
    mkdirSync(directory);
    template = image(version, imageKeys, directory);
    await seal(template, more);
    made.set(recipe, template);
  }
  const directory = scratchDir();
  cpSync(template.directory, directory, { recursive: true });
  return { ...template, directory, reference: `oci:${directory}` };
}

function deployed({ reference }: Layout, more: Partial<DeployOptions> = {}): Promise<DeployResult> {
  const options = { sysroot: sysroot.path, kargs: [], algorithm: undefined, tries: 3, allowMissingVerity: false };
  return deploy(host, { ...options, stage: false, image: reference, ...more });
}

/** The host's own `/etc/hostctl`, that of what boots next. */
function etc(name: string, content?: string): string {
  const [newest] = sysroot.status().deployments;
  const state = /hostctl\.state=(\S+)/.exec(newest?.entry?.kargs.join(' ') ?? '')?.[1] ?? newest?.composefs.digest;
  const path = `${sysroot.path}/state/deploy/${state}/etc/hostctl/${name}`;
  if (content === undefined) return path;
  mkdirSync(path.slice(0, path.lastIndexOf('/')), { recursive: true });
  writeFileSync(path, content);
  return path;
}

/** A host that runs version 1 and trusts the key. */
/** A host that runs version 1, which came before any key, and trusts these from now on; made once and copied. */
let first: { readonly path: string; readonly result: DeployResult } | undefined;

async function trusting(...trusted: readonly TestKey[]): Promise<DeployResult> {
  if (first === undefined) {
    const result = await deployed(await sealed('1'));
    bless(sysroot, result.id);
    cpSync(sysroot.path, `${shared}/host`, { recursive: true, verbatimSymlinks: true });
    first = { path: `${shared}/host`, result };
  } else cpSync(first.path, sysroot.path, { recursive: true, verbatimSymlinks: true });
  for (const key of trusted) etc(`keys.d/${key.id.slice(0, 8)}.pub`, key.publicPem);
  return first.result;
}

const SEALED = { type: 'hostctlSealed' };
const ACCEPT = { type: 'insecureAcceptAnything' };
const policy = (value: object): string => etc('policy.json', JSON.stringify(value));

async function refusal(attempt: Promise<unknown>): Promise<{ code: string; message: string }> {
  const before = snapshot(sysroot.path);
  const error = await attempt.then(
    () => Promise.reject(new Error('It was not refused')),
    (thrown: unknown) => thrown as { code: string; message: string },
  );
  const isTold = (name: string): boolean => /^state\/hostctl\/lock-holder$|^composefs\/objects\/..$/.test(name);
  const kept = (all: Record<string, string>) =>
    Object.fromEntries(Object.entries(all).filter(([name]) => !isTold(name)));
  expect(kept(snapshot(sysroot.path))).toEqual(kept(before));
  return { code: error.code, message: error.message };
}

/** Changes a blob of the seal's artifact, named anew wherever its name stands. */
function editSeal({ directory }: Layout, part: 0 | 1, edit: (bytes: Uint8Array) => Uint8Array): void {
  const index = JSON.parse(readFileSync(`${directory}/index.json`, 'utf8')) as {
    manifests: (Descriptor & { artifactType?: string })[];
  };
  const entry = index.manifests.find(({ artifactType }) => artifactType !== undefined)!;
  const blob = (digest: string): string => `${directory}/blobs/${digest.replace(':', '/')}`;
  const manifest = JSON.parse(readFileSync(blob(entry.digest), 'utf8')) as {
    layers: { digest: string; size: number }[];
  };
  const layer = manifest.layers[part]!;
  const bytes = edit(readFileSync(blob(layer.digest)));
  Object.assign(layer, { digest: writeBlob(directory, bytes), size: bytes.length });
  const text = Buffer.from(JSON.stringify(manifest));
  Object.assign(entry, { digest: writeBlob(directory, text), size: text.length });
  writeIndex(directory, index);
}

test('one archive of image and seal deploys without a network, and not without its seal', async () => {
  await trusting(ours);
  const archive = (layout: Layout, name: string): { readonly reference: string } => {
    execFileSync('tar', ['-C', layout.directory, '-cf', `${layout.directory}.${name}.tar`, '.']);
    return { reference: `oci-archive:${layout.directory}.${name}.tar:os` };
  };
  const layout = await sealed('2');
  const plain = image('2');
  await expect(deployed(archive(plain, 'plain') as Layout)).rejects.toMatchObject({ code: 'image-unsigned' });
  await deployed(archive(layout, 'sealed') as Layout);
  expect(sysroot.status().deployments[0]?.image.signature).toMatch(/^sealed by/);
});

describe('image seal', () => {
  test('binds the manifest to the digest that deploy makes, beside the image and without touching it', async () => {
    const layout = image('1');
    const before = snapshot(layout.directory);
    const result = await seal(layout, {
      name: 'registry.example/os',
      securityVersion: 7,
      algorithms: ['sha512', 'sha256'],
    });
    const { digest } = await deployed(layout);
    expect(result.digests[0]).toBe(`v1-sha512-12:${digest}`);
    expect(result.digests[1]).toMatch(/^v1-sha256-12:[0-9a-f]{64}$/);
    expect(result).toMatchObject({ manifestDigest: layout.manifestDigest, keys: [ours.id] });
    const after = snapshot(layout.directory);
    expect(Object.keys(before).filter((name) => before[name] !== after[name])).toEqual(['index.json']);
    const index = JSON.parse(readFileSync(`${layout.directory}/index.json`, 'utf8')) as { manifests: unknown[] };
    expect(index.manifests[1]).toEqual({
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      artifactType: 'application/vnd.hostctl.seal.v1',
      digest: result.artifact,
      size: expect.any(Number) as number,
      annotations: { 'vnd.hostctl.subject': layout.manifestDigest },
    });
  });

  test('made once more takes the place of the one before', async () => {
    const layout = await sealed('1');
    await seal(layout, { securityVersion: 3 });
    expect(await verifyImage(host, { image: layout.reference, keys: [publicOf(keyFile.ours)] })).toMatchObject({
      securityVersion: 3,
    });
    expect(JSON.parse(readFileSync(`${layout.directory}/index.json`, 'utf8'))).toMatchObject({
      manifests: { length: 2 },
    });
  });

  test('leaves a layout that skopeo copies by its tag', async () => {
    const layout = await sealed('1');
    const copy = scratchDir();
    execFileSync('skopeo', ['copy', '--quiet', '--preserve-digests', `${layout.reference}:os`, `oci:${copy}/c:os`], {
      stdio: 'pipe',
    });
    expect(existsSync(`${copy}/c/blobs/${layout.manifestDigest.replace(':', '/')}`)).toBe(true);
  });

  test('needs a key, and a time and a name in their forms', async () => {
    const layout = image('1');
    await expect(seal(layout, { keys: [] })).rejects.toMatchObject({ code: 'usage' });
    await expect(seal(layout, { keys: [publicOf(keyFile.ours)] })).rejects.toMatchObject({ code: 'usage' });
    await expect(seal(layout, { keys: ['/nowhere'] })).rejects.toMatchObject({ code: 'usage' });
    await expect(seal(layout, { expires: 'tomorrow' })).rejects.toMatchObject({ code: 'usage' });
    await expect(seal(layout, { name: 'a b' })).rejects.toMatchObject({ code: 'usage' });
  });
});

describe('image sign and verify', () => {
  test('a second key signs what the first sealed, and either is enough', async () => {
    const layout = await sealed('1');
    const { keys } = await signImage(host, { image: layout.reference, keys: [keyFile.next] });
    expect(keys).toEqual([next.id, ours.id]);
    for (const [path, key] of [
      [keyFile.ours, ours],
      [keyFile.next, next],
    ] as const) {
      const verified = await verifyImage(host, { image: layout.reference, keys: [publicOf(path)] });
      expect(verified).toMatchObject({ keys: [key.id], manifestDigest: layout.manifestDigest });
    }
  });

  test('nobody signs a seal whose digest is not that of the layers', async () => {
    const layout = await sealed('1');
    const hex = /v1-sha512-12:([0-9a-f]+)/.exec((await seal(layout)).digests[0]!)![1]!;
    editSeal(layout, 0, (bytes) => Buffer.from(Buffer.from(bytes).toString().replace(hex, 'ab'.repeat(64))));
    await expect(signImage(host, { image: layout.reference, keys: [keyFile.next] })).rejects.toMatchObject({
      code: 'digest-mismatch',
    });
  });

  test('an image without a seal cannot be signed, nor verified', async () => {
    const layout = image('1');
    await expect(signImage(host, { image: layout.reference, keys: [keyFile.next] })).rejects.toMatchObject({
      code: 'image-unsigned',
    });
    const keys = [publicOf(keyFile.ours)];
    await expect(verifyImage(host, { image: layout.reference, keys })).rejects.toMatchObject({
      code: 'image-unsigned',
    });
  });

  test('what is deployed is verified byte by byte, and a changed object or another seal is found', async () => {
    await trusting(ours);
    const first = await deployed(await sealed('2'));
    const verify = (): Promise<unknown> => verifyImage(host, { sysroot: sysroot.path, image: first.digest, keys: [] });
    expect(await verify()).toMatchObject({ keys: [ours.id], digests: [`v1-sha512-12:${first.digest}`] });
    const objects = `${sysroot.path}/composefs/objects`;
    const object = readdirSync(objects)
      .flatMap((xx) => readdirSync(`${objects}/${xx}`).map((rest) => `${xx}/${rest}`))
      .find((name) => name.replace('/', '') !== first.digest)!;
    const content = readFileSync(`${objects}/${object}`);
    writeFileSync(`${objects}/${object}`, flipped(content, 10));
    await expect(verify()).rejects.toMatchObject({ code: 'corrupt' });
    writeFileSync(`${objects}/${object}`, content);
    const place = `${sysroot.path}/composefs/seals/${first.digest}`;
    const good = readFileSync(place);
    writeFileSync(place, flipped(good, 100));
    await expect(verify()).rejects.toMatchObject({ code: 'signature-invalid' });
    writeFileSync(place, good);
    await verify();
  });

  test('the built program does all of it, with its exit statuses', () => {
    const layout = image('1');
    const pub = publicOf(keyFile.ours);
    expect(hostctl(['image', 'verify', layout.reference, '--key', pub]).exitCode).toBe(3);
    const made = hostctl(['image', 'seal', layout.reference, '--key', keyFile.ours, '--hash', 'sha256']);
    expect(made.stdout).toBe(
      `v1-sha256-12:${hostctl(['image', 'digest', layout.reference, '--bootable', '--hash', 'sha256']).stdout}`,
    );
    expect(hostctl(['image', 'sign', layout.reference, '--key', keyFile.next]).stdout).toContain(next.id);
    expect(hostctl(['image', 'verify', layout.reference, '--key', pub]).stdout).toContain(`sealed by  ${ours.id}\n`);
    expect(hostctl(['image', 'verify', layout.reference, '--key', publicOf(keyFile.foreign)]).exitCode).toBe(3);
    const list = `${scratchDir()}/revoked`;
    const revoke = ['image', 'revoke', list, made.stdout.trim(), '--key', keyFile.ours];
    expect([hostctl(revoke).exitCode, hostctl(revoke).exitCode]).toEqual([0, 0]);
    expect(readFileSync(list, 'utf8')).toBe(`hostctl-revoked 1\nnumber 2\ndigest ${made.stdout}`);
    expect(hostctl(['image', 'revoke', list, 'nonsense', '--key', keyFile.ours]).exitCode).toBe(2);
  });
});

describe('a fresh host', () => {
  test('takes what it is given, and says that it is unsigned', async () => {
    await deployed(image('1'));
    expect(sysroot.status().deployments[0]).toMatchObject({ image: { signature: 'unsigned' }, level: 'pinned' });
    expect(existsSync(`${sysroot.path}/composefs/seals`)).toBe(false);
  });

  test('whose first image has keys says who sealed it, though that key came with the image', async () => {
    const { digest } = await deployed(await sealed('1', {}, [ours]));
    expect(sysroot.status().deployments[0]).toMatchObject({
      image: { signature: `sealed by ${ours.id}` },
      level: 'pinned',
      sealAtBoot: true,
    });
    expect(readdirSync(`${sysroot.path}/composefs/seals`).sort()).toEqual([digest, `${digest}.sig`]);
  });
});

describe('a host with keys takes', () => {
  test('a sealed image, and puts the seal where the initramfs looks for it', async () => {
    await trusting(ours);
    const layout = await sealed('2', { securityVersion: 4 });
    const { digest } = await deployed(layout);
    const text = readFileSync(`${sysroot.path}/composefs/seals/${digest}`, 'utf8');
    expect(text).toContain(`digest v1-sha512-12:${digest}\n`);
    expect(text).toContain(`manifest ${layout.manifestDigest}\n`);
    expect(sysroot.status().deployments[0]?.image.signature).toBe(`sealed by ${ours.id}`);
  });

  test('one that an unknown key signed too', async () => {
    await trusting(ours);
    const layout = await sealed('2', { keys: [keyFile.foreign, keyFile.ours] });
    await deployed(layout);
    expect(sysroot.status().deployments[0]?.image.signature).toBe(`sealed by ${ours.id}`);
  });

  test('one of several digests, the second of which is its own', async () => {
    await trusting(ours);
    const { digest } = await deployed(await sealed('2', { algorithms: ['sha256', 'sha512'] }));
    expect(digest).toHaveLength(128);
  });

  test('the same image signed by the next key, before the old one goes', async () => {
    await trusting(ours);
    const layout = await sealed('2');
    const { digest } = await deployed(layout);
    await signImage(host, { image: layout.reference, keys: [keyFile.next] });
    expect((await deployed(layout)).changed).toBe(false);
    expect(readFileSync(`${sysroot.path}/composefs/seals/${digest}.sig`, 'utf8')).toContain(next.id);
    etc(`keys.d/next.pub`, next.publicPem);
    rmSync(etc(`keys.d/${ours.id.slice(0, 8)}.pub`));
    await deployed(await sealed('3', { keys: [keyFile.next] }));
    expect(sysroot.status().warnings.filter(({ code }) => code === 'key-untrusted')).toHaveLength(1);
    await expect(deployed(await sealed('4', { keys: [keyFile.ours] }))).rejects.toMatchObject({
      code: 'signature-invalid',
      message: expect.stringContaining('unknown keys only') as string,
    });
  });

  test('a sealed one although another seal beside it is broken', async () => {
    await trusting(ours);
    const layout = await sealed('2');
    const other = await sealed('3');
    const index = JSON.parse(readFileSync(`${layout.directory}/index.json`, 'utf8')) as { manifests: object[] };
    const artifact = JSON.parse(readFileSync(`${other.directory}/index.json`, 'utf8')) as { manifests: object[] };
    index.manifests.splice(1, 0, { ...artifact.manifests[1], annotations: {} });
    writeIndex(layout.directory, index);
    await deployed(layout);
  });
});

describe('a host with keys refuses, before anything is written', () => {
  const cases: [string, () => Promise<Layout>, string, RegExp][] = [
    ['an image without a seal', () => Promise.resolve(image('2')), 'image-unsigned', /has no seal/],
    ['a seal by another key', () => sealed('2', { keys: [keyFile.foreign] }), 'signature-invalid', /unknown keys only/],
    [
      'a seal with one bit changed',
      async () => {
        const layout = await sealed('2');
        editSeal(layout, 0, (bytes) => flipped(bytes, 150));
        return layout;
      },
      'signature-invalid',
      /signature by key [0-9a-f]+ is wrong/,
    ],
    [
      'a signature with one bit changed',
      async () => {
        const layout = await sealed('2');
        editSeal(layout, 1, (file) => {
          const [{ keyId, bytes } = { keyId: '', bytes: Buffer.alloc(0) }] = parseSignatures(file);
          return formatSignatures([{ keyId, bytes: flipped(bytes, 5) }]);
        });
        return layout;
      },
      'signature-invalid',
      /signature by key [0-9a-f]+ is wrong/,
    ],
    [
      'a signature that is no base64',
      async () => {
        const layout = await sealed('2');
        editSeal(layout, 1, (file) => Buffer.from(file).fill('@', 70, 71));
        return layout;
      },
      'signature-invalid',
      /cannot be used.* is no signature/,
    ],
    [
      'a key id that was changed to a known one',
      async () => {
        const layout = await sealed('2', { keys: [keyFile.foreign] });
        editSeal(layout, 1, (bytes) => Buffer.from(Buffer.from(bytes).toString().replace(foreign.id, ours.id)));
        return layout;
      },
      'signature-invalid',
      /is wrong/,
    ],
    [
      'the seal of another manifest by the same publisher',
      async () => {
        const layout = await sealed('2');
        const other = await sealed('3');
        const text = (directory: string): Buffer => {
          const place = `${directory}/blobs/sha256`;
          return readdirSync(place)
            .map((name) => readFileSync(`${place}/${name}`))
            .find((bytes) => bytes.subarray(0, 12).toString() === 'hostctl-seal')!;
        };
        const signed = (directory: string): Buffer => {
          const place = `${directory}/blobs/sha256`;
          return readdirSync(place)
            .map((name) => readFileSync(`${place}/${name}`))
            .find((bytes) => bytes.subarray(0, 64).toString() === ours.id)!;
        };
        editSeal(layout, 0, () => text(other.directory));
        editSeal(layout, 1, () => signed(other.directory));
        return layout;
      },
      'signature-invalid',
      /is for the manifest sha256:[0-9a-f]+, not for/,
    ],
    [
      'a seal that has expired',
      () => sealed('2', { expires: '2020-01-01T00:00:00Z' }),
      'signature-invalid',
      /has expired on 2020/,
    ],
    [
      'a seal for repositories of the other hash only',
      () => sealed('2', { algorithms: ['sha256'] }),
      'digest-mismatch',
      /v1-sha512-12:[0-9a-f]+ here, but is sealed with v1-sha256-12:/,
    ],
  ];
  test.each(cases)('%s', async (_, make, code, message) => {
    await trusting(ours);
    const layout = await make();
    expect(await refusal(deployed(layout))).toEqual({ code, message: expect.stringMatching(message) as string });
  });

  test('an image whose layers are not what was sealed, with both digests', async () => {
    await trusting(ours);
    const layout = await sealed('2');
    const right = (await seal(layout)).digests[0]!;
    // Somebody signs without looking.
    const { readSigners, signWith } = await import('../../src/ops/seal-image.ts');
    const { formatSignatures } = await import('../../src/format/seal/signatures.ts');
    const wrong = `v1-sha512-12:${'ab'.repeat(64)}`;
    let text: Uint8Array = new Uint8Array();
    editSeal(layout, 0, (bytes) => (text = Buffer.from(Buffer.from(bytes).toString().replace(right, wrong))));
    editSeal(layout, 1, () => formatSignatures(signWith(text, readSigners([keyFile.ours]))));
    const { code, message } = await refusal(deployed(layout));
    expect(code).toBe('digest-mismatch');
    expect(message).toContain(right);
    expect(message).toContain(wrong);
    const verified = verifyImage(host, { image: layout.reference, keys: [publicOf(keyFile.ours)] });
    await expect(verified).rejects.toMatchObject({ code: 'digest-mismatch' });
  });

  test('a manifest that states another digest than the image has', async () => {
    const claimed = 'composefs.merged.bootable.erofs.v1.fsverity-sha512-12';
    await trusting();
    const layout = bootableLayout({
      layout: { editManifest: (manifest) => ({ ...manifest, annotations: { [claimed]: 'ab'.repeat(64) } }) },
    });
    expect(await refusal(deployed(layout))).toMatchObject({ code: 'digest-mismatch' });
  });
});

describe('an image with keys of its own is refused', () => {
  test('without a seal, since it would not boot', async () => {
    expect((await deployed(image('1', [ours])).catch((error: unknown) => error)) as object).toMatchObject({
      code: 'image-unsigned',
      message: expect.stringContaining('would refuse to boot') as string,
    });
  });

  test('with a seal by a key that the host trusts and the image does not', async () => {
    await trusting(ours);
    const layout = await sealed('2', {}, [next]);
    expect(await refusal(deployed(layout))).toMatchObject({ code: 'signature-invalid' });
    await signImage(host, { image: layout.reference, keys: [keyFile.next] });
    await deployed(layout);
    expect(sysroot.status().deployments[0]).toMatchObject({
      image: { signature: `sealed by ${ours.id}` },
      sealAtBoot: true,
    });
  });

  test('where nothing is verified', async () => {
    const layout = await sealed('1', {}, [ours]);
    const attempt = sysroot.deploy(layout.reference);
    await expect(attempt).rejects.toMatchObject({ code: 'verity-unsupported' });
  });
});

describe('the policy', () => {
  test('of a scope asks for a seal, and lets others in', async () => {
    await trusting();
    const layout = image('2');
    policy({ default: [ACCEPT], transports: { oci: { [layout.directory]: [SEALED] } } });
    expect(await refusal(deployed(layout))).toMatchObject({ code: 'image-unsigned' });
    await deployed(image('3'));
  });

  test('names the keys that count, whatever else is trusted', async () => {
    await trusting(ours);
    etc('other/next.pub', next.publicPem);
    policy({ default: [{ ...SEALED, keyPath: '/etc/hostctl/other/next.pub' }] });
    expect(await refusal(deployed(await sealed('2')))).toMatchObject({ code: 'signature-invalid' });
    await deployed(await sealed('3', { keys: [keyFile.next] }));
  });

  test('that cannot be read lets nothing in', async () => {
    await trusting(ours);
    for (const text of [
      '{',
      '{"default":[]}',
      '{"default":[{"type":"signedBy"}]}',
      '{"default":[{"type":"reject","x":1}]}',
    ]) {
      etc('policy.json', text);
      expect(await refusal(deployed(await sealed('2')))).toMatchObject({ code: 'config-invalid' });
    }
  });

  test('rejects', async () => {
    await trusting();
    policy({ default: [{ type: 'reject' }] });
    expect(await refusal(deployed(image('2')))).toMatchObject({ code: 'policy-rejected' });
  });

  test('is not got around by another name, unless that is confirmed', async () => {
    await trusting(ours);
    const tracked = await sealed('2');
    await deployed(tracked);
    policy({ default: [ACCEPT], transports: { oci: { [tracked.directory]: [SEALED] } } });
    const options = { sysroot: sysroot.path, kargs: [], algorithm: undefined, tries: 3, allowMissingVerity: false };
    const change = { ...options, allowDowngrade: false, etcPolicy: {}, keep: 3, downloadOnly: false };
    const switchTo = (layout: Layout, allowWeakerPolicy = false) =>
      upgrade(host, { ...change, image: layout.reference, allowWeakerPolicy });
    const unsealed = image('3');
    expect(await refusal(switchTo(unsealed))).toMatchObject({ code: 'image-unsigned' });
    await switchTo(await sealed('4'));
    expect((await switchTo(unsealed, true)).changed).toBe(true);
  });
});

/** The machine boots what is the default, and it is good. */
async function comesUp(id: number): Promise<void> {
  bless(sysroot, id);
  const entry = `hostctl-${String(id).padStart(8, '0')}.conf`;
  const text = readFileSync(`${sysroot.path}/boot/loader/entries/${entry}`, 'utf8');
  const running = { ...host, kernelCmdline: () => /^options (.*)$/m.exec(text)?.[1] ?? '' };
  await markGood(running, { sysroot: sysroot.path });
}

const floorFile = (name = 'floor'): string => `${sysroot.path}/state/hostctl/${name}`;

describe('the floor', () => {
  test('is raised by a good boot alone, and what is below it is refused', async () => {
    await trusting(ours);
    const two = await deployed(await sealed('2', { securityVersion: 5 }));
    expect(existsSync(floorFile())).toBe(false);
    await deployed(await sealed('2b', { securityVersion: 3 }));
    await rollback(host, { sysroot: sysroot.path, to: String(two.id) });
    await comesUp(4);
    expect(readFileSync(floorFile(), 'utf8')).toContain('version = 5\n');
    const older = await sealed('3', { securityVersion: 4 });
    expect(await refusal(deployed(older))).toMatchObject({ code: 'downgrade-refused' });
    expect(await refusal(rollback(host, { sysroot: sysroot.path, to: '1' }))).toMatchObject({
      code: 'downgrade-refused',
    });
    await deployed(older, { allowDowngrade: true });
    await deployed(await sealed('4', { securityVersion: 5 }));
    expect((await rollback(host, { sysroot: sysroot.path, to: '1', allowDowngrade: true })).to).toBe(1);
    expect(host.warnings.filter((line) => line.includes('nevertheless'))).toHaveLength(2);
  });

  test('counts what an image without a seal says of itself', async () => {
    const labelled = (version: number) =>
      bootableLayout({
        version: String(version),
        layout: { labels: { 'containers.bootc': '1', 'security-version': String(version) } },
      });
    await deployed(labelled(3));
    await comesUp(1);
    expect(await refusal(deployed(labelled(2)))).toMatchObject({ code: 'downgrade-refused' });
    await deployed(labelled(4));
  });

  test('does not go down, is made whole again, and without both copies is what runs', async () => {
    await trusting(ours);
    await deployed(await sealed('2', { securityVersion: 5 }));
    await comesUp(2);
    const below = await sealed('3', { securityVersion: 4 });
    for (const copy of ['floor', 'floor-copy']) {
      const whole = readFileSync(floorFile(copy), 'utf8');
      writeFileSync(floorFile(copy), whole.replace('= 5', '= 1'));
      expect(await refusal(deployed(below))).toMatchObject({ code: 'downgrade-refused' });
      expect(sysroot.status().warnings.map(({ code }) => code)).toEqual(['floor-unreadable']);
      await comesUp(2);
      expect(readFileSync(floorFile(copy), 'utf8')).toBe(whole);
      // As a crash between the two leaves them: both sound, and one behind.
      writeFileSync(floorFile(copy), withChecksum('[floor]\nversion = 2\n', ';'));
      expect(await refusal(deployed(below))).toMatchObject({ code: 'downgrade-refused' });
      await comesUp(2);
      expect(readFileSync(floorFile(copy), 'utf8')).toBe(whole);
    }
    expect(sysroot.status().warnings).toEqual([]);
    for (const copy of ['floor', 'floor-copy']) rmSync(floorFile(copy));
    const entry = readFileSync(`${sysroot.path}/boot/loader/entries/hostctl-00000002.conf`, 'utf8');
    host = { ...host, kernelCmdline: () => /^options (.*)$/m.exec(entry)?.[1] ?? '' };
    expect(await refusal(deployed(below))).toMatchObject({ code: 'downgrade-refused' });
  });
});

describe('a revoked image', () => {
  async function revoke(digest: string, key = keyFile.ours): Promise<void> {
    const list = `${scratchDir()}/revoked`;
    revokeImages({ file: list, digests: [`v1-sha512-12:${digest}`], keys: [key] });
    etc('revoked', readFileSync(list, 'utf8'));
    etc('revoked.sig', readFileSync(`${list}.sig`, 'utf8'));
    await Promise.resolve();
  }
  const listed = (): string => `${sysroot.path}/composefs/seals/revoked`;

  test('is not deployed, nor gone back to, and the initramfs learns of it once a good boot knows it', async () => {
    const { digest } = await trusting(ours);
    const bad = await sealed('2');
    const two = await deployed(bad);
    await deployed(await sealed('3'));
    await revoke(two.digest);
    expect(await refusal(deployed(bad))).toMatchObject({ code: 'image-revoked' });
    expect(await refusal(rollback(host, { sysroot: sysroot.path, to: '2' }))).toMatchObject({ code: 'image-revoked' });
    expect(sysroot.status().warnings.map(({ code }) => code)).toEqual(['image-revoked']);
    expect(existsSync(listed())).toBe(false);
    await comesUp(3);
    expect(readFileSync(listed(), 'utf8')).toContain(two.digest);
    expect(readFileSync(`${listed()}.sig`, 'utf8')).toContain(ours.id);
    expect(digest).not.toBe(two.digest);
  });

  test('that runs still boots until there is another one', async () => {
    const { digest } = await trusting(ours);
    await revoke(digest);
    await comesUp(1);
    expect(existsSync(listed())).toBe(false);
    expect(host.warnings.some((line) => line.includes('is revoked: deploy another one'))).toBe(true);
  });

  test('by a list of an unknown key is not revoked', async () => {
    const { digest } = await trusting(ours);
    await revoke(digest, keyFile.foreign);
    await deployed(await sealed('2'));
    expect(sysroot.status().warnings.map(({ code }) => code)).toEqual(['trust-unusable']);
  });
});

describe('gc', () => {
  test('keeps the seals of what stays and takes those of what goes', async () => {
    await trusting(ours);
    const two = await deployed(await sealed('2'));
    bless(sysroot, 2);
    const three = await deployed(await sealed('3'));
    bless(sysroot, 3);
    const seals = (): string[] => readdirSync(`${sysroot.path}/composefs/seals`);
    expect(seals()).toHaveLength(4);
    writeFileSync(`${sysroot.path}/composefs/seals/revoked`, 'kept');
    await gc(host, { sysroot: sysroot.path, keep: 2, dryRun: false });
    expect(seals().sort()).toEqual(
      [two.digest, three.digest]
        .flatMap((digest) => [digest, `${digest}.sig`])
        .concat('revoked')
        .sort(),
    );
  });
});

describe('a seal that is damaged on the host', () => {
  test.each<[string, (path: string) => void]>([
    ['missing', (path) => rmSync(path)],
    ['cut short', (path) => writeFileSync(path, readFileSync(path).subarray(0, 30))],
    [
      'that of another image',
      (path) => writeFileSync(path, readFileSync(path, 'utf8').replace(/12:[0-9a-f]{4}/, '12:ffff')),
    ],
    ['without its signatures', (path) => rmSync(`${path}.sig`)],
  ])('%s is shown, and the next deployment of the image has it again', async (_, damage) => {
    await trusting(ours);
    const layout = await sealed('2');
    const { digest } = await deployed(layout);
    damage(`${sysroot.path}/composefs/seals/${digest}`);
    expect(sysroot.status().deployments[0]).toMatchObject({
      problems: [{ code: 'seal-broken' }],
      image: { signature: 'broken' },
    });
    await deployed(layout);
    expect(sysroot.status().deployments.flatMap(({ problems }) => problems)).toEqual([]);
  });
});
