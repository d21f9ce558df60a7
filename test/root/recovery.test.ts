/** The commands of docs/recovery.md as they stand there, on a damaged host of the test's own. */

import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { projectPath } from '../../scripts/lib/project.ts';
import { bless } from '../helpers/bless.ts';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { commandBlock } from '../helpers/documented-commands.ts';
import { hostctl } from '../helpers/run-program.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { scratchSysroot, type ScratchSysroot } from '../helpers/scratch-sysroot.ts';
import { tarFile } from '../helpers/tar-builder.ts';

const PAGE = 'docs/recovery.md';
const FILE = 'usr/share/large';

function content(version: number): string {
  return `version ${version}\n`.repeat(500);
}

interface Made {
  readonly sysroot: ScratchSysroot;
  readonly digests: string[];
  /** Of the second one. */
  readonly image: string;
}

async function twoDeployments(): Promise<Made> {
  const sysroot = scratchSysroot();
  const digests: string[] = [];
  let image = '';
  for (const id of [1, 2]) {
    image = bootableLayout({ version: String(id), more: [tarFile(FILE, content(id))] }).reference;
    digests.push((await sysroot.deploy(image)).digest);
    bless(sysroot, id);
  }
  return { sysroot, digests, image };
}

test('From another system: what is wrong is found, mended, and left', async () => {
  const { sysroot, digests, image } = await twoDeployments();
  writeFileSync(`${sysroot.path}/composefs/images/${digests[1] ?? ''}`, 'not an image');
  const ends: Record<string, number | null> = {};
  for (const command of commandBlock(PAGE).filter((line) => line.startsWith('hostctl --sysroot /mnt '))) {
    const here = `${image} --allow-missing-verity`;
    const words = command.replace('/mnt', sysroot.path).replace('ID', '1').replace('IMAGE', here).split(' ');
    ends[command.slice('hostctl --sysroot /mnt '.length)] = hostctl(words.slice(1)).exitCode;
  }
  expect(ends).toEqual({ status: 0, 'fsck --deep': 9, 'fsck --repair': 0, 'rollback --to ID': 0, 'deploy IMAGE': 0 });
  expect(hostctl(['--sysroot', sysroot.path, 'fsck', '--deep']).exitCode).toBe(0);
  const { next, deployments } = sysroot.status();
  expect(deployments.find(({ id }) => id === next)?.image.version).toBe('2');
});

test('Without hostctl: an image is looked into with mount alone', async () => {
  const { sysroot, digests } = await twoDeployments();
  const folder = scratchDir();
  for (const name of ['meta', 'tree']) mkdirSync(`${folder}/${name}`);
  const lines = readFileSync(projectPath(PAGE), 'utf8').match(/^ {4}mount -t .*$/gm) ?? [];
  expect(lines).toHaveLength(2);
  const script = lines
    .join('\n')
    .replaceAll('/tmp/', `${folder}/`)
    .replaceAll('/mnt/', `${sysroot.path}/`)
    .replaceAll('<digest>', digests[0] ?? '');
  const inside = ['--mount', '--propagation', 'private', 'sh', '-ec', `${script}\ncat ${folder}/tree/${FILE}`];
  expect(execFileSync('unshare', inside, { encoding: 'utf8' })).toBe(content(1));
});
