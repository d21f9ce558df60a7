/** Differences of files, as lists of lines for people and as records for machines. Pure. */

import type { ConfigDiffResult } from '../../ops/config-diff.ts';
import type { DiffResult } from '../../ops/diff.ts';
import { displayRaw, type RawName } from '../../tree/name.ts';
import type { TreeNode } from '../../tree/node.ts';

interface Difference {
  readonly kind: 'added' | 'removed' | 'modified';
  readonly path: RawName;
  readonly before?: TreeNode;
  readonly after?: TreeNode;
  readonly aspects?: readonly string[];
}

const LETTERS = { added: 'A', removed: 'D', modified: 'M' } as const;

export interface DifferenceRecord {
  readonly change: Difference['kind'];
  readonly path: string;
  /** What it is now; what it was where it is removed. */
  readonly type: TreeNode['kind'] | null;
  readonly aspects?: readonly string[];
}

function record({ kind, path, before, after, aspects }: Difference): DifferenceRecord {
  const type = (after ?? before)?.kind ?? null;
  return { change: kind, path: displayRaw(path), type, ...(aspects === undefined ? {} : { aspects }) };
}

function line({ kind, path, aspects }: Difference, note?: string): string {
  const notes = [...(aspects ?? []), ...(note === undefined ? [] : [note])];
  return `${LETTERS[kind]}  ${displayRaw(path)}${notes.length === 0 ? '' : `  (${notes.join(', ')})`}\n`;
}

const inEtc = (path: RawName): RawName => (path === '' ? '/etc' : `/etc/${path}`) as RawName;

export function configDiffRecord({ id, digest, differences, shadowed }: ConfigDiffResult): object {
  return {
    id: id ?? null,
    digest,
    differences: differences.map((difference) => ({
      ...record({ ...difference, path: inEtc(difference.path) }),
      shadowed: shadowed.has(difference.path),
    })),
  };
}

export function* configDiffText({ id, digest, differences, shadowed }: ConfigDiffResult): Generator<string, void> {
  for (const difference of differences) {
    const note = shadowed.has(difference.path) ? 'the default changed too' : undefined;
    yield line({ ...difference, path: inEtc(difference.path) }, note);
  }
  if (differences.length === 0) yield `Nothing is changed in /etc of deployment ${id ?? '?'}\n`;
  if (shadowed.size > 0) yield `See a default with "hostctl image cat ${digest.slice(0, 16)} /etc/FILE"\n`;
}

export function diffRecord({ files, packages, kernel, ...rest }: DiffResult): object {
  return {
    ...rest,
    kernel: { from: kernel.from ?? null, to: kernel.to ?? null, changed: kernel.changed },
    packages: packages ?? 'unknown',
    files: Array.from(files, record),
  };
}

export function* diffText({ from, to, kernel, kargs, packages, files }: DiffResult): Generator<string, void> {
  yield `From ${from}\nTo   ${to}\n\n`;
  if (kernel.changed.length === 0) yield `Kernel: the same (${kernel.to ?? 'none'})\n`;
  else yield `Kernel: ${kernel.from ?? 'none'} -> ${kernel.to ?? 'none'} (${kernel.changed.join(', ')})\n`;
  yield kargs.added.length + kargs.removed.length === 0 ? 'Kernel arguments: the same\n' : 'Kernel arguments:\n';
  for (const arg of kargs.removed) yield `D  ${arg}\n`;
  for (const arg of kargs.added) yield `A  ${arg}\n`;
  yield* packagesText(packages);
  let count = 0;
  for (const file of files) {
    if (count === 0) yield 'Files:\n';
    count += 1;
    yield line(file);
  }
  if (count === 0) yield 'Files: the same\n';
}

function* packagesText(packages: DiffResult['packages']): Generator<string, void> {
  if (packages === undefined) {
    yield 'Packages: unknown\n';
    return;
  }
  const { added, removed, changed } = packages;
  yield added.length + removed.length + changed.length === 0 ? 'Packages: the same\n' : 'Packages:\n';
  const shown = (text: string): string => displayRaw(Buffer.from(text).toString('latin1') as RawName);
  for (const { name, version } of removed) yield `D  ${shown(`${name} ${version}`)}\n`;
  for (const { name, version } of added) yield `A  ${shown(`${name} ${version}`)}\n`;
  for (const each of changed) yield `M  ${shown(`${each.name} ${each.from} -> ${each.to}`)}\n`;
}
