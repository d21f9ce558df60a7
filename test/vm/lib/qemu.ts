/**
 * Runs one boot of a machine in QEMU under software emulation, from power-on to its end. A machine that does not end by
 * itself is stopped at a deadline; only processes started here are ever stopped.
 */

import { spawn } from 'node:child_process';
import { copyFile, readFile, rm, writeFile } from 'node:fs/promises';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const OVMF_CODE = '/usr/share/OVMF/OVMF_CODE_4M.fd';
const OVMF_SECURE_CODE = '/usr/share/OVMF/OVMF_CODE_4M.secboot.fd';
const OVMF_VARS = '/usr/share/OVMF/OVMF_VARS_4M.fd';

/** A boot takes 30–50 s on an idle machine of two cores; on a busy one three times as long was seen. */
const DEFAULT_DEADLINE_MS = 300_000;
/** In which a machine that reboots would have done so. */
const LAST_MS = 30_000;

export interface MachineDisk {
  readonly path: string;
  /** Seen by the guest as /dev/disk/by-id/virtio-<serial>. */
  readonly serial?: string;
  /** The guest may write, the file stays as it is. */
  readonly discardWrites?: boolean;
  /** Writes and flushes go on to the file as the guest makes them. */
  readonly direct?: boolean;
}

export interface Boot {
  /** Folder for the serial log, the results and the firmware's variables; they stay after the run. */
  readonly folder: string;
  /** Distinguishes the boots of one folder; used in file names. */
  readonly name: string;
  /** The system disk first: devices are named in this order. */
  readonly disks: readonly MachineDisk[];
  /** What starts the boot loader; UEFI unless it says otherwise. With Secure Boot the keys are in the folder's `vars.fd`. */
  readonly firmware?: 'uefi' | 'bios' | 'secure-boot';
  /** Start this kernel without firmware or boot loader. */
  readonly direct?: { readonly kernel: string; readonly initrd: string; readonly cmdline: string };
  /** Strings of SMBIOS type 11, which systemd and systemd-boot take settings from. */
  readonly smbios: readonly string[];
  readonly memoryMiB?: number;
  /** A card by which the guest reaches this host's own ports, as 10.0.2.2. */
  readonly hasNetwork?: boolean;
  /** One goes by a clock of its own: a busy host makes it slow, and no time limit in it is reached for that. */
  readonly processors?: 1 | 2;
  readonly deadlineMs?: number;
  /** Once the serial log has this, the machine gets another `LAST_MS` to end by itself. */
  readonly stopAfter?: string;
}

export interface BootResult {
  /** What the guest wrote to /dev/virtio-ports/hostctl.test. */
  readonly channel: string;
  readonly serial: string;
  /** Whether the machine ended by itself. */
  readonly ended: boolean;
  readonly seconds: number;
}

/** The firmware's variables survive from boot to boot of one folder, as on a real machine. */
async function variableStore(folder: string): Promise<string> {
  const store = join(folder, 'vars.fd');
  if (!existsSync(store)) await copyFile(OVMF_VARS, store);
  return store;
}

