/** The verbs between deployments, on a sysroot that does not run: staging, finalizing, unstaging, upgrade, switch. */

import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { describe, expect, onTestFinished, test } from 'vitest';
import { openSysroot } from '../../src/deploy/sysroot.ts';
import { HostctlError } from '../../src/errors.ts';
import { finalizeStaged } from '../../src/ops/finalize-staged.ts';
import { history } from '../../src/ops/history.ts';
import { rollback, rollbackPlan } from '../../src/ops/rollback.ts';
import { unstage } from '../../src/ops/unstage.ts';
import { checkUpgrade, planUpgrade, takeDownloaded, upgrade } from '../../src/ops/upgrade.ts';
import type { Host } from '../../src/sys/host.ts';
import { bless } from '../helpers/bless.ts';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { scratchSysroot, type ScratchSysroot } from '../helpers/scratch-sysroot.ts';
import { snapshot } from '../helpers/snapshot.ts';
import { tarFile } from '../helpers/tar-builder.ts';
import { upgradeOptions } from '../helpers/upgrade-options.ts';

const one = (): string => bootableLayout({ version: '1' }).reference;
const two = (): string => bootableLayout({ version: '2' }).reference;

/** One reference whose image is replaced in the course of time. */
function tracked(version: string): { readonly reference: string; readonly replace: (version: string) => void } {
  const directory = scratchDir();
  const { reference } = bootableLayout({ version, directory });
  return {
    reference,
    replace: (newer) => {
      rmSync(directory, { recursive: true });
      mkdirSync(directory);
      bootableLayout({ version: newer, directory });
    },
  };
}

const finalize = (sysroot: ScratchSysroot): ReturnType<typeof finalizeStaged> =>
  finalizeStaged(sysroot.host, { sysroot: sysroot.path, etcPolicy: {} });

/** Its `syncfs` fails once, when it is called the given time. */
function failingAt(host: Host, flush: number): Host {
  let calls = 0;
  const syncfs: Host['syscalls']['syncfs'] = (fd, path) => {
    calls += 1;
    if (calls === flush) throw new HostctlError('io', 'injected');
    host.syscalls.syncfs(fd, path);
  };
  return { ...host, syscalls: { ...host.syscalls, syncfs } };
}

/** Version 1 was good; version 2 was upgraded to and has not booted yet. */
async function upgradedSysroot(): Promise<{ sysroot: ScratchSysroot; layout: ReturnType<typeof tracked> }> {
  const sysroot = scratchSysroot();
  const layout = tracked('1');
  await sysroot.deploy(layout.reference);
  bless(sysroot, 1);
  layout.replace('2');
  await upgrade(sysroot.host, upgradeOptions(sysroot));
  return { sysroot, layout };
}

/** Everything but what is written for information only. */
function facts(sysroot: ScratchSysroot): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(snapshot(sysroot.path)).filter(([name]) => !name.startsWith('state/hostctl/lock-holder')),
  );
}

