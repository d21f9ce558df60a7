/** A boot partition that GRUB reads: what is written there beside the entries, and what `status` makes of it. */

import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { bootLoader } from '../../src/deploy/loader.ts';
import { readDeployments } from '../../src/deploy/deployments.ts';
import { openSysroot } from '../../src/deploy/sysroot.ts';
import { changeEnvironment, emptyEnvironment, parseEnvironment } from '../../src/format/grub/environment-block.ts';
import { MENU_SCRIPT } from '../../src/format/grub/menu-script.ts';
import { deleteDeployment } from '../../src/ops/delete-deployment.ts';
import { finalizeStaged } from '../../src/ops/finalize-staged.ts';
import { gc } from '../../src/ops/gc.ts';
import { rollback } from '../../src/ops/rollback.ts';
import { unstage } from '../../src/ops/unstage.ts';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { scratchSysroot, type ScratchSysroot } from '../helpers/scratch-sysroot.ts';
import { snapshot } from '../helpers/snapshot.ts';

const image = (version: string): string => bootableLayout({ version }).reference;

type Variables = Readonly<Record<string, string>>;

/** A sysroot with a boot partition of GRUB, whose environment block has these variables. */
function grubSysroot(variables: Variables = { hostctl_check: '1' }): ScratchSysroot {
  const sysroot = scratchSysroot();
  mkdirSync(`${sysroot.path}/boot/grub`);
  writeFileSync(`${sysroot.path}/boot/grub/hostctl.cfg`, MENU_SCRIPT);
  setVariables(sysroot, variables);
  return sysroot;
}

function setVariables({ path }: ScratchSysroot, variables: Variables): void {
  writeFileSync(`${path}/boot/grub/grubenv`, changeEnvironment(emptyEnvironment(), variables));
}

function variablesOf({ path }: ScratchSysroot): Variables {
  const block = readFileSync(`${path}/boot/grub/grubenv`);
  const end = block.lastIndexOf('hostctl_');
  expect(block.indexOf('\n', end)).toBeLessThan(512);
  return Object.fromEntries(parseEnvironment(block));
}

/** What mark-good does with the entry that was booted. */
async function bless({ host, path }: ScratchSysroot, sequence: number): Promise<void> {
  const sysroot = openSysroot(host, { sysroot: path });
  const entry = readDeployments(host, sysroot).entries.find((found) => found.sequence === sequence);
  if (entry === undefined) throw new Error(`There is no boot entry ${sequence}`);
  await bootLoader(host, sysroot).bless(entry);
}

/** Version 1 is good, version 2 is to be tried. */
async function updated(): Promise<ScratchSysroot> {
  const sysroot = grubSysroot({ hostctl_check: '1', saved_entry: 'theirs' });
  await sysroot.deploy(image('1'));
  await bless(sysroot, 1);
  await sysroot.deploy(image('2'));
  return sysroot;
}

