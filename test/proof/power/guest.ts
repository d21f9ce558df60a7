/**
 * Recording in a guest: for FAT boot partitions, since few hosts have a kernel that lacks nothing. The guest is Debian
 * from its packages, started without firmware or initramfs; the disks under proof are files of the recorder, so that
 * what reaches them and in which order is written down outside.
 */

import { spawn } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { projectPath } from '../../../scripts/lib/project.ts';
import { run } from '../../../scripts/lib/run.ts';
import { cached, cacheFolder } from '../../vm/lib/cache.ts';
import { debianArchive } from '../../vm/lib/debian.ts';
import { BOOTED_ROOT, type Command, EDIT, EDITED, type Setup } from '../commands.ts';
import { type FileSystem, makeDisk } from '../lib/disks.ts';
import { AS_INSTALLER, type Disks, type Lab } from '../lib/scene.ts';
import { parseRecordings, type Recording, startRecorder } from './recording.ts';

/** One command to be recorded in the guest. */
export interface GuestJob {
  readonly command: Command;
  readonly types: { readonly root: FileSystem; readonly boot: FileSystem };
  /** The program under proof; bundles of mutants differ from job to job. */
  readonly program: string;
  /** A first run of the command that is killed at this call, without a power cut. */
  readonly killedFirstAt?: number;
}

export interface GuestRecording {
  readonly job: GuestJob;
  /** The disks as they were made, empty; everything since stands in the recording. */
  readonly disks: Disks;
  readonly recording: Recording;
}

const DEADLINE_MS = 1_800_000;

/** Runs on the guest's own disk as its only process: no service manager, nothing else that writes. */
const INIT = `#!/bin/sh
export PATH=/usr/sbin:/usr/bin HOME=/root LC_ALL=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mount -t tmpfs tmp /run
mount -t tmpfs tmp /tmp
modprobe -a virtio_blk vfat nls_ascii nls_cp437 nls_utf8 xfs btrfs
device() { for disk in /sys/block/vd*; do [ "$(cat $disk/serial)" = "$1" ] && echo /dev/\${disk##*/}; done; }
mkdir -p /run/work
mount -o ro "$(device work)" /run/work
. /run/work/steps.sh
echo o >/proc/sysrq-trigger
sleep 60
`;

/** The guest's system disk and kernel, from the cache where they were made before. */
async function guestSystem(say: (line: string) => void): Promise<{ disk: string; kernel: string }> {
  const archive = await debianArchive(say);
  const folder = await cached('proof-guest', [archive, INIT], async (target) => {
    say('Building the disk of the recording guest (kept for next time)');
    const scratch = mkdtempSync(join(cacheFolder(), '.proof-guest-'));
    try {
      await run('tar', ['--extract', '--zstd', '--numeric-owner', '-f', archive, '-C', scratch]);
      writeFileSync(`${scratch}/proof-init`, INIT, { mode: 0o755 });
      const version = (await run('ls', [`${scratch}/usr/lib/modules`])).trim();
      await run('cp', [`${scratch}/boot/vmlinuz-${version}`, `${target}/vmlinuz`]);
      writeFileSync(`${target}/disk.img`, '');
      truncateSync(`${target}/disk.img`, 1536 * 2 ** 20);
      await run('mkfs.ext4', ['-q', '-F', '-d', scratch, `${target}/disk.img`]);
    } finally {
      rmSync(scratch, { recursive: true });
    }
  });
  return { disk: `${folder}/disk.img`, kernel: `${folder}/vmlinuz` };
}

