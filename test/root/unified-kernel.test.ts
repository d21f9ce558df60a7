/** Images that carry a unified kernel image: deployed through it unchanged, or refused with both digests. */

import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { listEntries } from '../../src/deploy/boot-entries.ts';
import { openSysroot } from '../../src/deploy/sysroot.ts';
import { emptyEnvironment } from '../../src/format/grub/environment-block.ts';
import { MENU_SCRIPT } from '../../src/format/grub/menu-script.ts';
import { statusDocument } from '../../src/cli/view/status-json.ts';
import { statusText } from '../../src/cli/view/status-text.ts';
import { diff } from '../../src/ops/diff.ts';
import { deleteDeployment } from '../../src/ops/delete-deployment.ts';
import type { DeployResult } from '../../src/ops/deploy.ts';
import { finalizeStaged } from '../../src/ops/finalize-staged.ts';
import { fsck } from '../../src/ops/fsck.ts';
import { gc } from '../../src/ops/gc.ts';
import { changeDeploymentKargs, showKargs } from '../../src/ops/kargs.ts';
import { lintImage } from '../../src/ops/lint-image.ts';
import { rollback } from '../../src/ops/rollback.ts';
import { status } from '../../src/ops/status.ts';
import { planUpgrade, upgrade } from '../../src/ops/upgrade.ts';
import { bless } from '../helpers/bless.ts';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { cpio } from '../helpers/cpio-builder.ts';
import { withFakeVerity } from '../helpers/fake-verity.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { scratchSysroot, type ScratchSysroot } from '../helpers/scratch-sysroot.ts';
import { snapshot } from '../helpers/snapshot.ts';
import { tarDir } from '../helpers/tar-builder.ts';
import { testHost } from '../helpers/test-host.ts';
import { unifiedLayout, type UnifiedOptions } from '../helpers/unified-layout.ts';
import { upgradeOptions } from '../helpers/upgrade-options.ts';

const foreign = 'ab'.repeat(64);

/** On a file system with fs-verity. */
function deploy(
  sysroot: ScratchSysroot,
  image: string,
  options: Parameters<ScratchSysroot['deploy']>[1] = {},
): Promise<DeployResult> {
  return sysroot.deploy(image, { allowMissingVerity: false, ...options }, withFakeVerity(sysroot.host));
}

const entryText = ({ path }: ScratchSysroot, file: string): string =>
  readFileSync(`${path}/boot/loader/entries/${file}`, 'utf8');

/** The only kernel directory, and its files. */
function kernelDirectory({ path }: ScratchSysroot): string {
  const [directory = '', ...others] = readdirSync(`${path}/boot/hostctl`);
  expect(others).toEqual([]);
  return directory;
}

/** Everything but the directories that objects lie in, which may stay empty. */
function stateOf(path: string): Record<string, string> {
  return Object.fromEntries(Object.entries(snapshot(path)).filter(([name]) => !/^composefs\/objects\/..$/.test(name)));
}

/** An image with a unified kernel image, deployed and good; another one without, deployed after it and good too. */
async function twoDeployments(
  options: UnifiedOptions = {},
): Promise<{ sysroot: ScratchSysroot; reference: string; digest: string }> {
  const sysroot = scratchSysroot();
  const { reference, digest } = await unifiedLayout(options);
  await deploy(sysroot, reference);
  bless(sysroot, 1);
  await deploy(sysroot, bootableLayout({ version: '2' }).reference);
  bless(sysroot, 2);
  return { sysroot, reference, digest };
}

