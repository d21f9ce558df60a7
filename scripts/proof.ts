/**
 * `npm run proof`: crashes hostctl at every call, every power cut that a recording allows, and in every broken build,
 * and prints what came of it. See `test/proof/README.md`. Takes an hour or more; `--slice` takes a few minutes. With
 * `--keep` a part that was run on the same tree is not run again, so the whole can be run in pieces and after a stop.
 */

import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { COMMANDS } from '../test/proof/commands.ts';
import { FULL, type Plan, SLICE } from '../test/proof/plan.ts';
import { prove } from '../test/proof/proof.ts';
import { ROWS, tally } from '../test/proof/results.ts';

const PARTS = ['kills', 'errors', 'power', 'killed', 'fat', 'boots', 'full', 'damage', 'together', 'mutants'];
const USAGE = `Usage: npm run proof -- [--slice] [--only ${PARTS.join('|')}]
                        [--command NAME]... [--keep FOLDER] [--json FILE]`;

const values = readOptions();

function readOptions() {
  try {
    const options = {
      slice: { type: 'boolean', default: false },
      only: { type: 'string' },
      command: { type: 'string', multiple: true },
      keep: { type: 'string' },
      json: { type: 'string' },
    } as const;
    const { values: given } = parseArgs({ options });
    const { only, command = [] } = given;
    // What is not known would prove nothing, and look like a proof.
    if (only !== undefined && !PARTS.includes(only)) throw new Error(`The proof has no part "${only}"`);
    const unknown = command.find((wanted) => !COMMANDS.some(({ name }) => name === wanted));
    if (unknown !== undefined) throw new Error(`The proof has no command "${unknown}"`);
    return given;
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : String(error)}\n${USAGE}`);
    process.exit(2);
  }
}

function choose(plan: Plan): Plan {
  const { only, command } = values;
  const wanted = (part: string): boolean => only === undefined || only === part;
  return {
    ...plan,
    ...(command === undefined ? {} : { commands: command }),
    killStride: wanted('kills') ? plan.killStride : undefined,
    errorStride: wanted('errors') ? plan.errorStride : undefined,
    power: wanted('power') ? plan.power : undefined,
    killedFirst: wanted('killed') ? plan.killedFirst : undefined,
    fat: wanted('fat') ? plan.fat : undefined,
    realBoots: wanted('boots') ? plan.realBoots : undefined,
    fullDisks: wanted('full') ? plan.fullDisks : undefined,
    concurrency: wanted('together') ? plan.concurrency : undefined,
    damageStride: wanted('damage') ? plan.damageStride : undefined,
    mutants: wanted('mutants') ? plan.mutants : [],
  };
}

const started = Date.now();
const say = (line: string): void =>
  console.log(`${String(Math.round((Date.now() - started) / 1000)).padStart(5)} s  ${line}`);
const plan = choose(values.slice ? SLICE : FULL);
const outcomes = await prove(plan, { say, keep: values.keep, script: process.argv[1] });

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
