/**
 * `npm run proof`: crashes hostctl at every call, every power cut that a recording allows, and in every broken build,
 * and prints what came of it. See `test/proof/README.md`. Takes hours; `--slice` takes a few minutes. A part that was run
 * on the same tree is not run again, so the whole can be run in pieces and goes on after a stop.
 */

import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { ensureHostPackages, TEST_NEEDS } from './lib/host-packages.ts';
import { projectPath } from './lib/project.ts';
import { COMMANDS } from '../test/proof/commands.ts';
import { FULL, type Plan, SLICE } from '../test/proof/plan.ts';
import { prove } from '../test/proof/proof.ts';
import { type Row, ROWS, tally } from '../test/proof/results.ts';

const USAGE = `Usage: npm run proof -- [--slice | --keep FILE] [--only ROW]... [--command NAME]... [--json FILE]
ROW is one of ${ROWS.join(', ')}`;

const values = readOptions();

function readOptions() {
  try {
    const options = {
      slice: { type: 'boolean', default: false },
      only: { type: 'string', multiple: true },
      command: { type: 'string', multiple: true },
      keep: { type: 'string' },
      json: { type: 'string' },
    } as const;
    const { values: given } = parseArgs({ options });
    const { only = [...ROWS], command = [] } = given;
    // What is not known would prove nothing, and look like a proof.
    const missing = only.find((wanted) => !ROWS.some((row) => row === wanted));
    if (missing !== undefined) throw new Error(`The proof has no row "${missing}"`);
    const unknown = command.find((wanted) => !COMMANDS.some(({ name }) => name === wanted));
    if (unknown !== undefined) throw new Error(`The proof has no command "${unknown}"`);
    // A part of the slice is a small one of the same name.
    if (given.slice && given.keep !== undefined) throw new Error('The slice keeps nothing');
    return { ...given, only };
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : String(error)}\n${USAGE}`);
    process.exit(2);
  }
}

function choose(plan: Plan): Plan {
  const { only, command } = values;
  const wanted = (row: Row): boolean => only.includes(row);
  return {
    ...plan,
    ...(command === undefined ? {} : { commands: command }),
    killStride: wanted('killPoints') ? plan.killStride : undefined,
    errorStride: wanted('injectedErrors') ? plan.errorStride : undefined,
    power: wanted('powerCutStates') ? plan.power : undefined,
    killedFirst: wanted('powerCutStates') ? plan.killedFirst : undefined,
    fat: wanted('fatStates') ? plan.fat : undefined,
    realBoots: wanted('realBoots') ? plan.realBoots : undefined,
    fullDisks: wanted('fullDisks') ? plan.fullDisks : undefined,
    concurrency: wanted('concurrency') ? plan.concurrency : undefined,
    damageStride: wanted('corruption') ? plan.damageStride : undefined,
    mutants: wanted('mutants') ? plan.mutants : [],
  };
}

await ensureHostPackages(TEST_NEEDS, (line) => console.error(line));
const started = Date.now();
const say = (line: string): void =>
  console.log(`${String(Math.round((Date.now() - started) / 1000)).padStart(5)} s  ${line}`);
const plan = choose(values.slice ? SLICE : FULL);
const keep = values.slice ? undefined : (values.keep ?? projectPath('build/proof/results.jsonl'));
const outcomes = await prove(plan, { say, keep, script: process.argv[1] });

console.log('');
const json: Record<string, unknown> = {};
for (const row of ROWS) {
  const { points, violations } = tally(outcomes, row);
  const bad = row === 'mutants' ? 'missed' : 'violations';
  json[row] = { points, [bad]: violations.length };
  console.log(`${row.padEnd(16)}${String(points).padStart(8)}  ${violations.length} ${bad}`);
}
const found = outcomes.flatMap(({ violations }) => violations);
for (const one of found) console.log(JSON.stringify(one));
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(json, undefined, 2)}\n`);
process.exitCode = found.length === 0 ? 0 : 1;