describe('a staged deployment', () => {
  test('changes nothing about the next boot until it is finalized', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(one());
    const staged = await sysroot.deploy(two(), { stage: true });
    expect(staged).toMatchObject({ changed: true, id: 2, isStaged: true, unstaged: null });
    expect(sysroot.entries()).toEqual(['hostctl-00000001+3-0.conf', 'hostctl-00000002+3-0.conf.staged']);
    const document = sysroot.status();
    expect(document).toMatchObject({ next: 1, staged: 2, warnings: [] });
    expect(document.deployments[0]).toMatchObject({
      id: 2,
      state: 'staged',
      problems: [],
      entry: { file: 'hostctl-00000002+3-0.conf' },
    });

    expect(await finalize(sysroot)).toEqual({ changed: true, id: 2, reason: 'finalized' });
    expect(sysroot.entries()).toEqual(['hostctl-00000001+3-0.conf', 'hostctl-00000002+3-0.conf']);
    expect(sysroot.status()).toMatchObject({ next: 2, staged: null, warnings: [] });
    expect(await finalize(sysroot)).toEqual({ changed: false, id: null, reason: 'nothing-staged' });
  });

  test('gets the changes of /etc that are made after it was staged, and only those that still stand', async () => {
    const sysroot = scratchSysroot();
    const first = await sysroot.deploy(one());
    const live = `${sysroot.path}/state/deploy/${first.digest}/etc`;
    writeFileSync(`${live}/taken-back`, 'before staging');
    const second = await sysroot.deploy(two(), { stage: true });
    rmSync(`${live}/taken-back`);
    writeFileSync(`${live}/hostname`, 'late\n');
    rmSync(`${live}/motd`);
    await finalize(sysroot);
    expect(snapshot(`${sysroot.path}/state/deploy/${second.digest}/etc`)).toEqual(snapshot(live));
  });

  test.each([
    ['half merged', (state: string) => writeFileSync(`${state}/etc/from-the-first-attempt`, 'x')],
    ['without /etc', (state: string) => rmSync(`${state}/etc`, { recursive: true })],
  ])('gets a whole /etc after an attempt that was cut off and left it %s', async (_, damage) => {
    const sysroot = scratchSysroot();
    const first = await sysroot.deploy(one());
    const live = `${sysroot.path}/state/deploy/${first.digest}/etc`;
    writeFileSync(`${live}/hostname`, 'mine\n');
    const second = await sysroot.deploy(two(), { stage: true });
    const state = `${sysroot.path}/state/deploy/${second.digest}`;
    writeFileSync(`${state}/etc-merged`, '');
    damage(state);
    expect(sysroot.status().deployments.flatMap(({ problems }) => problems)).toEqual([]);
    await finalize(sysroot);
    expect(snapshot(`${state}/etc`)).toEqual(snapshot(live));
  });

  test('that is asked for again stays as it is', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(one());
    const image = two();
    await sysroot.deploy(image, { stage: true });
    const before = facts(sysroot);
    expect(await sysroot.deploy(image, { stage: true })).toMatchObject({ changed: false, id: 2, isStaged: true });
    expect(facts(sysroot)).toEqual(before);
  });

  test('is replaced by the next one, which says so', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(one());
    const second = await sysroot.deploy(two(), { stage: true });
    const third = await sysroot.deploy(bootableLayout({ version: '3' }).reference, { stage: true });
    expect(third).toMatchObject({ id: 3, unstaged: 2 });
    expect(sysroot.entries()).toEqual(['hostctl-00000001+3-0.conf', 'hostctl-00000003+3-0.conf.staged']);
    expect(sysroot.status().deployments.map(({ id }) => id)).toEqual([3, 1]);
    expect(Object.keys(facts(sysroot)).filter((name) => name.startsWith(`state/deploy/${second.digest}`))).toEqual([]);
    expect(await finalize(sysroot)).toMatchObject({ id: 3 });
  });

  test('stays when the deployment that would replace it fails', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(one());
    await sysroot.deploy(two(), { stage: true });
    const before = facts(sysroot);
    const broken = bootableLayout({ version: '3', more: [tarFile('usr/lib/bootc/kargs.d/bad.toml', 'kargs = 5')] });
    await expect(sysroot.deploy(broken.reference, { stage: true })).rejects.toThrow(/kargs/);
    expect(facts(sysroot)).toMatchObject(before);
    expect(sysroot.status()).toMatchObject({ next: 1, staged: 2 });
  });

  test.each([
    ['a deploy at once', (sysroot: ScratchSysroot) => sysroot.deploy(bootableLayout({ version: '3' }).reference)],
    ['a rollback', (sysroot: ScratchSysroot) => rollback(sysroot.host, { sysroot: sysroot.path, to: '1' })],
    ['unstage', (sysroot: ScratchSysroot) => unstage(sysroot.host, { sysroot: sysroot.path })],
  ])('is dropped by %s', async (_, act) => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(one());
    await sysroot.deploy(two(), { stage: true });
    expect(await act(sysroot)).toMatchObject({ changed: true });
    expect(sysroot.status()).toMatchObject({ staged: null, warnings: [] });
    expect(sysroot.status().deployments.map(({ id }) => id)).not.toContain(2);
    expect(await finalize(sysroot)).toMatchObject({ reason: 'nothing-staged' });
  });

  /** What is mounted on cannot be removed. */
  const hold = (sysroot: ScratchSysroot): void => {
    const record = `${sysroot.path}/state/hostctl/staged`;
    execFileSync('mount', ['--bind', record, record]);
    onTestFinished(() => void execFileSync('umount', [record]));
  };

  test.each([
    ['deploy', (sysroot: ScratchSysroot, first: string) => sysroot.deploy(first)],
    ['rollback', (sysroot: ScratchSysroot) => rollback(sysroot.host, { sysroot: sysroot.path, to: '1' })],
  ])('that cannot be dropped, and would boot, fails a %s to what is the default', async (_, act) => {
    const sysroot = scratchSysroot();
    const first = one();
    await sysroot.deploy(first);
    await sysroot.deploy(two(), { stage: true });
    hold(sysroot);
    await expect(act(sysroot, first)).rejects.toThrow('EBUSY');
    expect(sysroot.status()).toMatchObject({ next: 1, staged: 2 });
  });

  test('that cannot be dropped, and will never boot, lets a rollback stand', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(one());
    await sysroot.deploy(two());
    await sysroot.deploy(bootableLayout({ version: '3' }).reference, { stage: true });
    hold(sysroot);
    expect(await rollback(sysroot.host, { sysroot: sysroot.path, to: '1' })).toMatchObject({ changed: true, to: 1 });
    expect(sysroot.status()).toMatchObject({ next: 1 });
  });

  test('whose record was left behind by a crash is not published after a newer one', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(one());
    await sysroot.deploy(two(), { stage: true });
    const record = readFileSync(`${sysroot.path}/state/hostctl/staged`);
    await sysroot.deploy(bootableLayout({ version: '3' }).reference);
    writeFileSync(`${sysroot.path}/state/hostctl/staged`, record);
    expect(sysroot.status()).toMatchObject({ next: 3, staged: null });
    expect(await finalize(sysroot)).toMatchObject({ changed: false, reason: 'nothing-staged' });
    expect(sysroot.status()).toMatchObject({ next: 3 });
  });
});

