/**
 * From a publisher to a machine that boots: images sealed in a registry, pulled, verified, deployed and booted; then the
 * publisher's next key, which takes over from the old one; then an image that is revoked. The registry is Debian's, on
 * this host; a machine's initramfs holds both keys.
 */

import { mkdirSync } from 'node:fs';
import { cp, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { buildPackage } from '../../scripts/lib/deb.ts';
import { run } from '../../scripts/lib/run.ts';
import { deploy } from '../../src/ops/deploy.ts';
import { revokeImages } from '../../src/ops/revoke-image.ts';
import { sealImage } from '../../src/ops/seal-image.ts';
import { setup } from '../helpers/build-program.ts';
import { withFakeVerity } from '../helpers/fake-verity.ts';
import { startHostctl, startRegistry, type TestRegistry } from '../helpers/registry.ts';
import { knownKey, writeKey } from '../helpers/seal-keys.ts';
import { trixieRoot } from '../helpers/sid-root.ts';
import { testHost } from '../helpers/test-host.ts';
import { type Answers, type GuestResult, statusOf, type Step } from '../vm/lib/guest.ts';
import { GuestChain } from '../vm/lib/guest-chain.ts';
import { type Files, setOnlyTag, taggedManifest, withLayer } from '../vm/lib/layered-image.ts';
import { makeOfflineDisk } from '../vm/lib/offline-disk.ts';
import { reasonNoMachines } from '../vm/lib/requirements.ts';
import { StoppedDisk } from '../vm/lib/stopped-disk.ts';
import { testImage } from '../vm/lib/test-image.ts';

const say = (line: string): void => console.error(line);
const reason = await reasonNoMachines(say);
if (reason !== undefined) say(`Skipping the published machine: ${reason}`);

const ours = knownKey('ours');
const next = knownKey('next');
const IMAGE_KEYS = { 'keys.d/ours.pub': ours.publicPem, 'keys.d/next.pub': next.publicPem };
const LABEL = 'published';
const LIBRARIES = 'usr/lib/x86_64-linux-gnu';

/** skopeo, which hostctl has apply its policy to a registry's images, and what it needs beside what the image has. */
async function skopeoFiles(): Promise<Files> {
  const root = await trixieRoot();
  const libraries = ['libassuan.so.9', 'libgpg-error.so.0', 'libgpgme.so.11', 'libsqlite3.so.0'];
  const paths = ['usr/bin/skopeo', ...libraries.map((name) => `${LIBRARIES}/${name}`)];
  const contents = await Promise.all(paths.map(async (path) => [path, await readFile(join(root, path))] as const));
  return {
    ...Object.fromEntries(contents),
    'etc/containers/policy.json': '{ "default": [ { "type": "insecureAcceptAnything" } ] }\n',
  };
}

describe.skipIf(reason !== undefined)('A machine that follows a publisher', () => {
  const chain = new GuestChain('published', say);
  let registry: TestRegistry;
  /** One image in each: of the first version and of the second, with skopeo. */
  let layouts: { readonly v1: string; readonly v2: string };
  let keys: { readonly ours: string; readonly next: string };
  /** Digests of the releases, by number; the machine begins with the first. */
  const digests: string[] = [];

  beforeAll(async () => {
    setup();
    const { folder } = chain;
    const image = await testImage(await buildPackage(folder), say, { trust: IMAGE_KEYS });
    keys = { ours: writeKey(folder, 'ours', ours), next: writeKey(folder, 'next', next) };
    layouts = { v1: join(folder, 'v1'), v2: join(folder, 'v2') };
    const skopeo = await skopeoFiles();
    for (const [tag, layout] of Object.entries(layouts)) {
      await cp(image.layout, layout, { recursive: true });
      await setOnlyTag(layout, 'os', await withLayer(layout, await taggedManifest(layout, tag), skopeo));
    }
    registry = await startRegistry();
    const host = withFakeVerity(testHost());
    const [sysroot, boot] = [join(folder, 'sysroot'), join(folder, 'boot')];
    for (const directory of [sysroot, boot]) mkdirSync(directory);
    await sealImage(host, {
      ...{ image: `oci:${layouts.v1}:os`, keys: [keys.ours], name: undefined, expires: undefined },
      ...{ securityVersion: 1, algorithms: ['sha512'] },
    });
    const { digest } = await deploy(host, {
      ...{ sysroot, boot, image: `oci:${layouts.v1}:os`, kargs: [`root=LABEL=${LABEL}`, 'rw'], algorithm: undefined },
      ...{ tries: 1, allowMissingVerity: false, stage: false },
    });
    digests[1] = digest;
    const entries = join(boot, 'loader/entries');
    await rename(join(entries, 'hostctl-00000001+1-0.conf'), join(entries, 'hostctl-00000001.conf'));
    const source = { sysroot, boot, loader: image.loader, algorithm: 'sha512', label: LABEL } as const;
    await makeOfflineDisk({ ...source, scratch: join(folder, 'scratch') }, chain.disk);
  });
  afterAll(() => registry.close());

  /** The registry as the machine reaches it. */
  const repository = (): string => `10.0.2.2:${registry.host.replace(/^.*:/, '')}/os`;

  /** What the publisher does on a machine of its own. */
  async function publisher(...args: readonly string[]): Promise<{ readonly digests: readonly string[] }> {
    const { exitCode, stdout, stderr } = await startHostctl({ folder: chain.folder, host: registry.host }, [
      ...args,
      '--json',
    ]).result;
    expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
    return JSON.parse(stdout) as { digests: string[] };
  }

  /** Pushes release `number`, the second version with these files besides, as `:NUMBER` and as what the tags lead to. */
  async function push(number: number, files: Files, ...tags: readonly string[]): Promise<void> {
    const copy = join(chain.folder, `release-${number}`);
    await run('cp', ['--archive', '--link', layouts.v2, copy]);
    const all = { ...files, 'usr/share/hostctl-test/published': `${number}\n` };
    await setOnlyTag(copy, 'release', await withLayer(copy, await taggedManifest(copy, 'os'), all));
    for (const tag of [String(number), ...tags]) {
      registry.push(`oci:${copy}:release`, `os:${tag}`, '--preserve-digests');
    }
  }

  /** Seals release `number` where it is, in the registry. */
  async function seal(number: number, key: string): Promise<void> {
    const { digests: sealed } = await publisher(
      ...['image', 'seal', `docker://${registry.host}/os:${number}`, '--key', key, '--hash', 'sha512'],
      ...['--name', repository(), '--security-version', '1'],
    );
    digests[number] = sealed[0]!.replace('v1-sha512-12:', '');
  }

  /** A network card with an address, and a registry that may be spoken to without TLS. */
  const connect = (): Step => ({
    name: 'connect',
    run: `mkdir -p /run/systemd/network /etc/containers
printf '[Match]\\nType=ether\\n[Network]\\nAddress=10.0.2.15/24\\nGateway=10.0.2.2\\n' >/run/systemd/network/test.network
printf '[[registry]]\\nlocation = "${repository().replace(/\/.*/, '')}"\\ninsecure = true\\n' >/etc/containers/registries.conf
systemctl start systemd-networkd && /usr/lib/systemd/systemd-networkd-wait-online --timeout=120`,
  });

  function boot(name: string, steps: readonly Step[]): Promise<GuestResult> {
    const common: readonly Step[] = [
      { name: 'root', run: 'findmnt -n -o SOURCE /' },
      { name: 'good', run: 'systemctl start hostctl-mark-good.service' },
      { name: 'status', run: 'hostctl status --json' },
      connect(),
    ];
    return chain.boot(name, {
      ...{ disks: [{ path: chain.disk }], steps: [...common, ...steps], hasNetwork: true, processors: 1 },
      ...{ shutDown: true, deadlineMs: 1_800_000 },
    });
  }

  /** Release `number` runs and is good, by a seal of this key. */
  function expectRelease(answers: Answers, number: number, key: string): void {
    expect(answers.ok('root')).toBe(`composefs:${digests[number]}\n`);
    const { booted, deployments } = statusOf(answers);
    expect(deployments.find(({ id }) => id === booted)).toMatchObject({
      ...{ state: 'good', problems: [], sealAtBoot: true },
      image: { signature: `sealed by ${key}` },
    });
  }

  test('takes what is sealed, and nothing before it is', async () => {
    await push(2, {}, 'stable');
    await push(3, {}, 'soon');
    await seal(2, keys.ours);
    const { answers } = await boot('installed', [
      { name: 'unsealed', run: `hostctl switch docker://${repository()}:soon`, mayFail: true },
      { name: 'verify', run: `hostctl image verify docker://${repository()}:stable` },
      { name: 'switch', run: `hostctl switch docker://${repository()}:stable` },
    ]);
    expectRelease(answers, 1, ours.id);
    expect(answers.of('unsealed')).toMatchObject({
      status: 3,
      output: expect.stringContaining('has no seal') as string,
    });
    expect(answers.ok('verify')).toContain(`sealed by  ${ours.id}\n`);
  });

  test('boots it, and follows the next key once the old one is gone', async () => {
    await seal(3, keys.next);
    await push(4, {}, 'old-key');
    await seal(4, keys.ours);
    registry.push(`oci:${chain.folder}/release-3:release`, 'os:stable', '--preserve-digests');
    const { answers } = await boot('first-release', [
      { name: 'retire', run: 'rm /etc/hostctl/keys.d/ours.pub' },
      { name: 'old-key', run: `hostctl switch docker://${repository()}:old-key`, mayFail: true },
      { name: 'upgrade', run: 'hostctl upgrade' },
    ]);
    expectRelease(answers, 2, ours.id);
    expect(answers.of('old-key')).toMatchObject({
      status: 3,
      output: expect.stringContaining(`signed by unknown keys only (${ours.id})`) as string,
    });
  });

  test('boots what the next key sealed, and learns that it is revoked by the release after it', async () => {
    const list = join(chain.folder, 'revoked');
    revokeImages({ file: list, digests: [`v1-sha512-12:${digests[3]}`], keys: [keys.next] });
    const files = {
      'etc/hostctl/revoked': await readFile(list),
      'etc/hostctl/revoked.sig': await readFile(`${list}.sig`),
    };
    await push(5, files, 'stable');
    await seal(5, keys.next);
    const { answers } = await boot('next-key', [{ name: 'upgrade', run: 'hostctl upgrade' }]);
    expectRelease(answers, 3, next.id);
  });

  test('does not go back to it by any command', async () => {
    const { answers } = await boot('revoking', [
      { name: 'listed', run: 'cat /sysroot/composefs/seals/revoked' },
      { name: 'rollback', run: 'hostctl rollback', mayFail: true },
      { name: 'switch', run: `hostctl switch docker://${repository()}:3`, mayFail: true },
    ]);
    expectRelease(answers, 5, next.id);
    expect(answers.ok('listed')).toContain(digests[3]);
    for (const step of ['rollback', 'switch']) {
      expect(answers.of(step)).toMatchObject({ status: 3, output: expect.stringContaining('revoked') as string });
    }
    expect(statusOf(answers).warnings).toMatchObject([{ code: 'image-revoked' }, { code: 'key-untrusted' }]);
  });

  test('nor boots it where an entry asks for it', async () => {
    const stopped = await StoppedDisk.open(chain.disk);
    const entries = await stopped.bootFiles('/loader/entries');
    const [newest] = entries.slice(-1);
    expect(entries.slice(-2)[0]).toBe('hostctl-00000003.conf');
    await stopped.renameBootFile(`/loader/entries/${newest}`, 'none.txt');
    const { serial } = await chain.boot('revoked', {
      ...{ disks: [{ path: chain.disk }], steps: [], expectNoBoot: true, stopAfter: 'Refusing to boot' },
      deadlineMs: 900_000,
    });
    expect(serial).toMatch(/Refusing to boot: .* \(image-revoked\)/);
    expect(serial).not.toContain('hostctl-mark-good');
  });
});
