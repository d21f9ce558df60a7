/** The verbs that judge a boot, on a machine whose loader, boots and disk are the test's to say. */

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { beforeEach, expect, test, vi } from 'vitest';
import { withChecksum } from '../../src/format/checksum.ts';
import { checkBoot } from '../../src/ops/check-boot.ts';
import { countBoot } from '../../src/ops/count-boot.ts';
import { fsck } from '../../src/ops/fsck.ts';
import { gc } from '../../src/ops/gc.ts';
import { markFailed } from '../../src/ops/mark-failed.ts';
import { markGood } from '../../src/ops/mark-good.ts';
import { rollback } from '../../src/ops/rollback.ts';
import { checkUpgrade } from '../../src/ops/upgrade.ts';
import type { Host } from '../../src/sys/host.ts';
import type { MountEntry } from '../../src/sys/mounts.ts';
import { bless } from '../helpers/bless.ts';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { scratchSysroot, type ScratchSysroot } from '../helpers/scratch-sysroot.ts';
import { snapshot } from '../helpers/snapshot.ts';

vi.mock('../../src/deploy/sysroot.ts', async (original) =>
  (await import('../model/running.ts')).asRunning(await original()),
);

let sysroot: ScratchSysroot;
/** Answers of systemctl, by the first argument that is not an option. */
let units: Record<string, string>;
let boots = 0;

const utf16 = (text: string): Uint8Array => Buffer.from(`${text}\0`, 'utf16le');
const path = (name: string): string => `${sysroot.path}/boot/loader/entries/${name}`;
const record = (name: string): string => readFileSync(`${sysroot.path}/state/hostctl/${name}`, 'utf8');
const options = () => ({ sysroot: sysroot.path });

/** A machine on which version 1 is good and version 2 has `tries`, the newer one not booted yet. */
beforeEach(async () => {
  units = { 'list-units': '' };
  sysroot = scratchSysroot();
  await sysroot.deploy(bootableLayout({ version: '1' }).reference);
  bless(sysroot, 1);
}, 60_000);

async function update(tries = 3, version = '2'): Promise<string> {
  const { reference } = bootableLayout({ version });
  await sysroot.deploy(reference, { tries });
  return reference;
}

/** What the loader makes of an entry, and the machine that it then boots. */
function boot(entry: string, counted = entry, variables: Record<string, Uint8Array> = {}): Host {
  if (counted !== entry) renameSync(path(entry), path(counted));
  const text = readFileSync(path(counted), 'utf8');
  boots += 1;
  const bootId = `boot-${boots}`;
  const cmdline = /^options (.*)$/m.exec(text)?.[1] ?? '';
  const digest = /composefs\.digest=\??v1-sha512-12:(\w+)/.exec(cmdline)?.[1] ?? '';
  const isCounted = /\+/.test(counted);
  const all: Record<string, Uint8Array> = {
    LoaderEntrySelected: utf16(entry),
    ...(isCounted ? { LoaderBootCountPath: utf16(`\\loader\\entries\\${counted}`) } : {}),
    ...variables,
  };
  return {
    ...sysroot.host,
    bootId: () => bootId,
    kernelCmdline: () => cmdline,
    loaderVariable: (name) => all[name],
    mounts: { ...sysroot.host.mounts, table: () => [...sysroot.host.mounts.table(), rootMount(digest)] },
    exec: {
      ...sysroot.host.exec,
      run(program, args, more) {
        if (program !== 'systemctl') return sysroot.host.exec.run(program, args, more);
        const key = args.includes('--state=activating') ? 'activating' : args[0] === 'show' ? args.at(-1) : args[0];
        return Promise.resolve({ exitCode: 0, stdout: units[key ?? ''] ?? '', stderr: '' });
      },
    },
  };
}

function rootMount(digest: string, more: Partial<MountEntry> = {}): MountEntry {
  return {
    mountPoint: '/',
    root: '/',
    type: 'overlay',
    source: `composefs:${digest}`,
    options: ['ro'],
    superOptions: ['ro', 'verity=require'],
    device: '0:30',
    isShared: false,
    ...more,
  };
}