describe('a finalization that fails', () => {
  test('leaves the old default and its reason, and is not tried again by itself', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(one());
    await sysroot.deploy(two(), { stage: true });
    rmSync(`${sysroot.path}/boot/loader/entries/hostctl-00000002+3-0.conf.staged`);
    await expect(finalize(sysroot)).rejects.toMatchObject({ code: 'state-invalid' });
    const { next, staged, warnings } = sysroot.status();
    expect({ next, staged }).toEqual({ next: 1, staged: 2 });
    expect(warnings).toEqual([
      {
        code: 'finalize-failed',
        message: expect.stringMatching(
          /^Deployment 2 could not be finalized at shutdown \(state-invalid\): .*damaged/,
        ) as string,
        hint: expect.stringContaining('--from-downloaded') as string,
      },
    ]);
    expect(await finalize(sysroot)).toEqual({ changed: false, id: 2, reason: 'failed-before' });
  });

  test('is tried again once the image is asked for again', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(one());
    const image = two();
    await sysroot.deploy(image, { stage: true });
    writeFileSync(
      `${sysroot.path}/state/hostctl/finalize-failure`,
      '[failure]\nid = 2\ncode = interrupted\nmessage = cut\n',
    );
    expect(await finalize(sysroot)).toMatchObject({ reason: 'failed-before' });
    await sysroot.deploy(image, { stage: true });
    expect(await finalize(sysroot)).toMatchObject({ reason: 'finalized' });
    expect(sysroot.status()).toMatchObject({ next: 2, staged: null, warnings: [] });
  });
});

