/** `report`, and the part of `status --verbose` about the host, by the built program. */

import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { hostctl } from '../helpers/run-program.ts';
import { scratchSysroot, type ScratchSysroot } from '../helpers/scratch-sysroot.ts';

interface ReportDocument {
  readonly program: Record<string, string>;
  readonly machine: Record<string, string | null>;
  readonly status: { readonly next: number; readonly deployments: readonly { readonly id: number }[] };
  readonly places: { readonly sysroot: string; readonly freeBytes: Record<string, number> };
  readonly entries: Record<string, string>;
  readonly config?: Record<string, string>;
  readonly fsck: readonly { readonly code: string }[];
  readonly problems: readonly string[];
}

async function deployed(): Promise<ScratchSysroot> {
  const sysroot = scratchSysroot();
  await sysroot.deploy(bootableLayout().reference, { kargs: ['root=UUID=1', 'iscsi_password=hunter2'] });
  return sysroot;
}

function report({ path }: ScratchSysroot, ...args: string[]): ReportDocument {
  const { exitCode, stdout } = hostctl(['report', '--json', '--sysroot', path, ...args]);
  expect(exitCode).toBe(0);
  return JSON.parse(stdout) as ReportDocument;
}

test('A report has what boots, where it lies and how it is configured, and no secret', async () => {
  const sysroot = await deployed();
  const config = `${sysroot.path}/hostctl.conf`;
  writeFileSync(config, '; mirror https://user:hunter2@registry.example/\n[retention]\nkeep = 4\n');
  writeFileSync(
    `${sysroot.path}/boot/loader/entries/other.conf`,
    'title Other\nmachine-id 0123456789abcdef0123456789abcdef\nlinux /vmlinuz\n',
  );
  const document = report(sysroot, '--config', config);
  expect(document).toMatchObject({
    apiVersion: 'hostctl/v1',
    kind: 'HostReport',
    program: { node: process.version },
    status: { next: 1, deployments: [{ id: 1 }] },
    places: { sysroot: sysroot.path, isRunning: false },
    config: { [config]: expect.stringContaining('keep = 4') as string },
    history: [{ sequence: 1, action: 'deploy' }],
    fsck: [],
    problems: [],
  });
  expect(Object.keys(document.entries)).toEqual(['hostctl-00000001+3-0.conf', 'other.conf']);
  expect(document.entries['hostctl-00000001+3-0.conf']).toContain('options root=UUID=1 ');
  expect(document.places.freeBytes[sysroot.path]).toBeGreaterThan(0);
  const text = JSON.stringify(document);
  expect(text).toContain('iscsi_password=(hidden)');
  for (const secret of ['hunter2', '0123456789abcdef0123456789abcdef']) expect(text).not.toContain(secret);
});

test('A part that cannot be read is named, and the others are there', async () => {
  const sysroot = await deployed();
  rmSync(`${sysroot.path}/composefs/meta.json`);
  mkdirSync(`${sysroot.path}/composefs/meta.json`);
  const document = report(sysroot, '--config', '/no/such/file');
  expect(document.problems).toEqual([
    'config: The configuration "/no/such/file" does not exist',
    expect.stringMatching(/^fsck: .*meta.json" is not a regular file/),
  ]);
  expect(document.config).toBeUndefined();
  expect(document.status.deployments.map(({ id }) => id)).toEqual([1]);
});

test('For people it is the same in YAML', async () => {
  const { path } = await deployed();
  const human = hostctl(['report', '--sysroot', path]);
  const yaml = hostctl(['report', '--sysroot', path, '--format', 'yaml']);
  const stable = (text: string): string => text.replace(/\d{6,}/g, '');
  expect(stable(human.stdout)).toBe(stable(yaml.stdout));
  expect(human.stdout).toMatch(/^apiVersion: hostctl\/v1\nkind: HostReport\n/);
  expect(human.stderr).toBe('hostctl: Read it before you hand it on: names of images and files are in it\n');
});

test('status --verbose ends with the host', async () => {
  const { path } = await deployed();
  const { stdout } = hostctl(['status', '--verbose', '--sysroot', path]);
  expect(stdout).toContain(`\nHost\n  sysroot    ${path}\n  repository ${path}/composefs\n  boot       ${path}/boot\n`);
  expect(hostctl(['status', '--sysroot', path]).stdout).not.toContain('\nHost\n');
});
