/** Commands that have little to do, against the start of Node, which all of them pay. */

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { bootableLayout } from '../../../test/helpers/bootable-layout.ts';
import { run } from '../run.ts';
import type { Comparison, Goal } from './comparison.ts';
import { compare, contest, measureTimes, peak, type Contestant } from './contest.ts';
import { hostctl } from './pipelines.ts';
import type { Bench } from './setting.ts';
import { onTarget } from './target.ts';

/** Starts in one measurement. */
const TIMES = 20;
const DEPLOYMENTS = 50;

interface Command {
  readonly name: string;
  /** Behind `hostctl`. */
  readonly words: string;
  readonly goal?: Goal;
  /** In what it prints, once or as often as said. */
  readonly prints: RegExp;
  readonly times?: number;
}

const ONE = '--sysroot "$ONE"';
const MANY = '--sysroot "$MANY"';
const IMAGE = '--sysroot "$TARGET"';
const START: Goal = { most: 1.3 };
const STATUS: Goal = { most: 2.5 };

const COMMANDS: readonly Command[] = [
  { name: 'hostctl --version', words: '--version', goal: START, prints: /^\d+\.\d+\.\d+\n/g },
  { name: 'completion of a verb', words: '--get-completions st', prints: /^status\t/g },
  { name: 'completion of an option', words: '--get-completions deploy --allow-m', prints: /^--allow-m/g },
  { name: 'status, 1 deployment', words: `status ${ONE}`, goal: STATUS, prints: /^Deployment /gm },
  {
    name: 'status, 50 deployments',
    words: `status ${MANY}`,
    goal: STATUS,
    prints: /^Deployment /gm,
    times: DEPLOYMENTS,
  },
  {
    name: 'status --json, 50 deployments',
    words: `status --json ${MANY}`,
    goal: STATUS,
    prints: /"manifestDigest"/g,
    times: DEPLOYMENTS,
  },
  { name: 'upgrade, nothing new', words: `upgrade --allow-missing-verity ${IMAGE}`, prints: /^Nothing to do/gm },
  { name: 'gc, nothing to do', words: `gc ${IMAGE}`, prints: /^Nothing to remove/gm },
];

/** Reads what has to be said by each before it is measured. */
export async function starts(bench: Bench): Promise<Comparison[]> {
  const { folder, program, image, say } = bench;
  const [one, many] = [join(folder, 'one'), join(folder, 'many')];
  say(`Deploying ${DEPLOYMENTS} images`);
  await deployMany(program, one, 1);
  await deployMany(program, many, DEPLOYMENTS);
  return onTarget(folder, async (target) => {
    mkdirSync(join(target.path, 'boot'));
    const sysroot = ['--sysroot', target.path];
    await hostctlRun(program, [
      'deploy',
      `oci:${image.directory}`,
      '--hash',
      'sha256',
      '--allow-missing-verity',
      ...sysroot,
    ]);
    await hostctlRun(program, ['gc', ...sysroot]);
    return againstNode(bench, { ONE: one, MANY: many, TARGET: target.path });
  });
}

async function againstNode(bench: Bench, places: NodeJS.ProcessEnv): Promise<Comparison[]> {
  const variables = { ...bench.variables, ...places };
  const taken = async (script: string): ReturnType<Contestant['run']> => ({
    ...(await measureTimes(TIMES, bench.folder, `${script} >/dev/null 2>&1`, variables)),
    bytesWritten: 0,
  });
  const commands = COMMANDS.map(({ name, words, prints, times = 1 }): Contestant => ({
    name,
    async run() {
      const said = await run('sh', ['-euc', `${hostctl} ${words} 2>&1`], { env: variables });
      if (said.match(prints)?.length !== times) throw new Error(`It printed ${JSON.stringify(said.slice(0, 300))}`);
      return taken(`${hostctl} ${words}`);
    },
  }));
  const node: Contestant = { name: 'node -e 0', run: () => taken('node -e 0') };
  const [start, ...results] = await contest('starts', bench.rounds, [node, ...commands], bench.say);
  return results.flatMap((result, i) => {
    const { name, goal } = COMMANDS[i]!;
    return [compare(name, result, [start!], { unit: 'ms', ...(goal && { goal }) }), peak(name, result)];
  });
}

/** Deploys small images, each of its own, into a sysroot that keeps them all. */
async function deployMany(program: string, sysroot: string, count: number): Promise<void> {
  mkdirSync(join(sysroot, 'boot'), { recursive: true });
  const config = join(sysroot, 'hostctl.conf');
  writeFileSync(config, `[retention]\nkeep = ${count + 1}\n`);
  for (let i = 1; i <= count; i++) {
    const directory = join(sysroot, `image-${i}`);
    mkdirSync(directory);
    const { reference } = bootableLayout({ version: `${i}`, directory });
    const more = ['--allow-missing-verity', '--config', config, '--sysroot', sysroot];
    await hostctlRun(program, ['deploy', reference, ...more]);
  }
}

function hostctlRun(program: string, args: readonly string[]): Promise<string> {
  return run(process.execPath, [program, ...args]);
}