describe('upgrade', () => {
  test('deploys what the tracked reference is now, once', async () => {
    const sysroot = scratchSysroot();
    const layout = tracked('1');
    await sysroot.deploy(layout.reference, { kargs: ['root=UUID=abc'] });
    expect(await upgrade(sysroot.host, upgradeOptions(sysroot))).toMatchObject({
      changed: false,
      id: 1,
      avoided: null,
    });
    expect(await checkUpgrade(sysroot.host, { sysroot: sysroot.path })).toMatchObject({ isNew: false });
    layout.replace('2');
    expect(await checkUpgrade(sysroot.host, { sysroot: sysroot.path })).toMatchObject({ isNew: true });
    expect(await upgrade(sysroot.host, upgradeOptions(sysroot))).toMatchObject({
      changed: true,
      id: 2,
      isStaged: false,
    });
    expect(await upgrade(sysroot.host, upgradeOptions(sysroot))).toMatchObject({ changed: false, id: 2 });
    expect(sysroot.status()).toMatchObject({ next: 2 });
    expect(sysroot.status().deployments[0]?.entry?.kargs[0]).toBe('root=UUID=abc');
  });

  test('that only downloads is finalized when it is asked for, not at shutdown', async () => {
    const sysroot = scratchSysroot();
    const layout = tracked('1');
    await sysroot.deploy(layout.reference);
    layout.replace('2');
    const result = await upgrade(sysroot.host, upgradeOptions(sysroot, { downloadOnly: true }));
    expect(result).toMatchObject({ changed: true, id: 2, isStaged: true });
    expect(await finalize(sysroot)).toEqual({ changed: false, id: 2, reason: 'downloaded-only' });
    expect(sysroot.status()).toMatchObject({ next: 1, staged: 2, warnings: [{ code: 'downloaded-only' }] });
    expect(await takeDownloaded(sysroot.host, { sysroot: sysroot.path, etcPolicy: {} })).toMatchObject({
      changed: true,
      id: 2,
    });
    expect(sysroot.status()).toMatchObject({ next: 2, staged: null, warnings: [] });
  });

  test('does not go back by itself to what was left by hand; switch does', async () => {
    const { sysroot, layout } = await upgradedSysroot();
    await rollback(sysroot.host, { sysroot: sysroot.path });
    const avoided = expect.stringMatching(/was left by hand \(deployment 2\)$/) as string;
    expect(await checkUpgrade(sysroot.host, { sysroot: sysroot.path })).toMatchObject({ isNew: false, avoided });
    expect(await upgrade(sysroot.host, upgradeOptions(sysroot))).toMatchObject({ changed: false, id: 1, avoided });
    expect(sysroot.status()).toMatchObject({ next: 1 });
    const again = await upgrade(sysroot.host, upgradeOptions(sysroot, { image: layout.reference }));
    expect(again).toMatchObject({ changed: true, id: 4, avoided: null });
    expect(sysroot.status()).toMatchObject({ next: 4 });
  });

  test.each([1, 2])('a rollback that fails at flush %i leaves the record of what was left as it was', async (flush) => {
    const { sysroot } = await upgradedSysroot();
    const record = `${sysroot.path}/state/hostctl/left`;
    const fails = (to: string): Promise<unknown> =>
      expect(rollback(failingAt(sysroot.host, flush), { sysroot: sysroot.path, to })).rejects.toThrow('injected');
    await fails('1');
    expect([existsSync(record), sysroot.status().next]).toEqual([false, 2]);
    await rollback(sysroot.host, { sysroot: sysroot.path });
    const left = readFileSync(record, 'utf8');
    await fails('2');
    expect([readFileSync(record, 'utf8'), sysroot.status().next]).toEqual([left, 1]);
  });

  test('takes a newer image than the one that was left', async () => {
    const { sysroot, layout } = await upgradedSysroot();
    await rollback(sysroot.host, { sysroot: sysroot.path });
    layout.replace('3');
    expect(await upgrade(sysroot.host, upgradeOptions(sysroot))).toMatchObject({ changed: true, avoided: null });
  });

  test('does not take an image again that failed to boot', async () => {
    const { sysroot } = await upgradedSysroot();
    const { boot } = openSysroot(sysroot.host, { sysroot: sysroot.path });
    const entries = `${boot.path}/loader/entries`;
    writeFileSync(`${entries}/hostctl-00000002+0-3.conf`, readFileSync(`${entries}/hostctl-00000002+3-0.conf`));
    rmSync(`${entries}/hostctl-00000002+3-0.conf`);
    expect(sysroot.status()).toMatchObject({ next: 1 });
    const result = await upgrade(sysroot.host, upgradeOptions(sysroot));
    expect(result).toMatchObject({
      changed: false,
      id: 1,
      avoided: expect.stringContaining('failed to boot') as string,
    });
  });

  test('of an older release is refused unless it is allowed', async () => {
    const sysroot = scratchSysroot();
    const layout = tracked('2.10');
    await sysroot.deploy(layout.reference);
    layout.replace('2.9');
    const before = facts(sysroot);
    const refused = upgrade(sysroot.host, upgradeOptions(sysroot));
    await expect(refused).rejects.toMatchObject({ code: 'downgrade-refused' });
    expect(facts(sysroot)).toEqual(before);
    const allowed = await upgrade(sysroot.host, upgradeOptions(sysroot, { allowDowngrade: true }));
    expect(allowed).toMatchObject({ changed: true, id: 2 });
  });

  test('without any deployment says what to do', async () => {
    const sysroot = scratchSysroot();
    await expect(upgrade(sysroot.host, upgradeOptions(sysroot))).rejects.toMatchObject({
      code: 'deployment-not-found',
      hint: expect.stringContaining('switch') as string,
    });
  });
});