const failed = (host: Host) => markFailed(host, { ...options(), requiredUnits: [] });

test('the tries of an update are counted, and a reason is kept until the boot is good', async () => {
  await update();
  const first = boot('hostctl-00000002+3-0.conf', 'hostctl-00000002+2-1.conf');
  const counted = { id: 2, decision: 'try', attempts: 1, tries: 3, rollback: undefined };
  expect(await countBoot(first, options())).toEqual(counted);
  expect(await countBoot(first, options())).toEqual(counted);
  units['list-units'] = 'x.service loaded failed failed Something\n';
  expect(await failed(first)).toEqual({
    id: 2,
    decision: 'next-try',
    code: 'unit-failed',
    message: 'Units failed: x.service',
  });
  expect(sysroot.status().deployments[0]).toMatchObject({
    state: 'trying',
    triesLeft: 2,
    problems: [{ code: 'boot-failed', message: 'The last boot failed: Units failed: x.service (unit-failed)' }],
  });

  const second = boot('hostctl-00000002+2-1.conf', 'hostctl-00000002+1-2.conf');
  expect((await countBoot(second, options())).attempts).toBe(2);
  expect(await markGood(second, options())).toEqual({ id: 2, entryFile: 'hostctl-00000002.conf', failed: null });
  expect(sysroot.status().deployments[0]).toMatchObject({ state: 'good', problems: [] });
  expect(readdirSync(`${sysroot.path}/state/hostctl`).filter((name) => name.startsWith('trial-'))).toEqual([]);
});

test('what the initramfs may go back to is what is good, the newest first', async () => {
  await update();
  await markGood(boot('hostctl-00000002+3-0.conf', 'hostctl-00000002+2-1.conf'), options());
  const [second, first] = sysroot.status().deployments.map(({ composefs }) => composefs.digest);
  writeFileSync(`${sysroot.path}/state/hostctl/fallback-tried`, '');
  expect((await fsck(sysroot.host, { ...options(), deep: false, repair: false })).findings).toEqual([]);
  await markGood(boot('hostctl-00000002.conf'), options());
  const lines = `hostctl-00000002.conf ${second}\nhostctl-00000001.conf ${first}\n`;
  expect(record('fallback')).toBe(withChecksum(lines, '#'));
  expect(existsSync(`${sysroot.path}/state/hostctl/fallback-tried`)).toBe(false);
});

/** Boots the update once more than it has tries, by a loader that starts what is used up. */
async function beyondItsTries(): Promise<Host> {
  let name = 'hostctl-00000002+2-0.conf';
  for (const counted of ['hostctl-00000002+1-1.conf', 'hostctl-00000002+0-2.conf']) {
    const host = boot(name, counted);
    await countBoot(host, options());
    await failed(host);
    name = counted;
  }
  return boot(name, 'hostctl-00000002+0-3.conf');
}

test('a loader that starts an update beyond its tries is overruled, once', async () => {
  await update(2);
  units['list-units'] = 'x.service loaded failed failed Something\n';
  const host = await beyondItsTries();
  expect(await countBoot(host, options())).toEqual({
    id: 2,
    decision: 'roll-back',
    attempts: 3,
    tries: 2,
    rollback: 1,
  });
  expect(sysroot.entries()).toEqual(['hostctl-00000001.conf', 'hostctl-00000002+0-3.conf', 'hostctl-00000003.conf']);
  const document = sysroot.status();
  expect(document.deployments.map(({ id, state, entry }) => [id, state, entry?.file])).toEqual([
    [2, 'failed', 'hostctl-00000002+0-3.conf'],
    [1, 'good', 'hostctl-00000003.conf'],
  ]);
  expect(document.warnings.map(({ code, message }) => [code, /\): (.*)$|: (.*)$/.exec(message)?.[2]])).toEqual([
    ['boot-failed', 'Units failed: x.service (unit-failed)'],
  ]);
  // Should it start that once more, it stays up.
  const again = boot('hostctl-00000002+0-3.conf', 'hostctl-00000002+0-4.conf');
  const before = sysroot.entries();
  expect(await countBoot(again, options())).toMatchObject({ decision: 'stay', attempts: 4 });
  expect(await failed(again)).toMatchObject({ decision: 'stay' });
  expect(sysroot.entries()).toEqual(before);
});

