/**
 * A mount namespace of a test's own: what else is mounted on the machine does not show in it, and whatever a test
 * leaves mounted goes with it.
 */

import { spawn } from 'node:child_process';
import { existsSync, readFileSync, readlinkSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { onTestFinished } from 'vitest';
import { parseMountInfo, type MountEntry } from '../../src/sys/mounts.ts';

export interface MountNamespace {
  /** Words before a program that shall run in it. */
  readonly prefix: readonly string[];
  /** Its `/proc/PID/mountinfo`. */
  readonly tableFile: string;
  table(): MountEntry[];
  /** A path of the namespace as the test can open it. */
  path(path: string): string;
}

export async function mountNamespace(): Promise<MountNamespace> {
  const holder = spawn('unshare', ['--mount', '--propagation', 'private', 'sleep', 'infinity'], { stdio: 'ignore' });
  onTestFinished(() => void holder.kill('SIGKILL'));
  const proc = `/proc/${holder.pid}`;
  const namespace = (of: string): string => (existsSync(`${of}/ns/mnt`) ? readlinkSync(`${of}/ns/mnt`) : '');
  // Until unshare has become sleep, the namespace may still be filling.
  while (namespace(proc) === namespace('/proc/self') || readFileSync(`${proc}/comm`, 'utf8') !== 'sleep\n') {
    await setTimeout(10);
  }
  return {
    prefix: ['nsenter', `--mount=${proc}/ns/mnt`],
    tableFile: `${proc}/mountinfo`,
    table: () => parseMountInfo(readFileSync(`${proc}/mountinfo`, 'utf8')),
    path: (path) => `${proc}/root${path}`,
  };
}