describe('upgrade --plan', () => {
  test('says what upgrade then does, and leaves nothing behind', async () => {
    const sysroot = scratchSysroot();
    const layout = tracked('1');
    const first = await sysroot.deploy(layout.reference, { kargs: ['root=UUID=abc'] });
    writeFileSync(`${sysroot.path}/state/deploy/${first.digest}/etc/hostname`, 'mine\n');
    layout.replace('2');
    const before = facts(sysroot);
    const options = upgradeOptions(sysroot, { kargs: ['debug'] });
    const plan = await planUpgrade(sysroot.host, options);
    expect(facts(sysroot)).toMatchObject(before);
    const left = Object.keys(facts(sysroot)).filter((name) => !(name in before) && !/objects\/[0-9a-f]{2}$/.test(name));
    expect(left).toEqual([]);
    const result = await upgrade(sysroot.host, options);
    expect(plan).toMatchObject({
      candidate: { reference: layout.reference, manifestDigest: result.manifestDigest, version: '2' },
      avoided: null,
      change: {
        digest: result.digest,
        objects: result.objects.writtenObjects,
        objectBytes: result.objects.writtenBytes,
        bootBytes: 0,
        dropsFirst: [],
        kargs: { added: ['debug'], removed: [] },
        etc: { changed: [{ path: '/etc/hostname', change: 'replace' }], conflicts: [] },
        drops: [],
        unstages: null,
        rebootNeeded: false,
      },
    });
    expect(await planUpgrade(sysroot.host, options)).toMatchObject({ avoided: null, change: null });
  });
});

