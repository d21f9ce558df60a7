/**
 * `report`: what somebody who was not there needs to see to understand a host. Read only, and each part by itself: what
 * cannot be read is a line under `problems` and never the end of the report.
 */

import { ENTRIES } from '../deploy/boot-entries.ts';
import { mountedBootPlaces, type BootPartition } from '../deploy/boot-partition.ts';
import { loaderText } from '../deploy/loader-variables.ts';
import { openSysroot, type Sysroot, type SysrootOptions } from '../deploy/sysroot.ts';
import { isShortage } from '../errors.ts';
import { parseOsRelease } from '../format/os-release.ts';
import type { Host } from '../sys/host.ts';
import { freeSpace, listNames, readSmallText } from '../sys/files.ts';
import type { MountEntry } from '../sys/mounts.ts';
import { fsck, type FsckResult } from './fsck.ts';
import { history } from './history.ts';
import { configFiles } from './load-config.ts';
import { status, type StatusResult } from './status.ts';

export interface ReportOptions extends SysrootOptions {
  readonly config?: string | undefined;
}

export interface Report {
  /** Undefined parts could not be read; `problems` says why. */
  readonly machine: Machine | undefined;
  readonly status: StatusResult | undefined;
  readonly places: Places | undefined;
  /** File names below `loader/entries` with their text; others' too, since they decide what boots as well. */
  readonly entries: Readonly<Record<string, string>> | undefined;
  readonly config: Readonly<Record<string, string>> | undefined;
  readonly history: readonly unknown[] | undefined;
  readonly fsck: FsckResult['findings'] | undefined;
  /** Of our units, in this boot and the ones before. */
  readonly journal: readonly string[] | undefined;
  readonly problems: readonly string[];
}

interface Machine {
  readonly os: string;
  readonly kernel: string;
  readonly architecture: string;
  readonly commandLine: string;
  readonly loader: string | null;
  readonly bootedEntry: string | null;
}

interface Places {
  readonly sysroot: string;
  readonly isRunning: boolean;
  readonly repo: string;
  readonly boot: BootPartition;
  readonly freeBytes: Readonly<Record<string, number>>;
  readonly mounts: readonly string[];
}

const MAX_ENTRIES = 200;
const MAX_EVENTS = 30;
const JOURNAL_LINES = 300;
const UNITS = 'hostctl-*';

export async function report(host: Host, options: ReportOptions): Promise<Report> {
  const problems: string[] = [];
  const part = async <T>(name: string, read: () => T | Promise<T>): Promise<T | undefined> => {
    try {
      return await read();
    } catch (error) {
      if (isShortage(error)) throw error;
      problems.push(`${name}: ${error instanceof Error ? error.message : String(error)}`);
      return undefined;
    }
  };
  const sysroot = openSysroot(host, options);
  return {
    machine: await part('machine', () => aboutMachine(host)),
    status: await part('status', () => status(host, options)),
    places: await part('places', () => aboutPlaces(host, sysroot)),
    entries: await part('entries', () => textsOf(sysroot.boot)),
    config: await part('config', () =>
      Object.fromEntries(configFiles(options.config).map(({ name, text }) => [name, text])),
    ),
    history: await part('history', () => history(host, options).slice(0, MAX_EVENTS)),
    fsck: await part('fsck', async () => (await fsck(host, { ...options, deep: false, repair: false })).findings),
    journal: sysroot.isRunning ? await part('journal', () => journalOf(host)) : undefined,
    problems,
  };
}

function aboutMachine(host: Host): Machine {
  return {
    os: parseOsRelease(readSmallText('/usr/lib/os-release') ?? '').prettyName,
    kernel: readSmallText('/proc/sys/kernel/osrelease')?.trim() ?? 'unknown',
    architecture: host.machine,
    commandLine: host.kernelCmdline(),
    loader: loaderText(host, 'LoaderInfo') ?? null,
    bootedEntry: loaderText(host, 'LoaderEntrySelected') ?? null,
  };
}

/** Mounts that have to do with deployments, one line each; a machine may have hundreds of others. */
function aboutPlaces(host: Host, { path, repo, boot, isRunning }: Sysroot): Places {
  const places = [path, ...mountedBootPlaces(host, boot)];
  const ofRoot = isRunning ? ['/', '/etc', '/usr', '/var', '/sysroot'] : [];
  const isWanted = ({ mountPoint, source }: MountEntry): boolean =>
    [...ofRoot, ...places].includes(mountPoint) || source.startsWith('composefs:');
  const describe = ({ mountPoint, type, source, options, superOptions }: MountEntry): string =>
    `${mountPoint} ${type} ${source} ${[...options, ...superOptions].join(',')}`;
  return {
    sysroot: path,
    isRunning,
    repo,
    boot,
    freeBytes: Object.fromEntries(places.map((place) => [place, freeSpace(place).freeBytes])),
    mounts: host.mounts.table().filter(isWanted).map(describe),
  };
}

function textsOf(boot: BootPartition): Record<string, string> {
  const directory = `${boot.path}/${ENTRIES}`;
  const names = listNames(directory).slice(-MAX_ENTRIES);
  return Object.fromEntries(names.map((name) => [name, textOf(`${directory}/${name}`)]));
}

function textOf(path: string): string {
  try {
    return readSmallText(path) ?? '';
  } catch (error) {
    if (isShortage(error)) throw error;
    return `(cannot be read: ${error instanceof Error ? error.message : String(error)})`;
  }
}

async function journalOf(host: Host): Promise<string[]> {
  const args = ['--no-pager', '--no-hostname', '--quiet', '--output=short-iso', `--lines=${JOURNAL_LINES}`];
  // 1: none of these units has ever said anything.
  const { stdout } = await host.exec.run('journalctl', [...args, `--unit=${UNITS}`], { allowed: [0, 1] });
  return stdout.split('\n').filter(Boolean);
}
