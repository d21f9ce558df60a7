import * as fs from 'node:fs';
import { expect, test } from 'vitest';
import { applyEtcMerge } from '../../src/deploy/etc-apply.ts';
import type { EtcChange } from '../../src/deploy/etc-merge.ts';
import { scanDirectory } from '../../src/deploy/etc-scan.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { testHost } from '../helpers/test-host.ts';
import { dir, file, symlink } from '../helpers/tree-builder.ts';

const host = testHost();

/** A live and a new directory, and one outside both that symlinks in them lead to. */
function places(): { local: string; next: string; outside: string } {
  const scratch = scratchDir();
  const paths = { local: `${scratch}/local`, next: `${scratch}/next`, outside: `${scratch}/outside` };
  for (const path of Object.values(paths)) fs.mkdirSync(path);
  fs.writeFileSync(`${paths.outside}/kept`, 'kept');
  return paths;
}

const changes: [string, EtcChange][] = [
  ['add', { kind: 'add', path: 'd/new' as never, node: symlink('x') }],
  ['add a directory', { kind: 'add', path: 'd/new' as never, node: dir() }],
  ['replace', { kind: 'replace', path: 'd/kept' as never, node: symlink('x') }],
  ['remove', { kind: 'remove', path: 'd/kept' as never }],
  ['set metadata', { kind: 'metadata', path: 'd' as never, node: dir({ mode: 0o700 }) }],
];

test.each(changes)('to %s is refused where a symlink stands for a directory', (_, change) => {
  const { local, next, outside } = places();
  fs.symlinkSync(outside, `${next}/d`);
  const before = scanDirectory(host, outside, 'sha256');
  expect(() => applyEtcMerge(host, { changes: [change], conflicts: [] }, local, next)).toThrow(
    expect.objectContaining({ code: 'io' }),
  );
  expect(scanDirectory(host, outside, 'sha256')).toEqual(before);
});

test.each(changes)('to %s is refused above the new directory', (_, change) => {
  const { local, next, outside } = places();
  const upwards = { ...change, path: change.path.replace(/^d/, '../outside') as never };
  const before = scanDirectory(host, outside, 'sha256');
  expect(() => applyEtcMerge(host, { changes: [upwards], conflicts: [] }, local, next)).toThrow(
    expect.objectContaining({ code: 'image-invalid' }),
  );
  expect(scanDirectory(host, outside, 'sha256')).toEqual(before);
});

test('a symlink is removed and replaced itself, not what it leads to', () => {
  const { local, next, outside } = places();
  for (const name of ['a', 'b']) fs.symlinkSync(`${outside}/kept`, `${next}/${name}`);
  fs.symlinkSync(outside, `${next}/c`);
  const plan: EtcChange[] = [
    { kind: 'remove', path: 'a' as never },
    { kind: 'replace', path: 'b' as never, node: symlink('x') },
    { kind: 'remove', path: 'c' as never },
  ];
  applyEtcMerge(host, { changes: plan, conflicts: [] }, local, next);
  expect(fs.readdirSync(next)).toEqual(['b']);
  expect(fs.readFileSync(`${outside}/kept`, 'utf8')).toBe('kept');
});

test('a directory of the live side that became a symlink is not followed', () => {
  const { local, next, outside } = places();
  fs.symlinkSync(outside, `${local}/d`);
  fs.mkdirSync(`${next}/d`);
  const plan: EtcChange[] = [{ kind: 'add', path: 'd/kept' as never, node: file('1') }];
  expect(() => applyEtcMerge(host, { changes: plan, conflicts: [] }, local, next)).toThrow(
    expect.objectContaining({ code: 'etc-conflict' }),
  );
  expect(fs.readdirSync(`${next}/d`)).toEqual([]);
});

test.each([
  ['over something', { kind: 'add', path: 'a' as never, node: file('new') }],
  ['over a directory', { kind: 'replace', path: 'd' as never, node: file('new') }],
  ['of nothing', { kind: 'replace', path: 'none' as never, node: file('new') }],
  ['without its parent', { kind: 'add', path: 'none/a' as never, node: file('new') }],
] satisfies [string, EtcChange][])('a change %s is refused', (_, change) => {
  const { local, next } = places();
  fs.writeFileSync(`${local}/a`, 'new');
  fs.writeFileSync(`${next}/a`, 'old');
  fs.mkdirSync(`${next}/d`);
  expect(() => applyEtcMerge(host, { changes: [change], conflicts: [] }, local, next)).toThrow(
    expect.objectContaining({ code: 'io' }),
  );
  expect([fs.readdirSync(next), fs.readFileSync(`${next}/a`, 'utf8')]).toEqual([['a', 'd'], 'old']);
});
