/** A host that bootc made with its composefs backend: seen, taken over, gone back on, and left as it is. */

import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { statusText } from '../../src/cli/view/status-text.ts';
import { grubDefaults } from '../../src/format/bls/grub-order.ts';
import { listEntries } from '../../src/deploy/boot-entries.ts';
import { openSysroot } from '../../src/deploy/sysroot.ts';
import { deleteDeployment } from '../../src/ops/delete-deployment.ts';
import { fsck } from '../../src/ops/fsck.ts';
import { gc } from '../../src/ops/gc.ts';
import { rollback } from '../../src/ops/rollback.ts';
import { upgrade } from '../../src/ops/upgrade.ts';
import { asBootc, type BootcForm, type BootcHost } from '../helpers/bootc-host.ts';
import { bless } from '../helpers/bless.ts';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { scratchSysroot, type ScratchSysroot } from '../helpers/scratch-sysroot.ts';
import { snapshot } from '../helpers/snapshot.ts';
import { tarFile } from '../helpers/tar-builder.ts';

interface Scene {
  readonly sysroot: ScratchSysroot;
  readonly bootc: BootcHost;
  /** What of bootc's is not as it was, nor there. */
  readonly changed: () => string[];
}

const FORMS: readonly BootcForm[] = (['grub', 'systemd-boot'] as const).flatMap((loader) =>
  ([1, 2] as const).map((formatVersion) => ({ loader, formatVersion, hasStreams: loader === 'grub' })),
);

async function bootcHost(form: BootcForm): Promise<Scene> {
  const sysroot = scratchSysroot();
  const { path } = sysroot;
  const old = bootableLayout({ version: '42', kargs: ['console=ttyS0', 'old=1'] });
  await sysroot.deploy(old.reference, { kargs: ['root=UUID=1', 'rw', 'local=1'] });
  const bootc = asBootc(path, `${path}/boot`, form);
  writeFileSync(`${path}/state/deploy/${bootc.digest}/etc/local.conf`, 'written on this host\n');
  const before = bootcFiles(sysroot, bootc);
  return {
    sysroot,
    bootc,
    changed: () => {
      const now = snapshot(path);
      return [...before].filter(([name, content]) => now[name] !== content).map(([name]) => name);
    },
  };
}

/** What lies in the places of bootc's, but for directories, which others may write into. */
function bootcFiles({ path }: ScratchSysroot, { paths }: BootcHost): [string, string][] {
  return Object.entries(snapshot(path)).filter(
    ([name, content]) => paths.some((place) => `${path}/${name}`.startsWith(place)) && !content.startsWith('directory'),
  );
}

function image(version: string): string {
  const more = [tarFile('usr/bin/version', Buffer.alloc(4000, `version ${version}`))];
  return bootableLayout({ version, kargs: ['console=ttyS0', 'new=1'], more }).reference;
}

function switchTo({ host, path }: ScratchSysroot, reference: string, keep = 3) {
  return upgrade(host, {
    sysroot: path,
    image: reference,
    kargs: [],
    algorithm: undefined,
    tries: 3,
    allowMissingVerity: true,
    allowDowngrade: false,
    etcPolicy: {},
    keep,
    downloadOnly: false,
  });
}

