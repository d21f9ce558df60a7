/** `kargs --once`: one boot with other arguments, and then the usual one again. */

import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { expect, test, vi } from 'vitest';
import { changeKargsOnce, type KargsOnceOptions } from '../../src/ops/kargs-once.ts';
import { gc } from '../../src/ops/gc.ts';
import { markGood } from '../../src/ops/mark-good.ts';
import type { Host } from '../../src/sys/host.ts';
import { bless } from '../helpers/bless.ts';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { withFakeVerity } from '../helpers/fake-verity.ts';
import { unifiedLayout } from '../helpers/unified-layout.ts';
import { scratchSysroot, type ScratchSysroot } from '../helpers/scratch-sysroot.ts';
import { snapshot } from '../helpers/snapshot.ts';

vi.mock('../../src/deploy/sysroot.ts', async (original) =>
  (await import('../model/running.ts')).asRunning(await original()),
);

const USUAL = 'hostctl-00000001.conf';
const NO_CHANGES = { append: [], delete: [], replace: [] };
const BOOT_COUNTING = Uint8Array.of(0x7f, 0, 0, 0, 0, 0, 0, 0);

/** A machine that runs what `entry` boots, by a loader that counts boots. */
function running(sysroot: ScratchSysroot, entry: string, variables: Record<string, Uint8Array> = {}): Host {
  const text = readFileSync(`${sysroot.path}/boot/loader/entries/${entry}`, 'utf8');
  return {
    ...sysroot.host,
    kernelCmdline: () => /^options (.*)$/m.exec(text)?.[1] ?? '',
    loaderVariable: (name) => ({ LoaderFeatures: BOOT_COUNTING, ...variables })[name],
  };
}

async function deployed(): Promise<{ sysroot: ScratchSysroot; host: Host }> {
  const sysroot = scratchSysroot();
  await sysroot.deploy(bootableLayout({ kargs: ['quiet'] }).reference, { kargs: ['root=UUID=1'] });
  bless(sysroot, 1);
  return { sysroot, host: running(sysroot, USUAL) };
}

function once(host: Host, sysroot: ScratchSysroot, more: Partial<KargsOnceOptions['changes']>, plan = false) {
  return changeKargsOnce(host, { sysroot: sysroot.path, changes: { ...NO_CHANGES, ...more }, plan });
}

function options(sysroot: ScratchSysroot, entry: string): string[] {
  const text = readFileSync(`${sysroot.path}/boot/loader/entries/${entry}`, 'utf8');
  return (/^options (.*)$/m.exec(text)?.[1] ?? '').split(' ').filter((arg) => !arg.startsWith('composefs.digest='));
}

/** What systemd-boot does when it boots a counted entry. */
function count(sysroot: ScratchSysroot, entry: string, counted: string): void {
  renameSync(`${sysroot.path}/boot/loader/entries/${entry}`, `${sysroot.path}/boot/loader/entries/${counted}`);
}

test('is refused where a unified kernel image boots, whose arguments are its own', async () => {
  const sysroot = scratchSysroot();
  const { reference } = await unifiedLayout();
  await sysroot.deploy(reference, { allowMissingVerity: false }, withFakeVerity(sysroot.host));
  bless(sysroot, 1);
  await expect(once(running(sysroot, USUAL), sysroot, { append: ['single'] })).rejects.toMatchObject({
    code: 'image-unsupported',
    message: `"${USUAL}" boots by a unified kernel image, whose command line is its own and cannot be changed here`,
  });
  expect(sysroot.entries()).toEqual([USUAL]);
});