async function machineArguments(boot: Boot, channel: string, serial: string): Promise<string[]> {
  const isSecure = boot.firmware === 'secure-boot';
  const args = ['-M', isSecure ? 'q35,smm=on' : 'q35', '-cpu', 'qemu64'];
  // Only the firmware may write its variables then.
  if (isSecure) args.push('-global', 'driver=cfi.pflash01,property=secure,value=on');
  if (boot.processors === 1) args.push('-accel', 'tcg', '-icount', 'shift=1');
  else args.push('-accel', 'tcg,thread=multi', '-smp', '2');
  args.push('-m', String(boot.memoryMiB ?? 2048), '-nodefaults', '-display', 'none', '-vga', 'none', '-no-reboot');
  if (boot.direct !== undefined) {
    args.push('-kernel', boot.direct.kernel, '-initrd', boot.direct.initrd, '-append', boot.direct.cmdline);
  } else if (boot.firmware !== 'bios') {
    args.push('-drive', `if=pflash,format=raw,unit=0,readonly=on,file=${isSecure ? OVMF_SECURE_CODE : OVMF_CODE}`);
    args.push('-drive', `if=pflash,format=raw,unit=1,file=${await variableStore(boot.folder)}`);
  }
  for (const [index, disk] of boot.disks.entries()) {
    const discard = disk.discardWrites === true ? ',snapshot=on' : '';
    const cache = disk.direct === true ? 'none' : 'unsafe';
    args.push('-drive', `file=${disk.path},if=none,id=d${index},format=raw,cache=${cache}${discard}`);
    const serialNumber = disk.serial === undefined ? '' : `,serial=${disk.serial}`;
    const bootIndex = index === 0 && boot.direct === undefined ? ',bootindex=0' : '';
    args.push('-device', `virtio-blk-pci,drive=d${index}${serialNumber}${bootIndex}`);
  }
  if (boot.hasNetwork === true) args.push('-netdev', 'user,id=host', '-device', 'virtio-net-pci,netdev=host');
  args.push('-device', 'virtio-rng-pci', '-device', 'virtio-serial-pci');
  args.push('-chardev', `file,id=channel,path=${channel}`);
  args.push('-device', 'virtserialport,chardev=channel,name=hostctl.test');
  args.push('-chardev', `file,id=serial,path=${serial}`, '-serial', 'chardev:serial');
  for (const [index, value] of boot.smbios.entries()) {
    // By file: a whole script is longer than is comfortable in an argument, and commas need no escaping there.
    const path = join(boot.folder, `${boot.name}.smbios-${index}`);
    await writeFile(path, value);
    args.push('-smbios', `type=11,path=${path}`);
  }
  return args;
}

/** Boots the machine and waits for its end or the deadline. */
export async function runMachine(boot: Boot): Promise<BootResult> {
  const channel = join(boot.folder, `${boot.name}.channel`);
  const serial = join(boot.folder, `${boot.name}.serial`);
  await rm(channel, { force: true });
  await rm(serial, { force: true });
  const started = Date.now();
  const child = spawn('qemu-system-x86_64', await machineArguments(boot, channel, serial), {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const complaints: Buffer[] = [];
  child.stderr.on('data', (chunk: Buffer) => complaints.push(chunk));
  const kill = (): void => void child.kill('SIGKILL');
  process.once('exit', kill);
  let ended = true;
  const stop = (): void => {
    ended = false;
    kill();
  };
  let deadline = setTimeout(stop, boot.deadlineMs ?? DEFAULT_DEADLINE_MS);
  const { stopAfter } = boot;
  const watch = setInterval(() => {
    if (stopAfter === undefined || !existsSync(serial) || !readFileSync(serial, 'utf8').includes(stopAfter)) return;
    clearInterval(watch);
    clearTimeout(deadline);
    deadline = setTimeout(stop, LAST_MS);
  }, 1000);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  }).finally(() => {
    clearInterval(watch);
    clearTimeout(deadline);
    process.removeListener('exit', kill);
  });
  if (ended && code !== 0) {
    throw new Error(`QEMU ended with ${code}: ${Buffer.concat(complaints).toString().trim()}`);
  }
  return {
    channel: await textOf(channel),
    serial: await textOf(serial),
    ended,
    seconds: Math.round((Date.now() - started) / 1000),
  };
}

async function textOf(path: string): Promise<string> {
  return existsSync(path) ? readFile(path, 'utf8') : '';
}

/** The end of a serial log without terminal codes, for a failed test's message. */
export function lastSerialLines(serial: string, count = 80): string {
  return serial
    .replace(/\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1bc|\r/g, '')
    .split('\n')
    .slice(-count)
    .join('\n');
}