test('an update beyond its tries is left also where what is staged cannot be dropped', async () => {
  await update(2);
  const host = await beyondItsTries();
  const staged = `${sysroot.path}/state/hostctl/staged`;
  mkdirSync(staged);
  // What is mounted cannot be removed.
  execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', staged]);
  try {
    expect(await countBoot(host, options())).toMatchObject({ decision: 'roll-back', rollback: 1 });
  } finally {
    execFileSync('umount', [staged]);
  }
  expect(sysroot.entries()).toContain('hostctl-00000003.conf');
});

test('a rollback that was cut off before its entry had a name is made again', async () => {
  await update(2);
  const host = await beyondItsTries();
  await countBoot(host, options());
  rmSync(path('hostctl-00000003.conf'));
  rmSync(`${sysroot.path}/state/hostctl/history`, { recursive: true });
  const again = boot('hostctl-00000002+0-3.conf', 'hostctl-00000002+0-4.conf');
  expect(await countBoot(again, options())).toMatchObject({ decision: 'roll-back', rollback: 1 });
  expect(sysroot.entries()).toContain('hostctl-00000003.conf');
});

test('without anything good to go back to, an update that fails stays up', async () => {
  sysroot = scratchSysroot();
  await sysroot.deploy(bootableLayout({ version: '1' }).reference, { tries: 1 });
  const first = boot('hostctl-00000001+1-0.conf', 'hostctl-00000001+0-1.conf');
  await countBoot(first, options());
  expect(await failed(first)).toMatchObject({ decision: 'next-try', code: 'timeout' });
  const second = boot('hostctl-00000001+0-1.conf', 'hostctl-00000001+0-2.conf');
  expect(await countBoot(second, options())).toMatchObject({ decision: 'stay', attempts: 2, tries: 1 });
  expect(await failed(second)).toMatchObject({ decision: 'stay' });
  expect(sysroot.entries()).toEqual(['hostctl-00000001+0-2.conf']);
});

test('a deployment that was good is not counted and not rebooted, whatever fails in it', async () => {
  await update();
  const host = boot('hostctl-00000001.conf');
  const before = snapshot(sysroot.path);
  expect(await countBoot(host, options())).toMatchObject({ id: 1, decision: 'none' });
  expect(await failed(host)).toMatchObject({ id: 1, decision: 'stay' });
  const after = snapshot(sysroot.path);
  expect(after).toEqual(before);
});

/** The update of one try failed by itself; the good deployment runs again. */
async function back(): Promise<Host> {
  renameSync(path('hostctl-00000002+1-0.conf'), path('hostctl-00000002+0-1.conf'));
  const host = boot('hostctl-00000001.conf');
  await markGood(host, options());
  return host;
}

test('back on the good one, everybody knows which digest failed, how often and why', async () => {
  await update(1);
  const host = boot('hostctl-00000001.conf');
  renameSync(path('hostctl-00000002+1-0.conf'), path('hostctl-00000002+0-1.conf'));
  const [{ composefs } = { composefs: { digest: '' } }] = sysroot.status().deployments;
  const metricsFile = `${sysroot.path}/metrics.prom`;
  const { failed: told } = await markGood(host, { ...options(), metricsFile });
  const why = 'Its only boot did not come to an end: the kernel, the initramfs or a service failed or hung';
  expect(told).toMatchObject({ id: 2, digest: composefs.digest, attempts: 1, code: 'incomplete', message: why });
  const line = `Deployment 2 (${composefs.digest}) failed to boot once and was left by itself: ${why} (incomplete)`;
  expect(sysroot.host.warnings.at(-1)).toBe(line);
  expect(sysroot.status().warnings).toMatchObject([{ code: 'boot-failed', message: line }]);
  const labels = `{id="2",digest="${composefs.digest}",reason="incomplete"}`;
  const values = readFileSync(metricsFile, 'utf8')
    .split('\n')
    .filter((each) => !each.startsWith('#'));
  expect(values).toEqual([`hostctl_boot_failed${labels} 1`, `hostctl_boot_failures${labels} 1`, '']);
});

