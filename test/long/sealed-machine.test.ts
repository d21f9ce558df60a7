/**
 * Machines whose initramfs holds keys, made by dracut from the image's own `/etc`: a good seal boots, and whatever is
 * wrong with it is refused with its reason on the console, after which the previous deployment boots. Disks get their
 * fs-verity offline; everything that is judged happens in the guest.
 */

import { cp, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { buildPackage } from '../../scripts/lib/deb.ts';
import { run } from '../../scripts/lib/run.ts';
import { listEntries } from '../../src/deploy/boot-entries.ts';
import { openSysroot } from '../../src/deploy/sysroot.ts';
import { deploy } from '../../src/ops/deploy.ts';
import { sealImage } from '../../src/ops/seal-image.ts';
import { withFakeVerity } from '../helpers/fake-verity.ts';
import { flipped, knownKey, signatures, writeKey } from '../helpers/seal-keys.ts';
import { testHost } from '../helpers/test-host.ts';
import { type GuestResult, KERNEL_DEATH, type Step } from '../vm/lib/guest.ts';
import { GuestChain } from '../vm/lib/guest-chain.ts';
import { LAYOUT_SERIAL, MOUNT_LAYOUT } from '../vm/lib/installed-disk.ts';
import { makeExt4 } from '../vm/lib/disk.ts';
import { makeOfflineDisk } from '../vm/lib/offline-disk.ts';
import { reasonNoMachines } from '../vm/lib/requirements.ts';
import { StoppedDisk } from '../vm/lib/stopped-disk.ts';
import { testImage } from '../vm/lib/test-image.ts';

const say = (line: string): void => console.error(line);
const reason = await reasonNoMachines(say);
if (reason !== undefined) say(`Skipping the sealed machines: ${reason}`);

const ours = knownKey('ours');
const foreign = knownKey('foreign');

describe.skipIf(reason !== undefined)('A machine whose initramfs holds keys', () => {
  const chain = new GuestChain('sealed', say);
  /** Version 1 is good and is what the machine falls back to; version 2 has one try. */
  let original: string;
  let layouts: string;
  let v1: string;
  let v2: string;

  beforeAll(async () => {
    const { folder } = chain;
    const image = await testImage(await buildPackage(folder), say, { trust: { 'keys.d/test.pub': ours.publicPem } });
    const layout = join(folder, 'layout');
    await cp(image.layout, layout, { recursive: true });
    const key = writeKey(folder, 'ours', ours);
    const host = withFakeVerity(testHost());
    const seal = (tag: string, securityVersion: number): Promise<unknown> =>
      sealImage(host, {
        ...{ image: `oci:${layout}:${tag}`, keys: [key], name: undefined, expires: undefined },
        ...{ securityVersion, algorithms: ['sha512'] },
      });
    await seal('v1', 1);
    await seal('v2', 2);
    const sysroot = join(folder, 'sysroot');
    const boot = join(folder, 'boot');
    await mkdir(sysroot);
    await mkdir(boot);
    const put = async (tag: string): Promise<string> => {
      const { digest } = await deploy(host, {
        ...{ sysroot, boot, image: `oci:${layout}:${tag}`, kargs: ['root=LABEL=sealed', 'rw'], algorithm: undefined },
        ...{ tries: 1, allowMissingVerity: false, stage: false },
      });
      return digest;
    };
    v1 = await put('v1');
    const entries = listEntries(openSysroot(host, { sysroot, boot }).boot).entries;
    const [first] = entries;
    await run('mv', [`${boot}/loader/entries/${first?.file}`, `${boot}/loader/entries/${first?.name.id}.conf`]);
    v2 = await put('v2');
    original = join(folder, 'original.img');
    await makeOfflineDisk(
      {
        ...{ sysroot, boot, loader: image.loader, algorithm: 'sha512', label: 'sealed' },
        scratch: join(folder, 'scratch'),
      },
      original,
    );
    await seal('v1', 0);
    layouts = join(folder, 'layout.ext4');
    await makeExt4(layout, layouts, { label: 'layout' });
  });

  async function boot(name: string, steps: readonly Step[], expectNoBoot = false): Promise<GuestResult> {
    const disks = [{ path: chain.disk }, { path: layouts, serial: LAYOUT_SERIAL }];
    const guest = await chain.boot(name, { disks, steps, expectNoBoot, deadlineMs: 900_000 });
    if (expectNoBoot) expect(guest.ended).toBe(true);
    return guest;
  }

  const COMMON: readonly Step[] = [
    { name: 'cmdline', run: 'cat /proc/cmdline' },
    { name: 'root', run: 'findmnt -n -o SOURCE /' },
    { name: 'status', run: 'hostctl status --json' },
  ];

  test('boots a good seal, verifies it once more, and refuses to go back below the floor', async () => {
    await chain.start(original);
    const { answers } = await boot('good', [
      ...COMMON,
      { name: 'good', run: 'systemctl start hostctl-mark-good.service && cat /sysroot/state/hostctl/floor' },
      { name: 'verify', run: `hostctl image verify ${v2}` },
      { name: 'lower', run: `${MOUNT_LAYOUT} && hostctl switch oci:/run/layout:v1`, mayFail: true },
      { name: 'unsealed', run: 'hostctl status' },
    ]);
    expect(answers.ok('root')).toBe(`composefs:${v2}\n`);
    const status = JSON.parse(answers.ok('status')) as { booted: number; deployments: object[] };
    expect(status.booted).toBe(2);
    expect(status.deployments[0]).toMatchObject({
      image: { signature: `sealed by ${ours.id}` },
      level: 'pinned',
      sealAtBoot: true,
      problems: [],
    });
    expect(answers.ok('good')).toContain('version = 2\n');
    expect(answers.ok('verify')).toContain(`sealed by  ${ours.id}\n`);
    expect(answers.of('lower')).toMatchObject({
      status: 8,
      output: expect.stringContaining('security version 0') as string,
    });
  });

  const seal = (digest: string): string => `/composefs/seals/${digest}`;
  const entry = '/loader/entries/hostctl-00000002+1-0.conf';
  const text = async (path: string): Promise<string> => (await StoppedDisk.open(chain.disk)).read(path);
  const refusals: [string, (stopped: StoppedDisk) => Promise<void>, string][] = [
    ['a missing seal', (stopped) => stopped.unlink(seal(v2)), 'seal-missing'],
    [
      'a seal by another key',
      async (stopped) => {
        const bytes = Buffer.from(await text(seal(v2)));
        await stopped.replace(`${seal(v2)}.sig`, Buffer.from(signatures(bytes, foreign)).toString());
      },
      'seal-invalid',
    ],
    [
      'one bit changed in the seal',
      async (stopped) => stopped.replace(seal(v2), changed(await text(seal(v2)), 200)),
      'seal-invalid',
    ],
    [
      'one bit changed in the signature',
      async (stopped) => stopped.replace(`${seal(v2)}.sig`, changed(await text(`${seal(v2)}.sig`), 80)),
      'seal-invalid',
    ],
    [
      'a seal cut short',
      async (stopped) => stopped.replace(seal(v2), (await text(seal(v2))).slice(0, 40)),
      'seal-invalid',
    ],
    [
      'the seal of the other version',
      async (stopped) => {
        await stopped.replace(seal(v2), await text(seal(v1)));
        await stopped.replace(`${seal(v2)}.sig`, await text(`${seal(v1)}.sig`));
      },
      'seal-invalid',
    ],
    [
      'one bit changed in the image',
      (stopped) => stopped.flipByte(`/composefs/objects/${v2.slice(0, 2)}/${v2.slice(2)}`, 1030),
      'mount-failed',
    ],
    [
      '"?" on the command line',
      (stopped) => stopped.editBootFile(entry, (old) => old.replace('digest=v1', 'digest=?v1')),
      'cmdline-invalid',
    ],
    [
      'no digest argument at all',
      (stopped) => stopped.editBootFile(entry, (old) => old.replace(/composefs\.digest=\S+/, 'quiet')),
      'cmdline-invalid',
    ],
  ];
  /** Boots version 2 after `tamper`, which is refused; what the console says. */
  async function refused(name: string, tamper: (stopped: StoppedDisk) => Promise<void>): Promise<string> {
    for (let attempt = 1; ; attempt += 1) {
      await chain.start(original);
      await tamper(await StoppedDisk.open(chain.disk));
      const { serial } = await boot(name.replaceAll(/[^a-z]+/g, '-'), COMMON, true);
      // The emulator's own death of a kernel says nothing about seals, and has used up the try.
      if (attempt > 1 || !KERNEL_DEATH.test(serial)) return serial;
    }
  }

  test.each(refusals)('refuses %s with its reason on the console', async (name, tamper, code) => {
    expect(await refused(name, tamper)).toMatch(new RegExp(`Refusing to boot: .* \\(${code}\\)`));
    expect(await (await StoppedDisk.open(chain.disk)).bootFiles('/loader/entries')).toContain(
      'hostctl-00000002+0-1.conf',
    );
  });

  test('then boots the previous deployment, and says why', async () => {
    await refused('before the fallback', (stopped) => stopped.unlink(seal(v2)));
    const { answers } = await boot('fallback', COMMON);
    expect(answers.ok('root')).toBe(`composefs:${v1}\n`);
    expect(JSON.parse(answers.ok('status'))).toMatchObject({
      booted: 1,
      deployments: [
        { id: 2, state: 'failed', image: { signature: 'broken' } },
        { id: 1, state: 'good' },
      ],
    });
    expect(answers.ok('status')).toContain('has no seal in the repository (seal-missing)');
  });
});

function changed(content: string, at: number): string {
  return Buffer.from(flipped(Buffer.from(content), at)).toString();
}
