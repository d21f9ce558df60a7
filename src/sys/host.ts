/**
 * The ports through which an operation reaches the machine. Everything that differs between a real host, a scratch
 * sysroot and a test comes in here; operations read no environment, clock or global of their own.
 */

import type { Exec } from './exec.ts';
import type { Mounts } from './mounts.ts';
import type { Syscalls } from './syscalls.ts';

export interface Log {
  debug(message: string): void;
  info(message: string): void;
  warn(message: string): void;
}

/** One step of a long operation; `total` is unknown where it cannot be told in advance. */
export interface ProgressEvent {
  readonly step: string;
  readonly done: number;
  readonly total?: number;
  readonly unit: 'bytes' | 'items';
}

export interface Host {
  readonly exec: Exec;
  readonly mounts: Mounts;
  readonly syscalls: Syscalls;
  readonly log: Log;
  readonly progress: (event: ProgressEvent) => void;
  /** Aborted by SIGINT, SIGTERM and SIGHUP. */
  readonly signal: AbortSignal;
  /** The clock, for what people read; nothing is decided by it. */
  readonly now: () => Date;
  /** The running kernel's command line. */
  readonly kernelCmdline: () => string;
  /** A variable of the boot loader (`LoaderFeatures`, …) as bytes; undefined where there is none. */
  readonly loaderVariable: (name: string) => Uint8Array | undefined;
  /** Whether the firmware verifies what it starts. */
  readonly isSecureBoot: () => boolean;
  /** Another one after each boot of the machine. */
  readonly bootId: () => string;
  readonly isRoot: boolean;
  /** Go's name of the machine, as OCI images use it: `amd64`, `arm64`, … */
  readonly architecture: string;
  /** The same as `uname -m` says it: `x86_64`, `aarch64`, … */
  readonly machine: string;
  /** How many threads beside this one have a processor to run on; 0 where there is only one. */
  readonly threads: number;
  /** How long to wait for a lock, in milliseconds. */
  readonly lockWaitMs: number;
}