test('the next boot has the arguments, is not blessed, and the one after it is as before', async () => {
  const { sysroot, host } = await deployed();
  const before = options(sysroot, USUAL);
  const result = await once(host, sysroot, { append: ['single'], delete: ['quiet'] });
  expect(result).toEqual({
    id: 1,
    entryFile: 'hostctl-00000002+1-0.conf',
    added: [{ arg: 'single', origin: 'user' }],
    removed: [{ arg: 'quiet', origin: 'image', file: '10-console.toml' }],
  });
  expect(options(sysroot, 'hostctl-00000002+1-0.conf')).toEqual([
    ...['root=UUID=1', 'panic=30', 'rd.shell=0', 'rd.emergency=reboot', 'single'],
    ...['hostctl.once=1', 'systemd.mask=systemd-bless-boot.service'],
  ]);
  const waiting = sysroot.status();
  expect(waiting.deployments.map(({ id, state, entry }) => [id, state, entry?.file])).toEqual([[1, 'good', USUAL]]);
  expect([waiting.next, waiting.warnings.map(({ code }) => code)]).toEqual([1, ['kargs-once']]);

  count(sysroot, 'hostctl-00000002+1-0.conf', 'hostctl-00000002+0-1.conf');
  expect(sysroot.status().warnings).toEqual([]);
  const booted = running(sysroot, 'hostctl-00000002+0-1.conf');
  expect(await markGood(booted, { sysroot: sysroot.path })).toMatchObject({
    id: 1,
    entryFile: 'hostctl-00000002+0-1.conf',
  });
  expect(sysroot.entries()).toEqual([USUAL]);
  expect(options(sysroot, USUAL)).toEqual(before);
});

test('another --once takes the place of the one before', async () => {
  const { sysroot, host } = await deployed();
  await once(host, sysroot, { append: ['a'] });
  await once(host, sysroot, { append: ['b'] });
  expect(sysroot.entries()).toEqual([USUAL, 'hostctl-00000003+1-0.conf']);
  expect(options(sysroot, 'hostctl-00000003+1-0.conf')).not.toContain('a');
});

test('an entry whose boot failed goes with gc, and a later deployment knows nothing of it', async () => {
  const { sysroot, host } = await deployed();
  await once(host, sysroot, { append: ['a'] });
  count(sysroot, 'hostctl-00000002+1-0.conf', 'hostctl-00000002+0-1.conf');
  expect(sysroot.status().next).toBe(1);
  await gc(host, { sysroot: sysroot.path, keep: 2, dryRun: false });
  expect(sysroot.entries()).toEqual([USUAL]);
  await once(host, sysroot, { append: ['a'] });
  await sysroot.deploy(bootableLayout({ version: '2' }).reference);
  const [, next] = sysroot.status().deployments.toReversed();
  expect(next?.entry?.kargs.filter((arg) => ['a', 'hostctl.once=1'].includes(arg))).toEqual([]);
});

test('a plan writes nothing', async () => {
  const { sysroot, host } = await deployed();
  const before = snapshot(sysroot.path);
  const { entryFile, added } = await once(host, sysroot, { append: ['a'] }, true);
  expect([entryFile, added.map(({ arg }) => arg)]).toEqual([undefined, ['a']]);
  expect(snapshot(sysroot.path)).toEqual(before);
});

test('a loader that does not count boots is refused, since the entry would boot every time', async () => {
  const { sysroot, host } = await deployed();
  const uncounted = { ...host, loaderVariable: () => undefined };
  await expect(once(uncounted, sysroot, { append: ['a'] })).rejects.toMatchObject({ code: 'host-unsupported' });
  await expect(once(host, sysroot, { append: ['hostctl.once=1'] })).rejects.toMatchObject({ code: 'usage' });
  expect(sysroot.entries()).toEqual([USUAL]);
});

test('mark-good blesses the entry that the loader booted, not the newest', async () => {
  const { sysroot } = await deployed();
  await sysroot.deploy(bootableLayout({ version: '2' }).reference);
  const counted = ['hostctl-00000002+3-0.conf', 'hostctl-00000003+3-0.conf'] as const;
  const text = readFileSync(`${sysroot.path}/boot/loader/entries/${counted[0]}`, 'utf8');
  writeFileSync(`${sysroot.path}/boot/loader/entries/${counted[1]}`, text.replace('panic=30', 'panic=31'));
  const selected = new Uint8Array(Buffer.from('hostctl-00000002+2-1.conf\0', 'utf16le'));
  const byVariable = running(sysroot, counted[1], { LoaderEntrySelected: selected });
  const { entryFile } = await markGood(byVariable, { sysroot: sysroot.path });
  expect(entryFile).toBe('hostctl-00000002.conf');
  const byArguments = running(sysroot, counted[1]);
  expect((await markGood(byArguments, { sysroot: sysroot.path })).entryFile).toBe('hostctl-00000003.conf');
});