test('the reason that the initramfs left is the one that is told', async () => {
  await update(1);
  const [{ composefs } = { composefs: { digest: '' } }] = sysroot.status().deployments;
  const text = `version=1\nreason=image-missing\nmessage=The image is gone\ndigest=${composefs.digest}\n`;
  writeFileSync(`${sysroot.path}/state/hostctl/boot-failure-${composefs.digest}`, text);
  await back();
  expect(sysroot.status().warnings[0]?.message).toMatch(/: The image is gone \(image-missing\)$/);
});

test('an update that has lost its state is told of by name too, and not taken again', async () => {
  const reference = await update(1);
  const [{ composefs } = { composefs: { digest: '' } }] = sysroot.status().deployments;
  rmSync(`${sysroot.path}/state/deploy/${composefs.digest}`, { recursive: true });
  const text = `version=1\nreason=state-missing\nmessage=It is gone\ndigest=${composefs.digest}\n`;
  writeFileSync(`${sysroot.path}/state/hostctl/boot-failure-${composefs.digest}`, text);
  const host = await back();
  const line = `Deployment 2 (${composefs.digest}) failed to boot once and was left by itself: It is gone (state-missing)`;
  expect(sysroot.host.warnings.at(-1)).toBe(line);
  expect(sysroot.status().warnings).toMatchObject([{ code: 'boot-failed', message: line }]);
  track(1, reference);
  const avoided = expect.stringContaining('failed to boot as deployment 2: It is gone') as string;
  const check = checkUpgrade(host, { ...options(), image: undefined, tag: undefined });
  expect(await check).toMatchObject({ isNew: false, avoided });
});

test('an update that the loader left out has failed too', async () => {
  await update(3);
  rmSync(`${sysroot.path}/boot/hostctl`, { recursive: true });
  // Both have the same kernel; the good one runs already.
  const { failed: told } = await markGood(boot('hostctl-00000001.conf'), options());
  expect(told).toMatchObject({ id: 2, attempts: 0, code: 'entry-skipped' });
  expect(sysroot.status().deployments[0]?.state).toBe('failed');
});

/** Has a deployment follow `reference`, as if it had been deployed when that led elsewhere. */
function track(id: number, reference: string): void {
  const deployments = `${sysroot.path}/state/deploy`;
  for (const state of readdirSync(deployments)) {
    const file = readdirSync(`${deployments}/${state}`).find((name) => name.endsWith('.origin')) ?? '';
    const text = readFileSync(`${deployments}/${state}/${file}`, 'utf8');
    if (!new RegExp(`^id = ${id}$`, 'm').test(text)) continue;
    writeFileSync(`${deployments}/${state}/${file}`, text.replace(/oci:\S+/, reference));
  }
}

test('what failed is not taken again by itself, not even when it is gone, until another image was tried', async () => {
  const reference = await update(1);
  const host = await back();
  const check = () => checkUpgrade(host, { ...options(), image: undefined, tag: undefined });
  const avoided = expect.stringMatching(/failed to boot as deployment 2: Its only boot/) as string;
  track(1, reference);
  expect(await check()).toMatchObject({ isNew: false, avoided });
  rmSync(path('hostctl-00000002+0-1.conf'));
  await gc(host, { ...options(), keep: 2, dryRun: false });
  expect(sysroot.status().deployments.map(({ id }) => id)).toEqual([1]);
  expect(readdirSync(`${sysroot.path}/state/hostctl`).filter((each) => each.startsWith('trial-'))).toEqual([]);
  expect(await check()).toMatchObject({ isNew: false, avoided });
  expect(sysroot.status().warnings.map(({ code }) => code)).toEqual(['boot-failed']);

  // The same image as before is no other one.
  await sysroot.deploy(bootableLayout({ version: '1' }).reference, { kargs: ['debug'] });
  track(3, reference);
  expect(await check()).toMatchObject({ isNew: false, avoided });
  await update(3, '3');
  track(4, reference);
  expect(sysroot.status().warnings).toEqual([]);
  expect(await check()).toMatchObject({ isNew: true, avoided: null });
});

