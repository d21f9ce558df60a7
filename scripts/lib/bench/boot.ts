/**
 * `npm run bench -- --boot`: what only a booted machine shows, in a guest under emulation. What hostctl's hook adds to an
 * initramfs that mounts an ordinary root, and what fs-verity adds to a pull. Times of an emulator say nothing by
 * themselves: only ratios within the guest do.
 */

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { blankDisk, makeExt4 } from '../../../test/vm/lib/disk.ts';
import { runGuest, type Answers, type Step } from '../../../test/vm/lib/guest.ts';
import { copyDisk, installedDisk, LAYOUT_SERIAL, MOUNT_LAYOUT } from '../../../test/vm/lib/installed-disk.ts';
import { reasonNoMachines } from '../../../test/vm/lib/requirements.ts';
import { testImage } from '../../../test/vm/lib/test-image.ts';
import { buildPackage } from '../deb.ts';
import { run } from '../run.ts';
import { initramfsMilliseconds, journalOf, unitMilliseconds } from './boot-times.ts';
import { comparisonsJson, formatComparisons, type Comparison } from './comparison.ts';
import { writeBenchImage } from './image.ts';
import { median } from './measure.ts';
import type { Say } from './setting.ts';

const BOOTS = 3;
const DEADLINE_MS = 3_000_000;
const HOOK = 'hostctl-root.service';
const ROOT = 'sysroot.mount';
/** A thousand objects, and a kernel with its initramfs. */
const IMAGE_SCALE = 0.02;
const DISK_MIB = 1024;
const KINDS = ['verity', 'plain'] as const;

const TIMES: readonly Step[] = [
  { name: 'journal', run: journalOf([HOOK, ROOT]) },
  { name: 'analyze', run: 'systemctl is-system-running --wait >/dev/null; systemd-analyze time' },
];

/** Pulls one image onto both file systems in turn; prints kind, digest, and seconds of wall, user and system. */
function pullSteps(rounds: number): Step[] {
  const disk = (kind: string): string => `mkdir -p /run/${kind} && mount /dev/disk/by-id/virtio-${kind} /run/${kind}`;
  const pull = [
    'set -e',
    'TIMEFORMAT="%R %U %S"',
    'rm -rf /run/$1/repo; sync',
    '{ time hostctl --quiet image pull oci:/run/layout --repo /run/$1/repo >/run/digest; } 2>/run/times',
    'echo "$1 $(cat /run/digest) $(tail -n 1 /run/times)"',
  ].join('\n');
  const loop = `for round in $(seq ${rounds}); do for kind in ${KINDS.join(' ')}; do bash -c '${pull}' pull $kind; done; done`;
  const measured = (kind: string): string =>
    `fsverity measure "$(find /run/${kind}/repo/objects -type f -print -quit)" >/dev/null 2>&1 && echo yes || echo no`;
  return [
    { name: 'layout', run: MOUNT_LAYOUT },
    { name: 'disks', run: KINDS.map(disk).join(' && ') },
    // The program and the layout are in memory from then on.
    { name: 'warm', run: 'hostctl --quiet image pull oci:/run/layout --repo /run/plain/repo' },
    { name: 'pulls', run: loop },
    ...KINDS.map((kind): Step => ({ name: `has-${kind}`, run: measured(kind) })),
  ];
}

export interface BootOptions {
  /** Of pulls in one boot. */
  readonly rounds: number;
  readonly json: string | undefined;
}

/** Boots, measures, prints. `folder` is for everything that is made. */
export async function benchBoot(folder: string, { rounds, json }: BootOptions, say: Say): Promise<void> {
  const reason = await reasonNoMachines(say);
  if (reason !== undefined) throw new Error(`No machine can run here: ${reason}`);
  const image = await testImage(await buildPackage(folder), say);
  const disk = await copyDisk((await installedDisk(image, say)).path, join(folder, 'disk.img'));
  const layout = await smallLayout(folder);
  const disks = [{ path: disk }, { path: layout, serial: LAYOUT_SERIAL }];
  for (const kind of KINDS) {
    const path = join(folder, `${kind}.img`);
    await blankDisk(path, DISK_MIB);
    await run('mkfs.ext4', ['-q', '-F', '-b', '4096', '-O', kind === 'verity' ? 'verity' : '^verity', path]);
    disks.push({ path, serial: kind });
  }
  const boots: Answers[] = [];
  for (let boot = 1; boot <= BOOTS; boot++) {
    say(`Boot ${boot} of ${BOOTS}`);
    const steps = boot === 1 ? [...TIMES, ...pullSteps(rounds)] : TIMES;
    const guest = await runGuest({ folder, name: `boot-${boot}`, disks, steps, deadlineMs: DEADLINE_MS });
    say(`Took ${guest.seconds} s`);
    boots.push(guest.answers);
  }
  const comparisons = [...hookTimes(boots), ...pullTimes(boots[0]!)];
  console.log(`In a guest under emulation, ${BOOTS} boots, ${rounds} rounds of pulls`);
  console.log(formatComparisons(comparisons));
  if (json !== undefined) writeFileSync(json, `${JSON.stringify(comparisonsJson(comparisons), undefined, 2)}\n`);
}

async function smallLayout(folder: string): Promise<string> {
  const layout = join(folder, 'layout');
  mkdirSync(layout);
  await writeBenchImage(layout, { scale: IMAGE_SCALE, compression: 'gzip', layers: 1 });
  const disk = join(folder, 'layout.ext4');
  await makeExt4(layout, disk, { label: 'layout' });
  return disk;
}

function hookTimes(boots: readonly Answers[]): Comparison[] {
  const middle = (of: (answers: Answers) => number): number => median(boots.map(of));
  const hook = (answers: Answers): number => unitMilliseconds(answers.ok('journal'), HOOK);
  const root = (answers: Answers): number => unitMilliseconds(answers.ok('journal'), ROOT);
  const whole = (answers: Answers): number => initramfsMilliseconds(answers.ok('analyze'));
  const unit = 'ms';
  return [
    { row: 'root hook', unit, hostctl: middle(hook), reference: middle(root), against: 'the mount of the ext4 root, before it' }, // prettier-ignore
    { row: 'initramfs', unit, hostctl: middle(whole), reference: middle((boot) => whole(boot) - hook(boot)), against: 'the same boots without the hook' }, // prettier-ignore
  ];
}

function pullTimes(answers: Answers): Comparison[] {
  const against = 'ext4 without fs-verity';
  const rows = answers
    .ok('pulls')
    .trim()
    .split('\n')
    .map((line) => line.split(' '));
  const problem =
    answers.ok('has-verity').trim() !== 'yes' || answers.ok('has-plain').trim() !== 'no'
      ? 'Not so: one file system has fs-verity and the other has not'
      : new Set(rows.map(([, digest]) => digest)).size !== 1
        ? 'Not so: all pulls say one digest'
        : undefined;
  const seconds = (kind: string, of: (words: readonly number[]) => number): number | undefined =>
    problem === undefined ? median(rows.filter(([first]) => first === kind).map((words) => of(words.slice(2).map(Number)))) : undefined; // prettier-ignore
  const row = (name: string, of: (words: readonly number[]) => number): Comparison => ({
    row: `pull with fs-verity: ${name}`,
    unit: 's',
    hostctl: seconds('verity', of),
    reference: seconds('plain', of),
    against,
    note: problem,
  });
  return [row('CPU', ([, user = NaN, system = NaN]) => user + system), row('wall', ([wall = NaN]) => wall)];
}
