/**
 * `npm run bench -- --finalize`: how long `finalize-staged` takes at shutdown, as the program that a host has, on a sysroot of
 * ordinary size: an image of 20,000 files, 1,500 of them in `/etc`, 20 of these changed locally. Printed as a ratio to
 * what Node needs to start at all on the same machine in the same run.
 */

import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bootableLayout } from '../../../test/helpers/bootable-layout.ts';
import { tarDir, tarFile } from '../../../test/helpers/tar-builder.ts';
import { projectPath } from '../project.ts';
import { run } from '../run.ts';

const RUNS = 50;
const USR_FILES = 18_500;
const ETC_FILES = 1_500;
const CHANGED = 20;

/** Runs it and prints the result. */
export async function benchFinalize(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'hostctl-bench-'));
  try {
    await run(process.execPath, [
      projectPath('node_modules/typescript/bin/tsc'),
      '-p',
      projectPath('tsconfig.build.json'),
    ]);
    const program = projectPath('dist/main.js');
    const sysroot = join(folder, 'sysroot');
    mkdirSync(join(sysroot, 'boot'), { recursive: true });
    const hostctl = (...args: string[]): void => {
      execFileSync(process.execPath, [program, ...args, '--sysroot', sysroot], {
        stdio: ['ignore', 'ignore', 'ignore'],
      });
    };
    const image = (version: string): string => {
      const directory = join(folder, `image-${version}`);
      mkdirSync(directory);
      return bootableLayout({ version, directory, more: files(version) }).reference;
    };
    hostctl('deploy', image('1'), '--allow-missing-verity');
    const [live = ''] = readdirSync(join(sysroot, 'state/deploy'));
    const etc = join(sysroot, 'state/deploy', live, 'etc');
    for (let i = 0; i < CHANGED; i++) writeFileSync(join(etc, `package-${i}/file-0`), 'changed here\n');
    hostctl('deploy', image('2'), '--stage', '--allow-missing-verity');

    const entries = join(sysroot, 'boot/loader/entries');
    const staged = readdirSync(entries).find((name) => name.endsWith('.staged')) ?? '';
    const record = readFileSync(join(sysroot, 'state/hostctl/staged'));
    const [state = ''] = readdirSync(join(sysroot, 'state/deploy')).filter((name) => name !== live);
    const deployment = join(sysroot, 'state/deploy', state);
    const pristine = join(folder, 'pristine');
    execFileSync('cp', ['-a', deployment, pristine]);
    const start: number[] = [];
    const whole: number[] = [];
    for (let i = 0; i < RUNS; i++) {
      start.push(timed(() => execFileSync(process.execPath, ['-e', ''])));
      writeFileSync(join(etc, 'late'), `run ${i}\n`);
      whole.push(timed(() => hostctl('finalize-staged')));
      // As it was before the shutdown.
      renameSync(join(entries, staged.slice(0, -'.staged'.length)), join(entries, staged));
      writeFileSync(join(sysroot, 'state/hostctl/staged'), record);
      rmSync(join(sysroot, 'state/hostctl/history/00000002'));
      rmSync(deployment, { recursive: true });
      execFileSync('cp', ['-a', pristine, deployment]);
      execFileSync('sync', ['-f', deployment]);
    }
    const [least, most] = [quantile(whole, 0.5), quantile(whole, 0.99)];
    const node = quantile(start, 0.5);
    console.log(`finalize-staged, ${RUNS} runs: median ${least.toFixed(2)} s, p99 ${most.toFixed(2)} s`);
    console.log(`Node's start alone: median ${node.toFixed(2)} s; ratio of the medians ${(least / node).toFixed(1)}`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function files(version: string): Uint8Array[] {
  const made: Uint8Array[] = [];
  for (let i = 0; i < USR_FILES; i++) {
    if (i % 100 === 0) made.push(tarDir(`usr/share/package-${i / 100}`));
    made.push(
      tarFile(`usr/share/package-${Math.floor(i / 100)}/file-${i}`, `file ${i} of ${i % 50 === 0 ? version : 'all'}\n`),
    );
  }
  for (let i = 0; i < ETC_FILES; i++) {
    if (i % 15 === 0) made.push(tarDir(`etc/package-${i / 15}`));
    made.push(tarFile(`etc/package-${Math.floor(i / 15)}/file-${i % 15}`, `# ${i}\n`.repeat(i % 200)));
  }
  return made;
}

/** Seconds. */
function timed(body: () => void): number {
  const before = performance.now();
  body();
  return (performance.now() - before) / 1000;
}

function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? NaN;
}