describe.each(FORMS)('bootc with $loader, image version $formatVersion', (form) => {
  test('is seen for what it is', async () => {
    const { sysroot, bootc } = await bootcHost(form);
    const document = sysroot.status();
    expect(document.deployments).toMatchObject([
      {
        id: null,
        tool: 'bootc',
        state: 'good',
        roles: ['next'],
        image: { reference: 'docker://registry.example/os:42', manifestDigest: `sha256:${'1'.repeat(64)}` },
        composefs: { digest: bootc.digest },
        entry: { file: bootc.entryFile },
        problems: [],
      },
    ]);
    expect(document.warnings.map(({ code }) => code)).toEqual(['bootc-host']);
    expect(statusText(document, false)).toContain(`Deployment ${bootc.digest.slice(0, 8)} of bootc (good) NEXT\n`);
    const { findings } = await fsck(sysroot.host, { sysroot: sysroot.path, deep: false, repair: false });
    expect(findings.filter(({ isCorrupt, code }) => isCorrupt && code !== 'bootc-host')).toEqual([]);
  });

  test('is taken over with its arguments and its /etc, and left as it is', async () => {
    const { sysroot, bootc, changed } = await bootcHost(form);
    const { path, host } = sysroot;
    const { id, entryFile } = await switchTo(sysroot, image('43'));
    expect(sysroot.status()).toMatchObject({ next: id, rollback: null });
    expect(sysroot.status().deployments.map(({ roles }) => roles)).toEqual([['next'], ['rollback']]);
    const { boot } = openSysroot(host, { sysroot: path });
    const { entries } = listEntries(boot);
    const ours = entries.find(({ file }) => file === entryFile);
    expect(entries[0]).toBe(ours);
    // The GRUBs that go by names; the oldest goes by versions, which status says.
    expect(grubDefaults(entries)).toContain(ours);
    expect(ours?.kargs.filter((arg) => !/^(composefs|panic|rd\.)/.test(arg))).toEqual([
      'root=UUID=1',
      'rw',
      'console=ttyS0',
      'new=1',
      'local=1',
    ]);
    const [name = ''] = readdirSync(`${path}/state/deploy`).filter((one) => one !== bootc.digest);
    expect(readFileSync(`${path}/state/deploy/${name}/etc/local.conf`, 'utf8')).toBe('written on this host\n');
    expect(changed()).toEqual([]);

    // It does not come up: the loader is back at bootc's.
    const file = `${path}/boot/loader/entries/${entryFile}`;
    renameSync(file, file.replace('+3-0', '+0-3'));
    expect(sysroot.status()).toMatchObject({ next: null });
    expect(sysroot.status().deployments.find(({ tool }) => tool === 'bootc')?.roles).toEqual(['next']);
  });

  test('is gone back to, also from further on', async () => {
    const { sysroot, bootc, changed } = await bootcHost(form);
    const { path, host } = sysroot;
    await switchTo(sysroot, image('43'));
    bless(sysroot, 1);
    const plan = await rollback(host, { sysroot: path });
    expect(plan).toMatchObject({ changed: true, from: 1, entryFile: 'hostctl-00000002.conf' });
    const [options, kernel] = ['options', 'linux'].map(
      (key) => (file: string) =>
        new RegExp(`^${key} (.*)$`, 'm').exec(readFileSync(`${path}/boot/loader/entries/${file}`, 'utf8'))?.[1],
    ) as [(file: string) => string, (file: string) => string];
    for (const of of [options, kernel]) expect(of('hostctl-00000002.conf')).toBe(of(bootc.entryFile));
    expect(sysroot.status().deployments.find(({ tool }) => tool === 'bootc')?.roles).toEqual(['next']);
    const { id } = await switchTo(sysroot, image('44'));
    bless(sysroot, id);
    expect(sysroot.status()).toMatchObject({ next: id });
    await rollback(host, { sysroot: path, to: bootc.digest.slice(0, 12) });
    expect(sysroot.status().deployments.find(({ tool }) => tool === 'bootc')?.roles).toEqual(['next']);
    expect(changed()).toEqual([]);
  });

  test('loses nothing to gc, and cannot be deleted', async () => {
    const { sysroot, bootc, changed } = await bootcHost(form);
    const { path, host } = sysroot;
    for (const version of ['43', '44', '45']) bless(sysroot, (await switchTo(sysroot, image(version), 2)).id);
    const result = await gc(host, { sysroot: path, keep: 2, dryRun: false });
    expect(result.notes.some(({ code }) => code === 'foreign-streams')).toBe(form.hasStreams);
    await expect(deleteDeployment(host, { sysroot: path, id: bootc.digest.slice(0, 12) })).rejects.toMatchObject({
      code: 'deployment-in-use',
    });
    expect(sysroot.status().deployments.map(({ id, tool }) => tool ?? id)).toEqual([3, 2, 'bootc']);
    expect(changed()).toEqual([]);
    // Of what went, objects stay only where bootc's streams may need them.
    const images = readdirSync(`${path}/composefs/images`).filter((name) => name !== 'refs');
    expect(images).toHaveLength(form.hasStreams ? 4 : 3);
  });
});

test('A bootc deployment that an EFI program of its own starts needs no entry', async () => {
  const { sysroot, bootc } = await bootcHost({ loader: 'systemd-boot', formatVersion: 1, hasStreams: false });
  const origin = `${sysroot.path}/state/deploy/${bootc.digest}/${bootc.digest}.origin`;
  writeFileSync(origin, readFileSync(origin, 'utf8').replace('boot_type=bls', 'boot_type=uki'));
  rmSync(`${sysroot.path}/boot/loader/entries/${bootc.entryFile}`);
  mkdirSync(`${sysroot.path}/boot/EFI/Linux/bootc`, { recursive: true });
  expect(sysroot.status().deployments).toMatchObject([{ tool: 'bootc', problems: [] }]);
});