describe('An image with a unified kernel image', () => {
  test('is deployed through it, with its add-ons, byte for byte and by its own command line alone', async () => {
    const sysroot = scratchSysroot();
    const addons = { 'b.addon.efi': 'console=ttyS1', 'a.addon.efi': 'debug' };
    const { reference, digest, uki } = await unifiedLayout({ addons });
    const result = await deploy(sysroot, reference);
    expect(result).toMatchObject({ changed: true, digest, entryFile: 'hostctl-00000001+3-0.conf' });
    const directory = kernelDirectory(sysroot);
    const base = `${sysroot.path}/boot/hostctl/${directory}`;
    expect(readdirSync(base, { recursive: true }).sort()).toEqual([
      'uki.efi',
      'uki.efi.extra.d',
      'uki.efi.extra.d/a.addon.efi',
      'uki.efi.extra.d/b.addon.efi',
    ]);
    expect(readFileSync(`${base}/uki.efi`)).toEqual(uki);
    expect(entryText(sysroot, result.entryFile).replace(/# sha256 .*\n/, '')).toBe(
      [
        'title Example OS 1',
        'version 1',
        'sort-key hostctl',
        `efi /boot/hostctl/${directory}/uki.efi`,
        `x-hostctl-options quiet composefs.digest=v1-sha512-12:${digest} debug console=ttyS1`,
        '',
      ].join('\n'),
    );
    expect(readdirSync(`${sysroot.path}/state/deploy`)).toEqual([digest]);
    expect(sysroot.status()).toMatchObject({
      next: 1,
      deployments: [
        {
          level: 'pinned',
          composefs: { digest, verity: 'required' },
          entry: { linux: null, initrd: [], efi: `/boot/hostctl/${directory}/uki.efi` },
          problems: [],
        },
      ],
      warnings: [],
    });
    expect(await deploy(sysroot, reference)).toMatchObject({ changed: false, id: 1 });
  });

  test('is told by status to be sealed by it only where the firmware verifies', async () => {
    const sysroot = scratchSysroot();
    await deploy(sysroot, (await unifiedLayout()).reference);
    await deploy(sysroot, bootableLayout({ version: '2' }).reference);
    const found = status(sysroot.host, { sysroot: sysroot.path });
    expect(found.isSecureBoot).toBe(false);
    const document = statusDocument({ ...found, isSecureBoot: true }, false);
    expect(document.deployments.map(({ id, level }) => [id, level])).toEqual([
      [2, 'pinned'],
      [1, 'sealed-by-uki'],
    ]);
    expect(statusText(document, false)).toContain(
      '  level      sealed by UKI: the firmware verifies kernel, initramfs and digest\n',
    );
  });

  test('is built by the version of the format that it pins', async () => {
    const sysroot = scratchSysroot();
    const options: UnifiedOptions = { formatVersion: 2, cmdlines: (digest) => [`composefs=${digest} rw`] };
    const { reference, digest } = await unifiedLayout(options);
    expect(await deploy(sysroot, reference)).toMatchObject({ digest, parameters: 'v2-sha512-12' });
    // Made again by the same version.
    rmSync(`${sysroot.path}/composefs/images/${digest}`);
    const { findings } = await fsck(withFakeVerity(sysroot.host), { sysroot: sysroot.path, deep: true, repair: true });
    expect(findings.filter(({ repaired }) => !repaired)).toEqual([]);
    expect(existsSync(`${sysroot.path}/composefs/images/${digest}`)).toBe(true);
  });

  test.each<readonly [string, UnifiedOptions, Parameters<ScratchSysroot['deploy']>[1], string, RegExp]>([
    [
      'pins another image',
      { cmdlines: () => [`composefs.digest=v1-sha512-12:${foreign}`] },
      {},
      'digest-mismatch',
      new RegExp(`states the digest ${foreign}, but the image has [0-9a-f]{128}`),
    ],
    [
      'pins a digest by parameters that it is not of',
      { formatVersion: 2, cmdlines: (digest) => [`composefs.digest=v1-sha512-12:${digest}`] },
      {},
      'digest-mismatch',
      /pins v1-sha512-12:[0-9a-f]{128}, but the image has v1-sha512-12:[0-9a-f]{128}/,
    ],
    ['pins nothing', { cmdlines: () => ['quiet'] }, {}, 'image-not-bootable', /names no composefs digest/],
    ['has no command line', { cmdlines: () => [] }, {}, 'image-not-bootable', /names no composefs digest/],
    ['has two', { cmdlines: (d) => [`composefs.digest=v1-sha512-12:${d}`, 'quiet'] }, {}, 'image-unsupported', /has 2 command lines/],
    ['names a state directory', { cmdlines: (d) => [`composefs.digest=v1-sha512-12:${d} hostctl.state=${d}.2`] }, {}, 'image-not-bootable', /has "hostctl.state="/],
    ['is for one boot', { cmdlines: (d) => [`composefs.digest=v1-sha512-12:${d} hostctl.once=1`] }, {}, 'image-not-bootable', /has "hostctl.once="/],
    ['pins a second image', { cmdlines: (d) => [`composefs.digest=v1-sha512-12:${d} composefs=?${d}`] }, {}, 'image-unsupported', /names 2 composefs digests/],
    ['has an argument that no entry can hold', { cmdlines: (d) => [`composefs.digest=v1-sha512-12:${d} a=$b`] }, {}, 'format-invalid', /Cannot use "\/boot\/EFI\/Linux\/example\.efi": .*has a "\$"/],
    ['has a control character', { cmdlines: (d) => [`composefs.digest=v1-sha512-12:${d} a=\x01`] }, {}, 'format-invalid', /Cannot use "\/boot\/EFI.*control character/],
    ['leaves a quote open', { cmdlines: (d) => [`composefs.digest=v1-sha512-12:${d} a="b`] }, {}, 'format-invalid', /Cannot use "\/boot\/EFI.*not closed/],
    ['has more than a kernel takes', { cmdlines: (d) => [`composefs.digest=v1-sha512-12:${d} a=${'b'.repeat(5000)}`] }, {}, 'format-invalid', /Cannot use "\/boot\/EFI.*command line of 5\d+ bytes/],
    ['has more than anybody reads', { cmdlines: (d) => [`composefs.digest=v1-sha512-12:${d} a=${'b'.repeat(70_000)}`] }, {}, 'image-unsupported', /"\/boot\/EFI.*section "\.cmdline" has \d+ bytes/],
    ['has a digest that is none', { cmdlines: () => ['composefs.digest=v1-sha512-12:ab'] }, {}, 'format-invalid', /"\/boot\/EFI.*parse digest argument/],
    ['may boot unverified', { cmdlines: (d) => [`composefs.digest=?v1-sha512-12:${d}`] }, {}, 'verity-unsupported', /makes verification optional/],
    ['is for another hash than the repository', {}, { algorithm: 'sha256' }, 'image-unsupported', /pins a sha512 digest, and the repository ".*" is of sha256/],
    ['is given an argument', {}, { kargs: ['debug'] }, 'image-unsupported', /"debug" cannot be added/],
    ['has an add-on that names a state directory', { addons: { 'x.addon.efi': 'hostctl.state=other' } }, {}, 'image-not-bootable', /has "hostctl.state="/],
    ['has an add-on that names a root', { addons: { 'x.addon.efi': `composefs=?${foreign}` } }, {}, 'image-not-bootable', /add-on ".*x\.addon\.efi" names a composefs digest/],
  ])('is refused where it %s, and nothing stays', async (_what, options, more, code, message) => {
    const sysroot = scratchSysroot();
    const { algorithm } = { algorithm: undefined, ...more };
    await sysroot.deploy(bootableLayout({ version: 'before' }).reference, { algorithm });
    const before = stateOf(sysroot.path);
    await expect(deploy(sysroot, (await unifiedLayout(options)).reference, more)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message) as string,
    });
    expect(stateOf(sysroot.path)).toEqual(before);
  }); // prettier-ignore

  test('that may boot unverified is taken where that was asked for, and shown as what it is', async () => {
    const sysroot = scratchSysroot();
    const { reference } = await unifiedLayout({ cmdlines: (d) => [`composefs.digest=?v1-sha512-12:${d}`] });
    await deploy(sysroot, reference, { allowMissingVerity: true });
    expect(sysroot.status().deployments[0]).toMatchObject({ level: 'unverified', composefs: { verity: 'optional' } });
    expect(await deploy(sysroot, reference, { allowMissingVerity: true })).toMatchObject({ changed: false });
  });

  test('that asks for fs-verity is refused where there is none, whatever was asked for', async () => {
    const sysroot = scratchSysroot();
    await expect(sysroot.deploy((await unifiedLayout()).reference)).rejects.toMatchObject({
      code: 'verity-unsupported',
      message: expect.stringContaining('boots only what is verified') as string,
    });
  });

  test('is deployed by the kernel beside it where GRUB starts the host, and refused without one', async () => {
    const sysroot = scratchSysroot();
    mkdirSync(`${sysroot.path}/boot/grub`);
    writeFileSync(`${sysroot.path}/boot/grub/hostctl.cfg`, MENU_SCRIPT);
    writeFileSync(`${sysroot.path}/boot/grub/grubenv`, emptyEnvironment());
    const { reference, digest } = await unifiedLayout();
    expect(await deploy(sysroot, reference, { kargs: ['mine'] })).toMatchObject({ changed: true, digest });
    expect(readdirSync(`${sysroot.path}/boot/hostctl/${kernelDirectory(sysroot)}`).sort()).toEqual(['initrd', 'linux']);
    expect(sysroot.status().deployments).toMatchObject([{ id: 1, problems: [], level: 'pinned' }]);
    expect(sysroot.status().deployments[0]?.entry?.kargs).toContain('mine');
    await expect(deploy(sysroot, (await unifiedLayout({ kernels: [] })).reference)).rejects.toMatchObject({
      code: 'host-unsupported',
      message: 'Cannot boot by "/boot/EFI/Linux/example.efi": GRUB starts this host',
    });
  });

  test('has arguments that are shown and not changed; those of the host come back with an image without it', async () => {
    const sysroot = scratchSysroot();
    await deploy(sysroot, bootableLayout().reference, { kargs: ['root=LABEL=x', 'mine'] });
    const cmdlines = (d: string) => [`root=LABEL=y composefs.digest=v1-sha512-12:${d}`];
    const { reference, digest } = await unifiedLayout({ version: '2', cmdlines });
    await deploy(sysroot, reference);
    expect(sysroot.host.warnings).toContain(
      'The unified kernel image "/boot/EFI/Linux/example.efi" has its own command line, and these are not in it: root=LABEL=x mine',
    );
    const options = { sysroot: sysroot.path };
    expect(showKargs(sysroot.host, options).kargs).toEqual([
      { arg: 'root=LABEL=y', origin: 'unified kernel image' },
      { arg: `composefs.digest=v1-sha512-12:${digest}`, origin: 'unified kernel image' },
    ]);
    const changes = { append: ['debug'], delete: [], replace: [] };
    const change = () =>
      changeDeploymentKargs(sysroot.host, { ...options, changes, plan: false, tries: 3, etcPolicy: {} });
    await expect(Promise.resolve().then(change)).rejects.toMatchObject({
      code: 'image-unsupported',
      message: expect.stringContaining('cannot be changed here') as string,
    });
    await deploy(sysroot, bootableLayout({ version: '3' }).reference);
    expect(sysroot.status().deployments[0]?.entry?.kargs).toEqual(expect.arrayContaining(['root=LABEL=x', 'mine']));
  });

  test.each([
    [['root=LABEL=x', 'mine'], 'root=LABEL=x', /image seal --uki --karg root=…/],
    [['root=LABEL=x', 'rootflags=subvol=/@'], 'root=LABEL=x rootflags=subvol=/@', /--karg rootflags=subvol=\/@/],
    [['rd.luks.uuid=luks-1234'], 'rd.luks.uuid=luks-1234', /--karg rd.luks.uuid/],
    [['systemd.mount-extra=LABEL=v:/var'], 'systemd.mount-extra=LABEL=v:/var', /--karg systemd.mount-extra/],
  ])('is refused on a host that needs %j, and nothing stays', async (kargs, lacking, hint) => {
    const sysroot = scratchSysroot();
    await deploy(sysroot, bootableLayout().reference, { kargs });
    const before = stateOf(sysroot.path);
    const { reference } = await unifiedLayout({ version: '2' });
    await expect(deploy(sysroot, reference)).rejects.toMatchObject({
      code: 'host-unsupported',
      message: `Cannot boot by "/boot/EFI/Linux/example.efi": its command line lacks what this host is found by, "${lacking}"`,
      hint: expect.stringMatching(hint) as string,
    });
    expect(stateOf(sysroot.path)).toEqual(before);
  });

  test('is there already whatever the host says in its kargs.d', async () => {
    const sysroot = scratchSysroot();
    const { reference, digest } = await unifiedLayout();
    await deploy(sysroot, reference);
    const directory = `${sysroot.path}/state/deploy/${digest}/etc/hostctl/kargs.d`;
    mkdirSync(directory, { recursive: true });
    writeFileSync(`${directory}/10.toml`, 'kargs = ["mine"]\n');
    expect(await deploy(sysroot, reference)).toMatchObject({ changed: false, id: 1 });
    await expect(deploy(sysroot, reference, { kargs: ['debug'] })).rejects.toMatchObject({ code: 'image-unsupported' });
  });

  test('under another manifest is nothing new to an upgrade, and refused as another image', async () => {
    const sysroot = scratchSysroot();
    const host = withFakeVerity(sysroot.host);
    const directory = scratchDir();
    const first = await unifiedLayout({ directory });
    await deploy(sysroot, first.reference);
    const options = upgradeOptions(sysroot, { allowMissingVerity: false });
    const elsewhere = await unifiedLayout();
    await expect(upgrade(host, { ...options, image: elsewhere.reference })).rejects.toMatchObject({
      code: 'deployment-in-use',
      hint: 'It boots this root already: take the image when it has another one',
    });
    const labels = { 'containers.bootc': '1', more: 'yes' };
    const second = await unifiedLayout({ directory, layout: { tag: 'next', labels } });
    expect(second).toMatchObject({ digest: first.digest, uki: first.uki });
    expect(second.manifestDigest).not.toBe(first.manifestDigest);
    expect(await planUpgrade(host, options)).toMatchObject({ avoided: null, change: null });
    expect(await upgrade(host, options)).toMatchObject({ changed: false, id: 1, avoided: null });
    expect(sysroot.host.warnings.at(-1)).toMatch(/the root and the kernel of deployment 1: nothing is new$/);
    await expect(upgrade(host, { ...options, tag: 'next' })).rejects.toMatchObject({ code: 'deployment-in-use' });
    // Another file for the same root is another matter.
    const cmdlines = (d: string) => [`debug composefs.digest=v1-sha512-12:${d}`];
    await unifiedLayout({ directory, cmdlines });
    await expect(upgrade(host, options)).rejects.toMatchObject({ code: 'deployment-in-use' });
    await expect(planUpgrade(host, options)).rejects.toMatchObject({ code: 'deployment-in-use' });
  });

  test('of a root that boots by a kernel and an initramfs waits for another root', async () => {
    const sysroot = scratchSysroot();
    const directory = scratchDir();
    const { digest } = await deploy(sysroot, bootableLayout({ directory }).reference);
    expect((await unifiedLayout({ directory })).digest).toBe(digest);
    const options = upgradeOptions(sysroot, { allowMissingVerity: false });
    await expect(upgrade(withFakeVerity(sysroot.host), options)).rejects.toMatchObject({
      code: 'deployment-in-use',
      hint: expect.stringContaining('made of the next release') as string,
    });
  });

  test('has one deployment, which is gone back to; deleted it can be made again', async () => {
    const { sysroot, reference, digest } = await twoDeployments();
    await expect(deploy(sysroot, reference)).rejects.toMatchObject({
      code: 'deployment-in-use',
      hint: 'Go to it with "hostctl rollback --to 1", or remove it with "hostctl delete 1"',
    });
    const before = entryText(sysroot, 'hostctl-00000001.conf');
    expect(await rollback(sysroot.host, { sysroot: sysroot.path })).toMatchObject({
      ...{ from: 2, to: 1, kernelChanges: true, entryFile: 'hostctl-00000003.conf' },
      kargs: { added: ['quiet', `composefs.digest=v1-sha512-12:${digest}`] },
    });
    const startOf = (text: string): string[] => text.split('\n').filter((line) => /^(efi|x-hostctl)/.test(line));
    expect(startOf(entryText(sysroot, 'hostctl-00000003.conf'))).toEqual(startOf(before));
    expect(sysroot.status()).toMatchObject({ next: 1 });
    await rollback(sysroot.host, { sysroot: sysroot.path, to: '2' });
    await deleteDeployment(sysroot.host, { sysroot: sysroot.path, id: '1' });
    expect(await deploy(sysroot, reference)).toMatchObject({ changed: true, digest });
  });

  test('is staged, and finalized by its name', async () => {
    const { sysroot } = await twoDeployments();
    const { reference, digest } = await unifiedLayout({ version: '3' });
    expect(await deploy(sysroot, reference, { stage: true })).toMatchObject({ isStaged: true });
    await expect(deploy(sysroot, reference)).rejects.toMatchObject({
      hint: 'It is staged: reboot, or drop it with "hostctl unstage"',
    });
    await finalizeStaged(sysroot.host, { sysroot: sysroot.path, etcPolicy: {} });
    expect(sysroot.status()).toMatchObject({ next: 3, deployments: [{ composefs: { digest }, problems: [] }, {}, {}] });
  });

  test('takes the place of what a command that died left of it', async () => {
    const sysroot = scratchSysroot();
    const { reference } = await unifiedLayout();
    const { entryFile } = await deploy(sysroot, reference);
    rmSync(`${sysroot.path}/boot/loader/entries/${entryFile}`);
    expect(await deploy(sysroot, reference)).toMatchObject({ changed: true, id: 2 });
    expect(sysroot.status().deployments).toMatchObject([{ id: 2, problems: [] }]);
  });

  test.each<readonly [string, (path: string) => void, string]>([
    ['the boot partition is not mounted', (path) => emptied(`${path}/boot`), 'state-invalid'],
    ['it is pinned', (path) => writeFileSync(`${path}/state/hostctl/pinned-1`, ''), 'deployment-in-use'],
    ['an entry cannot be read', (path) => writeFileSync(`${path}/boot/loader/entries/hostctl-00000007.conf`, '\0'), 'deployment-in-use'],
  ])('leaves what nobody starts as it is where %s', async (_what, spoil, code) => {
    const { sysroot, reference, digest } = await twoDeployments();
    rmSync(`${sysroot.path}/boot/loader/entries/hostctl-00000001.conf`);
    const changed = `${sysroot.path}/state/deploy/${digest}/etc/mine`;
    writeFileSync(changed, 'changed here');
    spoil(sysroot.path);
    await expect(deploy(sysroot, reference)).rejects.toMatchObject({ code });
    expect(readFileSync(changed, 'utf8')).toBe('changed here');
  }); // prettier-ignore

  test('leaves what a command that died left of it where its kernel does not fit', async () => {
    const { sysroot, reference, digest } = await twoDeployments();
    rmSync(`${sysroot.path}/boot/loader/entries/hostctl-00000001.conf`);
    const kept = `${sysroot.path}/state/deploy/${digest}/etc/mine`;
    writeFileSync(kept, '');
    // Every name that its kernel could have is taken by something that is damaged.
    const directories = readdirSync(`${sysroot.path}/boot/hostctl`);
    const [unified = ''] = directories.filter((name) => existsSync(`${sysroot.path}/boot/hostctl/${name}/uki.efi`));
    flip(`${sysroot.path}/boot/hostctl/${unified}/uki.efi`);
    for (let copy = 1; copy <= 100; copy += 1) mkdirSync(`${sysroot.path}/boot/hostctl/${unified}-${copy}`);
    await expect(deploy(sysroot, reference)).rejects.toMatchObject({
      code: 'state-invalid',
      message: expect.stringContaining('full of damaged copies') as string,
    });
    expect(existsSync(kept)).toBe(true);
  });

  test('is kept by gc as long as an entry starts it, and goes with it', async () => {
    const { sysroot, digest } = await twoDeployments({ addons: { 'a.addon.efi': 'debug' } });
    const collect = () => gc(sysroot.host, { sysroot: sysroot.path, keep: 2, dryRun: false });
    await collect();
    expect(readdirSync(`${sysroot.path}/boot/hostctl`)).toHaveLength(2);
    expect(sysroot.status().deployments).toMatchObject([{ id: 2 }, { id: 1, problems: [] }]);
    await deploy(sysroot, bootableLayout({ version: '3' }).reference);
    bless(sysroot, 3);
    await collect();
    expect(sysroot.status().deployments).toMatchObject([{ id: 3 }, { id: 2 }]);
    expect(readdirSync(`${sysroot.path}/boot/hostctl/${kernelDirectory(sysroot)}`).sort()).toEqual(['initrd', 'linux']);
    expect(existsSync(`${sysroot.path}/composefs/images/${digest}`)).toBe(false);
  });

  test.each([
    ['one byte of it is changed', (base: string) => flip(`${base}/uki.efi`)],
    ['one byte of an add-on is changed', (base: string) => flip(`${base}/uki.efi.extra.d/a.addon.efi`)],
    ['an add-on is missing', (base: string) => rmSync(`${base}/uki.efi.extra.d/a.addon.efi`)],
    [
      'an add-on has another name',
      (base: string) => renameSync(`${base}/uki.efi.extra.d/a.addon.efi`, `${base}/uki.efi.extra.d/b.addon.efi`),
    ],
    ['an add-on came to it', (base: string) => writeFileSync(`${base}/uki.efi.extra.d/z.addon.efi`, 'x')],
    ['it is missing', (base: string) => rmSync(`${base}/uki.efi`)],
  ])('is found damaged by fsck where %s, and fetched again', async (_what, damage) => {
    const sysroot = scratchSysroot();
    const { reference, uki } = await unifiedLayout({ addons: { 'a.addon.efi': 'debug' } });
    await deploy(sysroot, reference);
    bless(sysroot, 1);
    // What lies in /boot is no part of the image, and not kept for it.
    await gc(sysroot.host, { sysroot: sysroot.path, keep: 1, dryRun: false });
    const before = kernelDirectory(sysroot);
    damage(`${sysroot.path}/boot/hostctl/${before}`);
    const check = (repair: boolean) =>
      fsck(withFakeVerity(sysroot.host), { sysroot: sysroot.path, deep: false, repair });
    const found = await check(false);
    expect(found.findings.map(({ code }) => code)).toContain('kernel-corrupt');
    const { findings, failures } = await check(true);
    expect({ open: findings.filter(({ repaired }) => !repaired), failures }).toEqual({ open: [], failures: [] });
    expect((await check(false)).findings).toEqual([]);
    const { boot } = openSysroot(sysroot.host, { sysroot: sysroot.path });
    const [entry] = listEntries(boot).entries;
    expect(readFileSync(`${sysroot.path}${entry?.efi}`)).toEqual(uki);
    expect(sysroot.status().deployments).toMatchObject([{ id: 1, problems: [] }]);
  });

  test('says in a plan what it takes on the boot partition, and which arguments change', async () => {
    const sysroot = scratchSysroot();
    await deploy(sysroot, bootableLayout().reference, { kargs: ['mine'] });
    const { reference, uki } = await unifiedLayout({ version: '2', addons: { 'a.addon.efi': 'debug' } });
    const options = upgradeOptions(sysroot, { image: reference, allowMissingVerity: false });
    const { change } = await planUpgrade(withFakeVerity(sysroot.host), options);
    expect(change?.kargs).toMatchObject({ added: ['quiet', 'debug'] });
    expect(change?.kargs.removed).toContain('mine');
    // Two files, two directories, and what the file system rounds up.
    expect(change?.bootBytes).toBe(Math.ceil(uki.length / 4096) * 4096 + 4096 + 4 * 4096);
  });

  test.each([
    ['lacks', 'usr/bin/true', [expect.objectContaining({ code: 'boot-hook', severity: 'fatal' })]],
    ['has', 'usr/lib/hostctl/hostctl-root', []],
  ])('is judged by the initramfs in it, which %s the hook', async (_what, name, expected) => {
    const initrd = cpio({ [name]: 'x' });
    const { reference } = await unifiedLayout({ initrd });
    const { findings } = await lintImage(testHost(), { image: reference });
    expect(
      findings.filter(({ code }) => ['boot-hook', 'initramfs-unreadable', 'mount-point-content'].includes(code)),
    ).toEqual(expected);
  });

  test('is told from another one by diff, of images and of deployments', async () => {
    const sysroot = scratchSysroot();
    const images = [
      await unifiedLayout({ version: '1' }),
      await unifiedLayout({ version: '2', initrd: Buffer.alloc(9, 'x') }),
    ];
    for (const { reference } of images) await deploy(sysroot, reference);
    const kernel = async (from?: string, to?: string) =>
      (await diff(sysroot.host, { sysroot: sysroot.path, from, to })).kernel;
    const differs = { from: '6.12.0', to: '6.12.0', changed: ['unified kernel image'] };
    const [a, b] = images.map(({ reference }) => reference);
    expect(await kernel(a, b)).toEqual(differs);
    expect(await kernel('1', '2')).toEqual(differs);
    expect(await kernel(a, bootableLayout().reference)).toEqual(differs);
    expect(await kernel(a, a)).toEqual({ ...differs, changed: [] });
    expect(await kernel('1', a)).toEqual({ ...differs, changed: [] });
    const alone = await unifiedLayout({ kernels: [], more: [tarDir('usr/lib/modules/6.14.0')] });
    expect((await kernel(a, alone.reference)).to).toBe('6.14.0');
  });

  test('needs no other kernel in the image', async () => {
    const sysroot = scratchSysroot();
    const { reference, digest } = await unifiedLayout({ kernels: [] });
    expect(await deploy(sysroot, reference)).toMatchObject({ changed: true, digest });
  });
});

function emptied(path: string): void {
  renameSync(path, `${path}.elsewhere`);
  mkdirSync(path);
}

function flip(path: string): void {
  const bytes = readFileSync(path);
  bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
  writeFileSync(path, bytes);
}