describe('A boot partition of GRUB', () => {
  test('gets a menu entry beside each boot entry, and GRUB is told to try it', async () => {
    const sysroot = grubSysroot();
    await sysroot.deploy(image('1'), { kargs: ['root=UUID=abc', 'quiet', 'rw'] });
    expect(sysroot.entries()).toEqual(['hostctl-00000001+3-0.conf', 'hostctl-00000001.cfg']);
    const menuEntry = readFileSync(`${sysroot.path}/boot/loader/entries/hostctl-00000001.cfg`, 'utf8');
    const { linux, kargs } = sysroot.status().deployments[0]?.entry ?? { linux: '', kargs: [] };
    const words = kargs.map((arg) => `'${arg}'`).join(' ');
    expect(menuEntry).toContain(`    linux '${linux}' ${words} $hostctl_argument\n`);
    expect(variablesOf(sysroot)).toEqual({ hostctl_check: '1', hostctl_try: '1', hostctl_left: '3' });
    expect(sysroot.status()).toMatchObject({ next: 1, warnings: [], deployments: [{ state: 'trying', triesLeft: 3 }] });
  });

  test('says what is tried and what is good; variables of others stay', async () => {
    const sysroot = await updated();
    const theirs = { saved_entry: 'theirs', hostctl_check: '1' };
    expect(variablesOf(sysroot)).toEqual({ ...theirs, hostctl_try: '2', hostctl_left: '3', hostctl_good: '1' });
    await bless(sysroot, 2);
    expect(variablesOf(sysroot)).toEqual({ ...theirs, hostctl_good: '2' });
    expect(sysroot.entries()).toContain('hostctl-00000002.conf');
    await bless(sysroot, 1);
    expect(variablesOf(sysroot)).toEqual({ ...theirs, hostctl_good: '2' });
  });

  test.each<[string, Variables, number, string, number | null]>([
    ['tried', { hostctl_check: '1', hostctl_try: '2', hostctl_left: '1', hostctl_good: '1' }, 2, 'trying', 1],
    ['used up', { hostctl_check: '1', hostctl_try: '2', hostctl_left: '0', hostctl_good: '1' }, 1, 'failed', 0],
    ['not counted', { hostctl_check: '0', hostctl_try: '2', hostctl_left: '1', hostctl_good: '1' }, 1, 'trying', 1],
    ['not known', { hostctl_check: '1', hostctl_good: '1' }, 1, 'trying', 3],
    ['without variables', { hostctl_check: '1' }, 2, 'trying', 3],
    ['without what is good', { hostctl_try: '2', hostctl_left: '0', hostctl_good: '7' }, 1, 'failed', 0],
  ])('boots next what GRUB starts: %s', async (_, variables, next, state, triesLeft) => {
    const sysroot = await updated();
    setVariables(sysroot, variables);
    expect(sysroot.status()).toMatchObject({ next, deployments: [{ id: 2, state, triesLeft }, { id: 1 }] });
  });

  test('boots next the newest where the environment block cannot be read, which the next change mends', async () => {
    const sysroot = await updated();
    writeFileSync(`${sysroot.path}/boot/grub/grubenv`, Buffer.alloc(1024));
    expect(sysroot.status()).toMatchObject({ next: 2, warnings: [{ code: 'no-automatic-rollback' }] });
    await sysroot.deploy(image('3'));
    expect(variablesOf(sysroot)).toEqual({ hostctl_check: '0', hostctl_good: '3' });
  });

  test('leaves out an entry that has no menu entry of GRUB', async () => {
    const sysroot = await updated();
    rmSync(`${sysroot.path}/boot/loader/entries/hostctl-00000002.cfg`);
    expect(sysroot.status()).toMatchObject({ next: 1, warnings: [{ code: 'entry-skipped' }] });
  });

  test('says of what was tried in vain that its kernel is missing', async () => {
    const sysroot = await updated();
    rmSync(`${sysroot.path}/boot/hostctl`, { recursive: true });
    setVariables(sysroot, { hostctl_check: '1', hostctl_try: '2', hostctl_left: '0', hostctl_good: '1' });
    const told = sysroot.status().warnings.find(({ code }) => code === 'boot-failed');
    expect(told?.message).toMatch(/the entry of deployment 2: ".*\/linux" is missing \(entry-skipped\)$/);
  });

  test('is not used to try anything before GRUB has shown that it can count', async () => {
    const sysroot = grubSysroot({ hostctl_check: '0', hostctl_good: '9' });
    await sysroot.deploy(image('1'));
    expect(sysroot.entries()).toEqual(['hostctl-00000001.cfg', 'hostctl-00000001.conf']);
    expect(variablesOf(sysroot)).toEqual({ hostctl_check: '0', hostctl_good: '1' });
    const { warnings, deployments } = sysroot.status();
    expect(warnings).toMatchObject([{ code: 'no-automatic-rollback' }]);
    expect(warnings[0]?.message).toMatch(/^Automatic rollback: not available/);
    expect(deployments[0]?.entry?.kargs).not.toContain('rd.emergency=reboot');
  });

  test('is rolled back by a new entry that GRUB is told to be good', async () => {
    const sysroot = await updated();
    await bless(sysroot, 2);
    await rollback(sysroot.host, { sysroot: sysroot.path });
    expect(variablesOf(sysroot)).toMatchObject({ hostctl_good: '3' });
    expect(variablesOf(sysroot)).not.toHaveProperty('hostctl_try');
    expect(sysroot.entries()).toContain('hostctl-00000003.cfg');
    expect(sysroot.status()).toMatchObject({ next: 1, rollback: 2, warnings: [] });
  });

  test('keeps in the name of an entry that it failed when another one is tried', async () => {
    const sysroot = await updated();
    setVariables(sysroot, { hostctl_check: '1', hostctl_try: '2', hostctl_left: '0', hostctl_good: '1' });
    await sysroot.deploy(image('3'));
    expect(sysroot.entries()).toContain('hostctl-00000002+0-3.conf');
    expect(variablesOf(sysroot)).toMatchObject({ hostctl_try: '3', hostctl_left: '3', hostctl_good: '1' });
    expect(sysroot.status()).toMatchObject({
      next: 3,
      deployments: [{ id: 3 }, { id: 2, state: 'failed' }, { id: 1 }],
    });
  });

  test('hears of what is staged only when it is finalized', async () => {
    const sysroot = await updated();
    await bless(sysroot, 2);
    const before = variablesOf(sysroot);
    await sysroot.deploy(image('3'), { stage: true });
    expect(sysroot.entries()).toContain('hostctl-00000003.cfg');
    expect(variablesOf(sysroot)).toEqual(before);
    expect(sysroot.status()).toMatchObject({ next: 2, staged: 3, warnings: [] });
    await finalizeStaged(sysroot.host, { sysroot: sysroot.path, etcPolicy: {} });
    expect(variablesOf(sysroot)).toEqual({ ...before, hostctl_try: '3', hostctl_left: '3' });
    expect(sysroot.status()).toMatchObject({ next: 3, staged: null });
  });

  test('has nothing left of what was staged and dropped', async () => {
    const sysroot = await updated();
    const before = sysroot.entries();
    await sysroot.deploy(image('3'), { stage: true });
    await unstage(sysroot.host, { sysroot: sysroot.path });
    expect(sysroot.entries()).toEqual(before);
  });

  test('loses the menu entry with the boot entry', async () => {
    const sysroot = await updated();
    await bless(sysroot, 2);
    await deleteDeployment(sysroot.host, { sysroot: sysroot.path, id: '1' });
    expect(sysroot.entries()).toEqual(['hostctl-00000002.cfg', 'hostctl-00000002.conf']);
  });

  test('is told what boots after a deployment that is deleted', async () => {
    const sysroot = await updated();
    setVariables(sysroot, { hostctl_check: '1', hostctl_good: '1' });
    await sysroot.deploy(image('3'));
    await bless(sysroot, 3);
    renameSync(
      `${sysroot.path}/boot/loader/entries/hostctl-00000002+3-0.conf`,
      `${sysroot.path}/boot/loader/entries/hostctl-00000002+0-3.conf`,
    );
    // Next would be the newest of the others, which failed.
    await expect(deleteDeployment(sysroot.host, { sysroot: sysroot.path, id: '3' })).rejects.toMatchObject({
      code: 'deployment-in-use',
    });
  });

  test('is cleaned of a menu entry that a command left which was killed', async () => {
    const sysroot = await updated();
    const entries = `${sysroot.path}/boot/loader/entries`;
    for (const name of ['hostctl-00000007.cfg', 'hostctl-00000008.cfg.tmp', 'other.cfg'])
      writeFileSync(`${entries}/${name}`, '');
    const options = { sysroot: sysroot.path, keep: 9, dryRun: false };
    const { items } = await gc(sysroot.host, options);
    expect(items.map(({ name }) => name)).toEqual(['hostctl-00000007.cfg', 'hostctl-00000008.cfg.tmp']);
    expect(readdirSync(entries).filter((name) => name.endsWith('.cfg'))).toEqual([
      'hostctl-00000001.cfg',
      'hostctl-00000002.cfg',
      'other.cfg',
    ]);
  });

  test.each<[string, (sysroot: ScratchSysroot) => void, readonly string[], string]>([
    ['an argument that GRUB hands on as another one', () => undefined, ["a='b'"], 'format-invalid'],
    [
      'an environment block without room',
      ({ path }) =>
        writeFileSync(
          `${path}/boot/grub/grubenv`,
          changeEnvironment(changeEnvironment(emptyEnvironment(), { a: 'x'.repeat(480) }), { b: 'x'.repeat(480) }),
        ),
      [],
      'state-invalid',
    ],
    [
      'an environment block of another size',
      ({ path }) => writeFileSync(`${path}/boot/grub/grubenv`, '# GRUB Environment Block\n'),
      [],
      'state-invalid',
    ],
  ])('refuses %s, and nothing is changed there', async (_, spoil, kargs, code) => {
    const sysroot = await updated();
    spoil(sysroot);
    const before = snapshot(`${sysroot.path}/boot`);
    await expect(sysroot.deploy(image('3'), { kargs })).rejects.toMatchObject({ code });
    expect(snapshot(`${sysroot.path}/boot`)).toEqual(before);
    expect(existsSync(`${sysroot.path}/boot/loader/entries/hostctl-00000003.cfg`)).toBe(false);
  });
});
