/**
 * Mounts an image and unmounts it, over and over, while another process watches the mount table; some are killed on the
 * way. What is there after each must be the whole mount or nothing.
 */

import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { expect } from 'vitest';
import { mountNamespace } from './mount-namespace.ts';
import { hostctl, PROGRAM } from './run-program.ts';
import { scratchDir } from './scratch-dir.ts';
import { watchMounts, type WatchedMounts } from './watch-mounts.ts';

export interface MountCycles {
  readonly count: number;
  readonly repo: string;
  readonly digest: string;
  /** Throws where the tree is not that of the image. */
  readonly checkTree: (directory: string) => void;
}

/** Of four cycles two are killed, and two of the four go without the mount API. */
export async function runMountCycles({ count, repo, digest, checkTree }: MountCycles): Promise<{
  readonly killed: number;
  readonly finished: number;
  readonly seen: WatchedMounts;
}> {
  const namespace = await mountNamespace();
  const [program = '', ...prefix] = namespace.prefix;
  execFileSync(program, [...prefix, 'mount', '--make-rshared', '/']);
  const before = namespace.table();
  const stop = await watchMounts(namespace.tableFile);
  const directory = `${scratchDir()}/mounted`;
  mkdirSync(directory);
  const words = ['image', 'mount', digest, directory, '--repo', repo, '--verity', 'off'];
  const wholeMs = { api: 0, namespace: 0 };
  let killed = 0;
  let finished = 0;
  for (let cycle = 0; cycle < count; cycle++) {
    const way = cycle % 2 === 0 ? 'api' : 'namespace';
    const isToBeKilled = cycle % 4 >= 2;
    const environment = way === 'api' ? [] : ['env', 'NODE_OPTIONS=--no-addons'];
    const began = performance.now();
    // A group of its own: where the command starts itself again, both are killed.
    const child = spawn(program, [...prefix, ...environment, process.execPath, PROGRAM, ...words], {
      detached: true,
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    const ended = new Promise<NodeJS.Signals | null>((resolve) => child.once('close', (_, signal) => resolve(signal)));
    if (isToBeKilled) {
      // Moments all over the run, another one each time.
      await Promise.race([ended, setTimeout((wholeMs[way] * ((cycle * 37) % 101)) / 90)]);
      if (child.exitCode === null) process.kill(-child.pid!, 'SIGKILL');
    }
    if ((await ended) === 'SIGKILL') killed++;
    else wholeMs[way] = performance.now() - began;
    await groupEnds(child.pid!);
    const more = namespace.table().slice(before.length);
    if (more.length > 0 || !isToBeKilled) {
      expect(more.map(({ mountPoint, type, source }) => ({ mountPoint, type, source }))).toEqual([
        { mountPoint: directory, type: 'overlay', source: `composefs:${digest}` },
      ]);
      checkTree(namespace.path(directory));
      expect(hostctl(['image', 'umount', directory], namespace.prefix).exitCode).toBe(0);
      finished++;
    }
    expect(namespace.table()).toEqual(before);
  }
  return { killed, finished, seen: await stop() };
}

/** A killed process may still be at its last system call. */
async function groupEnds(group: number): Promise<void> {
  for (;;) {
    try {
      process.kill(-group, 0);
    } catch {
      return;
    }
    await setTimeout(5);
  }
}

/** The loop devices over a file. */
export function loopsOf(file: string): string[] {
  return readdirSync('/sys/block').filter((name) => {
    try {
      return readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8').trimEnd().startsWith(file);
    } catch {
      // No loop device, or a free one.
      return false;
    }
  });
}
