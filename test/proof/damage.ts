/**
 * Corruption: every file of a small host, damaged in every way, one at a time. `fsck --deep` must find the damage and
 * name it, and say nothing of a host that is whole; `fsck --repair` must mend whatever the image can be fetched for
 * again, and take nothing away that anything needs.
 */

import { spawnSync } from 'node:child_process';
import {
  cpSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename } from 'node:path';
import { checkHost } from './checker/check.ts';
import { mountedFiles } from './checker/mounted.ts';
import { filesBelow } from './lib/files-below.ts';
import { hostctlCommand, imageReference, type Lab, runToEnd } from './lib/scene.ts';
import type { Violation } from './sweep.ts';

type Damage = 'flipped' | 'cut' | 'deleted' | 'swapped';
const DAMAGES: readonly Damage[] = ['flipped', 'cut', 'deleted', 'swapped'];

/** What is the administrator's: any content of it is right. */
const LOCAL = /^state\/(deploy\/[^/]+\/etc|os\/default\/var)\//;
/** For information only: whoever holds the lock writes it anew. */
const IDLE = /^state\/hostctl\/lock-holder$/;
/**
 * What may be gone by right: an entry, as a killed `delete` leaves a deployment without one (a note says so); records of
 * what was done; how an image was made, which another tool's image has no record of either.
 */
const GOES = /^(boot\/loader\/entries|composefs\/hostctl|state\/hostctl)\//;
const UNTOLD = /^(composefs\/hostctl|state\/hostctl)\//;
/** A later version of the repository would say things in it that are unknown today: a note, no verdict. */
const DESCRIPTION = 'composefs/meta.json';
/** Comes from the image: whoever can fetch that again can have it mended. */
const MENDABLE = /^(composefs\/(objects|images)\/|boot\/hostctl\/)/;

export interface DamageResult {
  readonly points: number;
  readonly violations: readonly Violation[];
}

export interface DamageOptions {
  readonly jobs: number;
  /** Take every Nth damage only. */
  readonly stride: number;
  /** Files that are damaged; all of them unless it says which. */
  readonly among?: RegExp;
  /** For mutants, where one violation is enough. */
  readonly stopAtFirst?: boolean;
}

/** Damages a host with two deployments; every damage starts from the same one. */
export async function damageAll(lab: Lab, { jobs, stride, among, stopAtFirst }: DamageOptions): Promise<DamageResult> {
  const whole = `${lab.directory}/damage-whole`;
  await makeHost(lab, whole);
  const files = filesBelow(whole).filter((path) => !LOCAL.test(path) && !IDLE.test(path));
  const points = files
    .filter((path) => among?.test(path) !== false)
    .flatMap((path) => DAMAGES.map((damage) => ({ path, damage })))
    .filter((_, index) => index % stride === 0);
  const violations = [...(await falseAlarms(lab, whole))];
  let next = 0;
  const work = async (job: number): Promise<void> => {
    while (next < points.length && (stopAtFirst !== true || violations.length === 0)) {
      const point = points[next];
      next += 1;
      if (point === undefined) continue;
      const at = `${lab.directory}/damage-${job}`;
      rmSync(at, { recursive: true, force: true });
      cpSync(whole, at, { recursive: true, verbatimSymlinks: true, preserveTimestamps: true });
      for (const problem of await tryDamage(lab, whole, at, point.path, point.damage, files)) {
        violations.push({ command: 'fsck', fault: `${point.path} ${point.damage}`, call: '', problem });
      }
    }
  };
  await Promise.all(Array.from({ length: jobs }, (_, job) => work(job)));
  return { points: points.length, violations };
}

async function makeHost(lab: Lab, at: string): Promise<void> {
  rmSync(at, { recursive: true, force: true });
  mkdirSync(`${at}/boot`, { recursive: true });
  for (const tag of ['v1', 'v2'] as const) {
    await succeed(lab, at, ['deploy', '--allow-missing-verity', imageReference(lab)(tag)]);
    // As on a host where the deployment came up.
    const entries = `${at}/boot/loader/entries`;
    for (const name of readdirSync(entries)) {
      const good = name.replace(/\+\d+-\d+\.conf$/, '.conf');
      if (good !== name) spawnSync('mv', [`${entries}/${name}`, `${entries}/${good}`]);
    }
  }
}

async function falseAlarms(lab: Lab, whole: string): Promise<Violation[]> {
  const { code, output } = await hostctl(lab, whole, ['fsck', '--deep']);
  return code === 0 ? [] : [{ command: 'fsck', fault: 'none', call: '', problem: `a false alarm: ${output}` }];
}