/** Records all jobs in one boot of the guest. Throws with the end of its console where one of them fails. */
export async function recordInGuest(
  lab: Lab,
  jobs: readonly GuestJob[],
  { tracer, recorder: recorderProgram }: { readonly tracer: string; readonly recorder: string },
  say: (line: string) => void,
): Promise<GuestRecording[]> {
  const system = await guestSystem(say);
  const directory = `${lab.directory}/guest`;
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  const served: Record<string, string> = {};
  const disks: Disks[] = [];
  for (const [index, { types }] of jobs.entries()) {
    const own = { root: `${directory}/root-${index}.img`, boot: `${directory}/boot-${index}.img` };
    await makeDisk(own.root, types.root);
    await makeDisk(own.boot, types.boot);
    served[`r${index}`] = own.root;
    served[`b${index}`] = own.boot;
    disks.push(own);
  }
  served['mark'] = `${directory}/mark.img`;
  writeFileSync(served['mark'], '');
  truncateSync(served['mark'], 65_536);
  const { programs, steps } = await jobSteps(jobs);
  const work = await workDisk(lab, directory, { ...programs, trace: tracer }, steps);
  const recorder = await startRecorder(recorderProgram, directory, served);
  let console = '';
  try {
    console = await boot(
      system,
      work,
      Object.keys(served).map((name) => ({ name, path: `${recorder.at}/${name}` })),
    );
  } finally {
    await recorder.close();
  }
  const failed = jobs.findIndex((_, index) => !console.includes(`proof: job ${index} done`));
  if (failed >= 0) throw new Error(`The guest did not finish job ${failed}:\n${console.slice(-4000)}`);
  const recordings = parseRecordings(readFileSync(recorder.log), jobs.length);
  return jobs.map((job, index) => {
    const [recording, own] = [recordings[index], disks[index]];
    if (!recording || !own) throw new Error(`Job ${index} has no recording`);
    return { job, disks: own, recording };
  });
}

/**
 * Runs a script of the proof in the guest and returns what it prints. It finds hostctl below `/run/work/hostctl`, the
 * images in `/run/work/images`, and loop devices.
 */
export async function runInGuest(
  lab: Lab,
  script: string,
  args: readonly string[],
  say: (line: string) => void,
): Promise<string> {
  const system = await guestSystem(say);
  const directory = `${lab.directory}/guest`;
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  const words = args.map((arg) => `'${arg}'`).join(' ');
  const steps = `modprobe loop\nnode /run/work/script.mjs ${words}\n`;
  const work = await workDisk(lab, directory, { 'script.mjs': script, hostctl: dirname(lab.program) }, steps);
  return boot(system, work, []);
}

/** A disk with these files and folders, what hostctl needs, the images, and what to do. */
async function workDisk(
  lab: Lab,
  directory: string,
  files: Readonly<Record<string, string>>,
  steps: string,
): Promise<string> {
  const folder = `${directory}/work`;
  mkdirSync(folder);
  for (const [name, path] of Object.entries(files)) cpSync(path, `${folder}/${name}`, { recursive: true });
  for (const name of ['koffi', '@koromix']) {
    cpSync(projectPath('node_modules', name), `${folder}/node_modules/${name}`, { recursive: true });
  }
  cpSync(lab.images, `${folder}/images`, { recursive: true });
  writeFileSync(`${folder}/as-installer.sh`, AS_INSTALLER);
  writeFileSync(`${folder}/steps.sh`, steps);
  const image = `${directory}/work.img`;
  writeFileSync(image, '');
  truncateSync(image, 128 * 2 ** 20);
  await run('mkfs.ext4', ['-q', '-F', '-d', folder, image]);
  return image;
}

/** What records the jobs, one after the other, and the folders of the programs for that by their names. */
async function jobSteps(jobs: readonly GuestJob[]): Promise<{ programs: Record<string, string>; steps: string }> {
  const programs = [...new Set(jobs.map(({ program }) => program))];
  const steps: string[] = [PRELUDE];
  for (const [index, { command, types, program, killedFirstAt }] of jobs.entries()) {
    const hostctl = `node /run/work/program-${programs.indexOf(program)}/main.js --sysroot /run/root --boot /run/boot`;
    const image: Setup['image'] = (tag) => `oci:/run/work/images:${tag}`;
    const lines: string[] = [`open_disks ${index} ${types.root} ${types.boot}`];
    await command.prepare({
      hostctl: (...args) => {
        lines.push(`${hostctl} ${args.join(' ')}`);
        return Promise.resolve();
      },
      bless: () => void lines.push('bless'),
      edit: () => {
        lines.push(`for state in /run/root/state/deploy/*; do printf '${EDIT}' >"$state/${EDITED}"; done`);
      },
      damage: () => {
        throw new Error('Nothing is damaged in a guest');
      },
      damageKernel: () => {
        throw new Error('Nothing is damaged in a guest');
      },
      bootc: () => {
        throw new Error('No host of bootc is made in a guest');
      },
      useUp: () => {
        throw new Error(`"${command.name}" is not recorded in a guest`);
      },
      trust: () => {
        throw new Error('Nothing is sealed in a guest');
      },
      grub: () => {
        throw new Error(`"${command.name}" is not recorded in a guest`);
      },
      cutOff: () => {
        throw new Error(`"${command.name}" is not recorded in a guest`);
      },
      image,
    });
    lines.push('close_disks', `open_disks ${index} ${types.root} ${types.boot}`, `mark "begin ${index}"`);
    const as = command.isInstall ? 'unshare --mount sh /run/work/as-installer.sh /run/root /run/boot ' : '';
    const words = `${as}${hostctl} ${command.args(image).join(' ')}`;
    if (killedFirstAt !== undefined) lines.push(`killed_at ${killedFirstAt} ${words}`);
    lines.push(words, `mark "end ${index}"`);
    // What the kernel writes later by itself belongs to the recording too.
    lines.push('sleep 1', 'close_disks', `mark "after ${index}"`, `echo "proof: job ${index} done"`);
    steps.push(`( set -e\n${lines.join('\n')}\n)`);
  }
  return {
    programs: Object.fromEntries(programs.map((program, index) => [`program-${index}`, dirname(program)])),
    steps: `${steps.join('\n')}\n`,
  };
}