test('going to what failed by hand begins its tries anew', async () => {
  await update(2);
  units['list-units'] = 'x.service loaded failed failed Something\n';
  await countBoot(await beyondItsTries(), options());
  await rollback(boot('hostctl-00000003.conf'), { ...options(), to: '2' });
  expect(sysroot.status().deployments[0]).toMatchObject({ id: 2, state: 'trying', triesLeft: 3 });
  const host = boot('hostctl-00000004+3-0.conf', 'hostctl-00000004+2-1.conf');
  expect(await countBoot(host, options())).toMatchObject({ decision: 'try', attempts: 1, tries: 3 });
});

test('a record that is broken does not keep a boot from being judged', async () => {
  await update(1);
  const name = `trial-${sysroot.status().deployments[0]?.composefs.digest}`;
  writeFileSync(`${sysroot.path}/state/hostctl/${name}`, 'nonsense');
  expect(sysroot.status().deployments[0]?.problems.map(({ code }) => code)).toEqual(['trial-unreadable']);
  const host = boot('hostctl-00000002+1-0.conf', 'hostctl-00000002+0-1.conf');
  expect(await countBoot(host, options())).toMatchObject({ decision: 'try', attempts: 1 });
  expect(sysroot.status().deployments[0]?.problems).toEqual([]);
});

/** The host that booted the good one, with this as its root. */
function withRoot(more: Partial<MountEntry>, cmdline = (text: string) => text): Host {
  const host = boot('hostctl-00000001.conf');
  const digest = sysroot.status().deployments.at(-1)?.composefs.digest ?? '';
  const table = () => [...sysroot.host.mounts.table(), rootMount(digest, more)];
  return { ...host, kernelCmdline: () => cmdline(host.kernelCmdline()), mounts: { ...host.mounts, table } };
}

const required = (text: string): string => text.replace('composefs.digest=?', 'composefs.digest=');

test.each<[string, Partial<MountEntry>, (text: string) => string, string | undefined]>([
  ['the pinned image, verified', {}, required, undefined],
  ['the pinned image, not verified', { superOptions: ['ro'] }, required, 'verity-mismatch'],
  ['the pinned image, not verified, as the deployment says', { superOptions: ['ro'] }, (text) => text, undefined],
  ['another image', { source: `composefs:${'0'.repeat(128)}` }, required, 'verity-mismatch'],
  ['another file system', { type: 'ext4' }, required, 'verity-mismatch'],
  ['under a root of systemd', { type: 'ext4' }, (text) => `${text} systemd.volatile=overlay`, undefined],
])('a boot whose root is %s', async (_, mount, cmdline, code) => {
  const check = checkBoot(withRoot(mount, cmdline), { requiredUnits: [] });
  if (code === undefined) await expect(check).resolves.toMatchObject({ requiredUnits: [] });
  else await expect(check).rejects.toMatchObject({ code });
});

test('a boot with a failed unit that the host requires is no good one; others are its own affair', async () => {
  units = {
    'a.service': 'ActiveState=active\nJob=\n',
    'b.service': 'ActiveState=failed\nJob=\n',
    'c.service': 'ActiveState=inactive\nJob=\n',
  };
  const host = boot('hostctl-00000001.conf');
  await expect(checkBoot(host, { requiredUnits: ['a.service', 'c.service'] })).resolves.toBeDefined();
  await expect(checkBoot(host, { requiredUnits: ['a.service', 'b.service'] })).rejects.toMatchObject({
    code: 'state-invalid',
    message: 'Failed although required: b.service',
  });
});

test('a unit that is still starting is waited for', async () => {
  units = { 'a.service': 'ActiveState=activating\nJob=17\n' };
  const host = boot('hostctl-00000001.conf');
  const check = checkBoot(host, { requiredUnits: ['a.service'] });
  await new Promise((resolve) => setImmediate(resolve));
  units = { 'a.service': 'ActiveState=failed\nJob=\n' };
  await expect(check).rejects.toMatchObject({ code: 'state-invalid' });
});