async function tryDamage(
  lab: Lab,
  whole: string,
  at: string,
  path: string,
  damage: Damage,
  files: readonly string[],
): Promise<string[]> {
  if (!applyDamage(at, path, damage, files)) return [];
  const found = await hostctl(lab, at, ['fsck', '--deep', '--json']);
  const isGone = damage === 'deleted' && GOES.test(path);
  if (found.code !== 9 && !isGone && path !== DESCRIPTION) return [`not found: fsck ended with ${String(found.code)}`];
  if (!namesOf(path).some((name) => found.output.includes(name)) && !(isGone && UNTOLD.test(path))) {
    return [`not named: ${found.output}`];
  }
  const before = new Set(filesBelow(at));
  const repaired = await hostctl(lab, at, ['fsck', '--deep', '--repair', '--json']);
  const report = checkHost(
    { boot: mountedFiles(at), bootDir: 'boot', root: mountedFiles(at) },
    { old: undefined, new: undefined },
  );
  const problems: string[] = [];
  if (MENDABLE.test(path)) {
    if (repaired.code !== 0) problems.push(`not mended: ended with ${String(repaired.code)}: ${repaired.output}`);
    else if (report.broken.size > 0) problems.push(`mended, but broken: ${[...report.broken].join('; ')}`);
    else if ((await hostctl(lab, at, ['fsck', '--deep'])).code !== 0)
      problems.push('mended, but damage is found again');
  } else if (repaired.code !== 0 && repaired.code !== 9 && repaired.code !== 7) {
    problems.push(`repair ended with ${String(repaired.code)}: ${repaired.output}`);
  }
  const after = new Set(filesBelow(at));
  const gone = [...before].filter((name) => !after.has(name) && name !== path && !isReplacedKernel(name, path));
  if (gone.length > 0) problems.push(`repair took away ${gone.join(', ')}`);
  for (const name of MENDABLE.test(path) ? after : []) {
    if (!name.startsWith('composefs/objects/') || !files.includes(name)) continue;
    if (contentOf(`${at}/${name}`) !== contentOf(`${whole}/${name}`)) problems.push(`${name} is another one now`);
  }
  return problems;
}

/** Repaired kernels have names of their own, and so have the entries that start them. */
function isReplacedKernel(name: string, damaged: string): boolean {
  return damaged.startsWith('boot/hostctl/') && (name.startsWith('boot/loader/') || name.startsWith('boot/hostctl/'));
}

/** How a message may call a file: by its path, its digest, its deployment's directory. */
function namesOf(path: string): string[] {
  const parts = path.split('/');
  if (path.startsWith('composefs/objects/')) return [parts.slice(-2).join('')];
  if (path.startsWith('composefs/images/refs/')) return [parts.slice(3).join('/')];
  if (path.startsWith('boot/hostctl/')) return [parts[2] ?? path];
  // A lost entry is told by the deployment that nothing starts.
  if (path.startsWith('boot/loader/')) return [path, 'entry-missing'];
  if (path.startsWith('state/deploy/')) return [parts[2] ?? path];
  return [path, basename(path)];
}

/** False where there is nothing to do: the damage would leave what is there. */
function applyDamage(at: string, path: string, damage: Damage, files: readonly string[]): boolean {
  const file = `${at}/${path}`;
  const isLink = lstatSync(file).isSymbolicLink();
  const bytes = isLink ? Buffer.from(readlinkSync(file), 'latin1') : readFileSync(file);
  const put = (content: Uint8Array): boolean => {
    rmSync(file);
    if (!isLink) writeFileSync(file, content);
    else if (content.length > 0) symlinkSync(Buffer.from(content), file);
    return true;
  };
  switch (damage) {
    case 'deleted':
      rmSync(file);
      return true;
    case 'cut':
      return bytes.length > 0 && put(bytes.subarray(0, bytes.length >> 1));
    case 'flipped': {
      if (bytes.length === 0) return false;
      const flipped = Buffer.from(bytes);
      const middle = flipped.length >> 1;
      flipped[middle] = (flipped[middle] ?? 0) ^ 1;
      return put(flipped);
    }
    case 'swapped': {
      const content = contentOf(file);
      const other = files.find((name) => {
        const one = `${at}/${name}`;
        return lstatSync(one).isSymbolicLink() === isLink && contentOf(one) !== content;
      });
      if (other === undefined) return false;
      return put(isLink ? Buffer.from(readlinkSync(`${at}/${other}`)) : readFileSync(`${at}/${other}`));
    }
  }
}

function contentOf(path: string): string {
  return lstatSync(path).isSymbolicLink() ? `-> ${readlinkSync(path)}` : readFileSync(path, 'latin1');
}

async function hostctl(
  lab: Lab,
  at: string,
  args: readonly string[],
): Promise<{ code: number | null; output: string }> {
  return runToEnd(hostctlCommand(lab, { root: at, boot: `${at}/boot` }, args));
}

async function succeed(lab: Lab, at: string, args: readonly string[]): Promise<void> {
  const { code, output } = await hostctl(lab, at, args);
  if (code !== 0) throw new Error(`hostctl ${args.join(' ')} ended with ${String(code)}: ${output}`);
}
