/**
 * `npm run proof`: crashes hostctl at every call, every power cut that a recording allows, and in every broken build,
 * and prints what came of it. See `test/proof/README.md`. Takes an hour or more; `--slice` takes a few minutes.
 *
 *   npm run proof -- [--slice] [--only kills|errors|power|fat|mutants] [--command NAME] [--json FILE]
 */

import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { FULL, type Plan, type ProofResult, prove, SLICE } from '../test/proof/proof.ts';

const { values } = parseArgs({
  options: {
    slice: { type: 'boolean', default: false },
    only: { type: 'string' },
    command: { type: 'string' },
    json: { type: 'string' },
  },
});

function choose(plan: Plan): Plan {
  const { only, command } = values;
  const wanted = (part: string): boolean => only === undefined || only === part;
  const chosen: Plan = {
    ...plan,
    ...(command === undefined ? {} : { commands: [command] }),
    killStride: wanted('kills') ? plan.killStride : undefined,
    errorStride: wanted('errors') ? plan.errorStride : undefined,
    power: wanted('power') ? plan.power : undefined,
    fat: wanted('fat') ? plan.fat : undefined,
    mutants: wanted('mutants') ? plan.mutants : [],
  };
  if (only !== 'mutants' || !plan.fat) return chosen;
  // Mutants on FAT are compared with the whole program in the same guest.
  return { ...chosen, commands: ['deploy'], fat: { ...plan.fat, roots: ['ext4'], killedFirst: 0 } };
}

function report({ mutants, ...parts }: ProofResult): string {
  const rows = Object.entries(parts).map(([name, { points, violations }]) => [
    name,
    points,
    `${violations.length} violations`,
  ]);
  rows.push(['mutants', mutants.points, `${mutants.missed.length} missed`]);
  return rows
    .map(([name, points, found]) => `${String(name).padEnd(16)}${String(points).padStart(8)}  ${String(found)}`)
    .join('\n');
}

const started = Date.now();
const say = (line: string): void =>
  console.log(`${String(Math.round((Date.now() - started) / 1000)).padStart(5)} s  ${line}`);
const result = await prove(choose(values.slice ? SLICE : FULL), say);
console.log(`\n${report(result)}`);
const { mutants, ...parts } = result;
for (const name of mutants.missed) console.log(`missed: ${name}`);
for (const { violations } of Object.values(parts)) for (const one of violations) console.log(JSON.stringify(one));
if (values.json !== undefined) {
  const count = ({ points, violations }: ProofResult['killPoints']): unknown => ({
    points,
    violations: violations.length,
  });
  const json = {
    killPoints: count(result.killPoints),
    injectedErrors: count(result.injectedErrors),
    powerCutStates: count(result.powerCutStates),
    fatStates: count(result.fatStates),
    mutants: { points: mutants.points, missed: mutants.missed.length },
  };
  writeFileSync(values.json, `${JSON.stringify(json, undefined, 2)}\n`);
}
const clean = mutants.missed.length === 0 && Object.values(parts).every(({ violations }) => violations.length === 0);
process.exitCode = clean ? 0 : 1;
