/** The real adapters behind `Host`. */

import { readFileSync } from 'node:fs';
import os from 'node:os';
import { readLoaderVariable, readSecureBoot } from './efi-variables.ts';
import { openExec } from './exec.ts';
import type { Host, Log, ProgressEvent } from './host.ts';
import { openMounts } from './mounts.ts';
import { openSyscalls, type Syscalls } from './syscalls.ts';

export interface RealHostOptions {
  readonly log: Log;
  readonly progress: (event: ProgressEvent) => void;
  readonly signal: AbortSignal;
  readonly lockWaitMs: number;
}

/** Node's architecture names that differ from Go's. */
const GO_ARCHITECTURES = new Map([
  ['x64', 'amd64'],
  ['ia32', '386'],
  ['loong64', 'loong64'],
]);

export function openRealHost(options: RealHostOptions): Host {
  const exec = openExec((line) => options.log.debug(`run: ${line}`), options.signal);
  const { arch } = process;
  let syscalls: Syscalls | undefined;
  return {
    ...options,
    exec,
    mounts: openMounts(exec),
    // Loading the native interface takes a tenth of the time of a command that only reads.
    get syscalls() {
      return (syscalls ??= openSyscalls(exec));
    },
    now: () => new Date(),
    kernelCmdline: () => readFileSync('/proc/cmdline', 'utf8').trim(),
    bootId: () => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
    loaderVariable: readLoaderVariable,
    isSecureBoot: readSecureBoot,
    machine: os.machine(),
    threads: threadsBeside(os.availableParallelism()),
    isRoot: process.getuid?.() === 0,
    architecture: arch === 'ppc64' && os.endianness() === 'LE' ? 'ppc64le' : (GO_ARCHITECTURES.get(arch) ?? arch),
  };
}

/** Decoding one layer and using it takes two; a third and fourth run ahead of it. */
function threadsBeside(processors: number): number {
  return processors === 1 ? 0 : Math.min(processors, 4);
}
