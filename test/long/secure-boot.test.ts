/**
 * A machine whose firmware knows one key and starts nothing else: a unified kernel image that `image seal --uki` made and
 * that key signed boots the root it pins; changed by a byte, or made to pin another root, it is not started, and what an
 * entry says besides is of no effect. Disks and variables are made offline; what is judged happens in the machine.
 */

import { cp, mkdir, readdir, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { buildPackage } from '../../scripts/lib/deb.ts';
import { deploy } from '../../src/ops/deploy.ts';
import { sealImage } from '../../src/ops/seal-image.ts';
import { withFakeVerity } from '../helpers/fake-verity.ts';
import { testHost } from '../helpers/test-host.ts';
import { type Answers, type GuestResult, statusOf, type Step } from '../vm/lib/guest.ts';
import { blankDisk, makeExt4 } from '../vm/lib/disk.ts';
import { GuestChain } from '../vm/lib/guest-chain.ts';
import { DISK_MIB, INSTALL, installerWith, MOUNT_LAYOUT } from '../vm/lib/installed-disk.ts';
import { setOnlyTag, taggedManifest, withLayer } from '../vm/lib/layered-image.ts';
import { makeOfflineDisk } from '../vm/lib/offline-disk.ts';
import { reasonNoMachines } from '../vm/lib/requirements.ts';
import { StoppedDisk } from '../vm/lib/stopped-disk.ts';
import { testImage, type TestImage } from '../vm/lib/test-image.ts';
import { enroll, makeKeys, sign, SigningTools } from './lib/secure-boot.ts';

const say = (line: string): void => console.error(line);
const reason = await reasonNoMachines(say);
if (reason !== undefined) say(`Skipping the machines with Secure Boot: ${reason}`);

const LOADER = 'systemd-bootx64.efi';
const ENTRY = '/loader/entries/hostctl-00000002+1-0.conf';
const SECURE_BOOT = '/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c';
const STEPS: readonly Step[] = [
  { name: 'secure', run: `od -An -tu1 -j4 ${SECURE_BOOT}` },
  { name: 'cmdline', run: 'cat /proc/cmdline' },
  { name: 'root', run: 'findmnt -n -o SOURCE /' },
  { name: 'good', run: 'systemctl start hostctl-mark-good.service' },
  { name: 'status', run: 'hostctl status --json' },
];

describe.skipIf(reason !== undefined)('A machine with Secure Boot', () => {
  const chain = new GuestChain('secure-boot', say);
  /** Version 1 is good; version 2 is to be tried, once. */
  let original: string;
  /** Of version 2, on the boot partition. */
  let uki: string;
  let v1: string;
  let v2: string;
  let image: TestImage;
  /** systemd-boot, signed. */
  let loader: string;
  /** Puts a signed unified kernel image with these arguments into an image, and gives the digest of its root. */
  let unify: (reference: string, kargs: readonly string[]) => Promise<string>;

  beforeAll(async () => {
    const { folder } = chain;
    image = await testImage(await buildPackage(folder), say);
    const tools = await SigningTools.open(folder);
    const keys = await makeKeys(tools, folder);
    await enroll(tools, keys, folder);
    loader = join(folder, 'BOOTX64.EFI');
    await sign(tools, keys, image.loader, loader);
    const layout = join(folder, 'layout');
    await cp(image.layout, layout, { recursive: true });
    const host = tools.hostWith(withFakeVerity(testHost()));
    const [sysroot, boot] = [join(folder, 'sysroot'), join(folder, 'boot')];
    await mkdir(sysroot);
    await mkdir(boot);
    unify = async (reference, kargs) => {
      const { digests } = await sealImage(host, {
        ...{ image: reference, keys: [], name: undefined, securityVersion: 0, expires: undefined },
        algorithms: ['sha512'],
        uki: { secureBootKey: keys.key, secureBootCertificate: keys.certificate, kargs },
      });
      return digests.join().replace('v1-sha512-12:', '');
    };
    const put = async (tag: string): Promise<string> => {
      const reference = `oci:${layout}:${tag}`;
      const made = await unify(reference, ['root=LABEL=secure', 'rw']);
      const { digest } = await deploy(host, {
        ...{ sysroot, boot, image: reference, kargs: [], algorithm: undefined },
        ...{ tries: 1, allowMissingVerity: false, stage: false },
      });
      expect(made).toBe(digest);
      return digest;
    };
    v1 = await put('v1');
    const before = await readdir(join(boot, 'hostctl'));
    const entries = join(boot, 'loader/entries');
    await rename(join(entries, 'hostctl-00000001+1-0.conf'), join(entries, 'hostctl-00000001.conf'));
    v2 = await put('v2');
    const [directory] = (await readdir(join(boot, 'hostctl'))).filter((name) => !before.includes(name));
    uki = `/hostctl/${directory}/uki.efi`;
    original = join(folder, 'original.img');
    const source = { sysroot, boot, loader, algorithm: 'sha512', label: 'secure' } as const;
    await makeOfflineDisk({ ...source, scratch: join(folder, 'scratch') }, original);
  });

  async function boot(name: string, isRefused = false): Promise<GuestResult> {
    return chain.boot(name, {
      ...{ disks: [{ path: chain.disk }], steps: STEPS, firmware: 'secure-boot', processors: 1 },
      deadlineMs: isRefused ? 240_000 : 900_000,
      ...(isRefused ? { expectNoBoot: true, stopAfter: 'Error loading' } : {}),
    });
  }

  async function changed(edit: (stopped: StoppedDisk) => Promise<void>): Promise<void> {
    await chain.start(original);
    await edit(await StoppedDisk.open(chain.disk));
  }

  test('is installed by the image alone: its root is found by the type of the partition', async () => {
    const { folder } = chain;
    const layout = join(folder, 'installed');
    await cp(image.layout, layout, { recursive: true });
    const signed = { [`usr/lib/systemd/boot/efi/${LOADER}.signed`]: await readFile(loader) };
    await setOnlyTag(layout, 'os', await withLayer(layout, await taggedManifest(layout, 'v1'), signed));
    const digest = await unify(`oci:${layout}:os`, ['rw']);
    const layoutDisk = join(folder, 'installed.ext4');
    await makeExt4(layout, layoutDisk, { label: 'layout' });
    chain.forget();
    await blankDisk(chain.disk, DISK_MIB);
    const installed = await chain.boot('install', {
      ...installerWith(image, chain.disk, layoutDisk),
      steps: [
        { name: 'layout', run: MOUNT_LAYOUT },
        { name: 'install', run: `${INSTALL} oci:/run/layout:os` },
      ],
    });
    expect(installed.answers.ok('install')).toContain('has its own command line, and these are not in it: root=UUID=');
    const { answers } = await boot('installed');
    expect(answers.ok('secure').trim()).toBe('1');
    expect(answers.ok('root')).toBe(`composefs:${digest}\n`);
    expect(answers.ok('cmdline')).not.toContain('root=');
    expect(statusOf(answers)).toMatchObject({
      booted: 1,
      deployments: [{ id: 1, state: 'good', level: 'sealed-by-uki', problems: [] }],
    });
  });

  /** What started is version 2, by nothing but its own command line. */
  function expectV2(answers: Answers): void {
    expect(answers.ok('secure').trim()).toBe('1');
    expect(answers.ok('root')).toBe(`composefs:${v2}\n`);
    expect(answers.ok('cmdline')).toContain(`root=LABEL=secure rw composefs.digest=v1-sha512-12:${v2} `);
    expect(answers.ok('cmdline')).not.toContain(v1);
    expect(statusOf(answers)).toMatchObject({
      booted: 2,
      deployments: [
        { id: 2, state: 'good', level: 'sealed-by-uki', entry: { file: 'hostctl-00000002.conf' }, problems: [] },
        { id: 1, state: 'good', level: 'sealed-by-uki' },
      ],
    });
  }

  test('boots the root that a signed unified kernel image pins', async () => {
    await chain.start(original);
    expectV2((await boot('good')).answers);
  });

  test('ignores another digest that the entry passes', async () => {
    await changed((stopped) =>
      stopped.editBootFile(ENTRY, (text) => `${text}options composefs.digest=v1-sha512-12:${v1} rd.break\n`),
    );
    expectV2((await boot('entry')).answers);
  });

  test.each<readonly [string, (bytes: Buffer) => Buffer]>([
    ['one byte changed', (bytes) => replaced(bytes, 'hostctl test image 2', 'hostctl test image 3')],
    ['another digest in its command line', (bytes) => replaced(bytes, v2, v1)],
  ])('does not start it with %s, and its try is used up', async (name, edit) => {
    await changed((stopped) => stopped.editBootBytes(uki, edit));
    const word = name.replaceAll(/[^a-z]+/g, '-');
    const { serial } = await boot(word, true);
    expect(serial).toMatch(/Error loading .*uki\.efi.*(Access denied|Security violation)/i);
    expect(serial).not.toContain('Linux version');
    expect(await (await StoppedDisk.open(chain.disk)).bootFiles('/loader/entries')).toContain(
      'hostctl-00000002+0-1.conf',
    );
  });
});

/** The same file with other text of the same length in its place, once. */
function replaced(bytes: Buffer, from: string, to: string): Buffer {
  const at = bytes.indexOf(from, 0, 'latin1');
  if (at < 0) throw new Error(`"${from}" is not in the file`);
  const copy = Buffer.from(bytes);
  copy.write(to, at, 'latin1');
  return copy;
}