describe('upgrade with a boot partition that is too small', () => {
  /** Three good deployments, each with a kernel of its own, fill most of it. */
  async function fullSysroot(): Promise<ScratchSysroot> {
    const sysroot = scratchSysroot();
    const disk = `${scratchDir()}/disk`;
    execFileSync('truncate', ['-s', '24M', disk]);
    execFileSync('mkfs.ext4', ['-q', '-m', '0', '-O', '^has_journal', disk]);
    execFileSync('mount', ['-o', 'loop', disk, `${sysroot.path}/boot`]);
    onTestFinished(() => void execFileSync('umount', [`${sysroot.path}/boot`]));
    for (const id of [1, 2, 3]) {
      await sysroot.deploy(withKernel(String(id), 6));
      bless(sysroot, id);
    }
    return sysroot;
  }

  const withKernel = (version: string, mebibytes: number): string => {
    const kernel = Buffer.alloc(mebibytes << 20, `kernel ${version}`);
    return bootableLayout({ version, more: [tarFile('usr/lib/modules/6.12.0/vmlinuz', kernel)] }).reference;
  };

  const kernels = (sysroot: ScratchSysroot): string[] => readdirSync(`${sysroot.path}/boot/hostctl`);

  test('drops what it would drop afterwards before the new kernel is written', async () => {
    const sysroot = await fullSysroot();
    const options = upgradeOptions(sysroot, { image: withKernel('4', 6), keep: 3 });
    const before = [sysroot.entries(), kernels(sysroot)];
    const plan = await planUpgrade(sysroot.host, options);
    expect(plan.change).toMatchObject({ drops: [1], dropsFirst: [1] });
    expect([sysroot.entries(), kernels(sysroot)]).toEqual(before);
    expect(await upgrade(sysroot.host, options)).toMatchObject({ changed: true, id: 4 });
    expect(sysroot.host.warnings).toContainEqual(
      expect.stringMatching(/has no room for the new kernel: deployment 1 is dropped first$/),
    );
    const { deployments, next } = sysroot.status();
    expect([next, deployments.map(({ id, problems }) => [id, problems])]).toEqual([
      4,
      [
        [4, []],
        [3, []],
        [2, []],
      ],
    ]);
    expect(kernels(sysroot)).toHaveLength(3);
  });

  test.each([
    ['nothing may be dropped', 6, 4, /but has [0-9.]+ MiB free; nothing was changed$/],
    ['not even that is enough', 16, 3, /free, and 6\.0 MiB more without the deployments that may be dropped; nothing/],
  ])('is refused where %s, and drops nothing', async (_, mebibytes, keep, message) => {
    const sysroot = await fullSysroot();
    const options = upgradeOptions(sysroot, { image: withKernel('4', mebibytes), keep });
    const before = [sysroot.entries(), kernels(sysroot), sysroot.status()];
    const refused = { code: 'boot-full', message: expect.stringMatching(message) as string };
    await expect(planUpgrade(sysroot.host, options)).rejects.toMatchObject(refused);
    await expect(upgrade(sysroot.host, options)).rejects.toMatchObject(refused);
    expect([sysroot.entries(), kernels(sysroot), sysroot.status()]).toEqual(before);
  });
});

describe('switch', () => {
  test('to the same image by another reference tracks that from now on', async () => {
    const sysroot = scratchSysroot();
    const layout = tracked('1');
    await sysroot.deploy(layout.reference);
    const directory = scratchDir();
    cpSync(layout.reference.slice('oci:'.length), directory, { recursive: true });
    const other = `oci:${directory}`;
    expect(await upgrade(sysroot.host, upgradeOptions(sysroot, { image: other }))).toMatchObject({
      changed: true,
      id: 2,
    });
    expect(sysroot.status().deployments[0]?.image.reference).toBe(other);
  });
});

describe('rollback --plan', () => {
  test('says what rollback then does', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(one(), { kargs: ['quiet'] });
    bless(sysroot, 1);
    await sysroot.deploy(two(), { kargs: ['debug'] });
    const before = facts(sysroot);
    const plan = rollbackPlan(sysroot.host, { sysroot: sysroot.path });
    expect(facts(sysroot)).toEqual(before);
    expect(plan).toMatchObject({ changed: true, from: 2, to: 1, entryFile: 'hostctl-00000003.conf', unstaged: null });
    expect(plan.kargs.removed).toContain('debug');
    expect(await rollback(sysroot.host, { sysroot: sysroot.path })).toEqual(plan);
  });
});

describe('history', () => {
  test('lists what was made the default, newest first', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(one());
    bless(sysroot, 1);
    await sysroot.deploy(two(), { stage: true });
    await finalize(sysroot);
    await rollback(sysroot.host, { sysroot: sysroot.path });
    const events = history(sysroot.host, { sysroot: sysroot.path });
    expect(events.map(({ sequence, action, id }) => [sequence, action, id])).toEqual([
      [3, 'rollback', 1],
      [2, 'deploy', 2],
      [1, 'deploy', 1],
    ]);
  });
});