const PRELUDE = `mkdir -p ${BOOTED_ROOT}
mark() { printf '%-512s' "$1" | dd of="$(device mark)" bs=512 count=1 oflag=direct status=none; }
open_disks() {
  mkdir -p /run/root /run/boot
  mount -t "$2" "$(device "r$1")" /run/root
  mount -t "$3" "$(device "b$1")" /run/boot
  sync
}
close_disks() { umount /run/boot /run/root; sync; }
killed_at() {
  at=$1
  shift
  /run/work/trace --log /run/trace --watch /run/root --watch /run/boot --fault kill --at "$at" -- "$@"
  grep '^HIT' /run/trace || echo "proof: call $at was not reached"
}
bless() {
  name=$(ls /run/boot/loader/entries | grep 'conf$' | sort | tail -n 1)
  case $name in *+*) mv "/run/boot/loader/entries/$name" "/run/boot/loader/entries/\${name%%+*}.conf" ;; esac
}`;

interface GuestDisk {
  readonly name: string;
  readonly path: string;
}

async function boot(
  system: { disk: string; kernel: string },
  work: string,
  disks: readonly GuestDisk[],
): Promise<string> {
  const args = ['-M', 'q35', '-cpu', 'qemu64', '-accel', 'tcg,thread=multi', '-smp', '2', '-m', '1024'];
  args.push('-nodefaults', '-display', 'none', '-vga', 'none', '-no-reboot', '-serial', 'stdio');
  args.push(
    '-kernel',
    system.kernel,
    '-append',
    'console=ttyS0 quiet loglevel=3 panic=-1 root=/dev/nvme0n1 rw init=/proof-init',
  );
  args.push('-drive', `file=${system.disk},if=none,id=system,format=raw,snapshot=on`);
  args.push('-device', 'nvme,drive=system,serial=system', '-device', 'virtio-rng-pci');
  // The recorder's files bypass the page cache by themselves; O_DIRECT would only round every write up to 4096 bytes.
  const all = [
    { name: 'work', path: work, options: 'readonly=on' },
    ...disks.map((disk) => ({ ...disk, options: 'cache=none' })),
  ];
  for (const [index, { name, path, options }] of all.entries()) {
    // Eight to a slot: a machine has fewer slots than a full run has disks.
    const place = `addr=${(8 + (index >> 3)).toString(16)}.${index & 7},multifunction=on`;
    args.push('-drive', `file=${path},if=none,id=${name},format=raw,${options}`);
    args.push('-device', `virtio-blk-pci,drive=${name},serial=${name},${place}`);
  }
  const child = spawn('qemu-system-x86_64', args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
  const kill = (): void => void child.kill('SIGKILL');
  process.once('exit', kill);
  const deadline = setTimeout(kill, DEADLINE_MS);
  try {
    await new Promise((resolve, reject) => {
      child.on('error', reject);
      child.on('close', resolve);
    });
  } finally {
    clearTimeout(deadline);
    process.removeListener('exit', kill);
  }
  return output;
}
