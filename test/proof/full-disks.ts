/**
 * Full disks: a deployment of an image of some MiB, with as much left free on one of the disks as each step says, from
 * nothing to more than enough. Where it does not fit, the host must be as it was, the message must have the numbers, and
 * after `gc` no more may be in use than before.
 */

import { rmSync, statfsSync } from 'node:fs';
import { type Command, commandNamed } from './commands.ts';
import { copyDisk, type FileSystem } from './lib/disks.ts';
import {
  hostAt,
  hostctlCommand,
  imageReference,
  judge,
  type Lab,
  makeScene,
  mountDisks,
  runToEnd,
  type Scene,
} from './lib/scene.ts';
import type { Violation } from './sweep.ts';

/** Before what a guest found. */
export const FOUND = 'proof: full disks ';

export interface FullDisksOptions {
  readonly pairs: readonly { readonly root: FileSystem; readonly boot: FileSystem }[];
  /** MiB between two steps. */
  readonly stepMib: number;
}

const MIB = 2 ** 20;
/** Directories that grew stay as large as they are. */
const TOLERANCE = 256 * 1024;
/** No step is above it. */
const MOST_MIB = 24;
const NUMBERS = /needs? [\d.]+ [KMG]?i?B.*\b[\d.]+ [KMG]?i?B/s;

type Side = 'root' | 'boot';

export async function fillDisks(
  lab: Lab,
  { pairs, stepMib }: FullDisksOptions,
): Promise<{ points: number; violations: Violation[] }> {
  const command: Command = {
    ...commandNamed('deploy'),
    name: 'deploy large',
    args: (image) => deployLarge(image('large')),
  };
  const violations: Violation[] = [];
  let points = 0;
  for (const types of pairs) {
    const scene = await makeScene(lab, command, types);
    // How full a root is has nothing to do with the kind of the boot partition, and a guest is slow.
    const sides: readonly Side[] = types.boot === 'vfat' ? ['boot'] : ['root', 'boot'];
    for (const side of sides) {
      const report = (freeMib: number, problem: string): void => {
        const fault = `${freeMib} MiB free on ${side} (${types.root}, ${types.boot})`;
        violations.push({ command: command.name, fault, call: '', problem });
      };
      let fitted = false;
      for (let freeMib = 0; freeMib <= MOST_MIB && !fitted; freeMib += stepMib) {
        points += 1;
        const { fits, problems } = await tryWith(lab, scene, side, freeMib * MIB);
        problems.forEach((problem) => report(freeMib, problem));
        if (fits && freeMib === 0) report(freeMib, 'a full disk was enough');
        fitted = fits;
      }
      if (!fitted) report(MOST_MIB, 'more than enough was not enough');
    }
  }
  return { points, violations };
}

function deployLarge(image: string): string[] {
  return ['deploy', '--allow-missing-verity', image];
}

async function tryWith(
  lab: Lab,
  scene: Scene,
  side: Side,
  freeBytes: number,
): Promise<{ fits: boolean; problems: string[] }> {
  const directory = `${lab.directory}/full`;
  const disks = { root: `${directory}-root.img`, boot: `${directory}-boot.img` };
  await copyDisk(scene.disks.root, disks.root);
  await copyDisk(scene.disks.boot, disks.boot);
  const mounted = await mountDisks(disks, directory);
  const problems: string[] = [];
  try {
    const place = mounted[side];
    await fill(place, freeBytes);
    const used = { root: usedBytes(mounted.root), boot: usedBytes(mounted.boot) };
    const { code, output } = await runToEnd(hostctlCommand(lab, mounted, scene.command.args(imageReference(lab))));
    const { answer, reason } = judge(scene, hostAt(mounted));
    if (code === 0) {
      if (answer !== 'NEW') problems.push(`exit 0, but it is ${answer}: ${reason ?? ''}`);
      return { fits: true, problems };
    }
    if (code !== 5) problems.push(`ended with ${String(code)}: ${output}`);
    if (!NUMBERS.test(output)) problems.push(`the message has no numbers: ${output}`);
    if (answer !== 'OLD') problems.push(`it did not fit, but the host is ${answer}: ${reason ?? ''}`);
    const gc = await runToEnd(hostctlCommand(lab, mounted, ['gc']));
    if (gc.code !== 0) problems.push(`gc ended with ${String(gc.code)}: ${gc.output}`);
    for (const one of ['root', 'boot'] as const) {
      const more = usedBytes(mounted[one]) - used[one];
      if (more > TOLERANCE) problems.push(`${more} bytes more are in use on ${one} after gc`);
    }
    return { fits: false, problems };
  } finally {
    await mounted.close();
    rmSync(disks.root, { force: true });
    rmSync(disks.boot, { force: true });
  }
}

/** Leaves so much free, or a little more where the file system needs some of the rest to give out a file at all. */
async function fill(place: string, freeBytes: number): Promise<void> {
  const { bavail, bsize } = statfsSync(place);
  for (let bytes = bavail * bsize - freeBytes; bytes > 0; bytes -= MIB / 4) {
    if ((await runToEnd(['fallocate', '-l', String(bytes), `${place}/filler`])).code === 0) return;
  }
}

function usedBytes(path: string): number {
  const { blocks, bfree, bsize } = statfsSync(path);
  return (blocks - bfree) * bsize;
}
