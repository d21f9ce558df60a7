/** GNU tar and bsdtar as makers: what they archive comes out of the reader as it lies on disk. */

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { describe, expect, test } from 'vitest';
import { missingPrograms, pathsBelow } from '../helpers/requires.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { collectTar } from '../helpers/tar-collect.ts';

const missing = missingPrograms('tar', 'bsdtar');

interface Maker {
  readonly title: string;
  readonly args: readonly [program: string, ...args: string[]];
  /** Long and odd names, fractions of seconds. */
  readonly modern: boolean;
  readonly nanoseconds?: boolean;
}

const gnu = (format: string, ...more: string[]): Maker['args'] => [
  'tar',
  `--format=${format}`,
  '--numeric-owner',
  ...more,
];
const makers: readonly Maker[] = [
  { title: 'GNU tar v7', args: gnu('v7'), modern: false },
  { title: 'GNU tar ustar', args: gnu('ustar'), modern: false },
  { title: 'GNU tar oldgnu', args: gnu('oldgnu'), modern: true },
  { title: 'GNU tar gnu', args: gnu('gnu'), modern: true },
  { title: 'GNU tar gnu, sparse', args: gnu('gnu', '--sparse'), modern: true },
  { title: 'GNU tar posix', args: gnu('posix'), modern: true, nanoseconds: true },
  ...['0.0', '0.1', '1.0'].map((version) => ({ title: `GNU tar posix, sparse ${version}`, args: gnu('posix', '--sparse', `--sparse-version=${version}`), modern: true, nanoseconds: true })), // prettier-ignore
  { title: 'bsdtar ustar', args: ['bsdtar', '--format=ustar'], modern: false },
  { title: 'bsdtar gnutar', args: ['bsdtar', '--format=gnutar'], modern: true },
  { title: 'bsdtar pax', args: ['bsdtar', '--format=pax'], modern: true, nanoseconds: true },
  { title: 'bsdtar pax, restricted', args: ['bsdtar', '--format=paxr'], modern: true },
];

/** A directory with everything archivers have trouble with, as far as old formats can hold it. */
function makeTree({ modern, args: [program] }: Maker): string {
  const root = scratchDir();
  mkdirSync(`${root}/d/e`, { recursive: true });
  writeFileSync(`${root}/empty`, '');
  writeFileSync(`${root}/d/block`, 'x'.repeat(512));
  writeFileSync(`${root}/d/e/large`, 'large\n'.repeat(50_000), { mode: 0o4755 });
  symlinkSync('d/e/large', `${root}/link`);
  linkSync(`${root}/d/block`, `${root}/second`);
  if (!modern) return root;
  execFileSync('mkfifo', [`${root}/fifo`]);
  writeFileSync(`${root}/${'n'.repeat(200)}`, 'long name');
  mkdirSync(`${root}/${'p/'.repeat(100)}`, { recursive: true });
  writeFileSync(`${root}/${'p/'.repeat(100)}deep`, 'deep');
  symlinkSync('t'.repeat(300), `${root}/${'l'.repeat(150)}`);
  writeFileSync(Buffer.from(`${root}/odd-\xff\n\\name`, 'latin1'), 'odd');
  writeFileSync(`${root}/größe`, 'text');
  for (const [name, offsets] of [['holes', [0, 500_000, 900_000]], ['hole', []]] as const) {
    writeFileSync(`${root}/${name}`, '');
    truncateSync(`${root}/${name}`, 1_000_000);
    for (const at of offsets) execFileSync('dd', [`of=${root}/${name}`, 'bs=1', `seek=${at}`, 'conv=notrunc', 'status=none'], { input: 'data' });
  } // prettier-ignore
  const many = `${root}/many-holes`;
  writeFileSync(many, '');
  for (let i = 0; i < 40; i++)
    execFileSync('dd', [`of=${many}`, 'bs=64K', `seek=${i * 2}`, 'conv=notrunc', 'status=none'], { input: 'data' });
  // bsdtar writes no time before 1970 as it is.
  if (program === 'tar') execFileSync('touch', ['-d', '1969-12-31T23:00:00.25Z', `${root}/d/block`]);
  return root;
}

interface Facts {
  readonly name: string;
  readonly what: string;
  readonly mode: number;
  readonly owner: string;
  readonly mtime: string;
}

/** Everything below the directory, without hard links told apart. */
function factsOnDisk(root: string, { nanoseconds }: Maker): Facts[] {
  return pathsBelow(root)
    .map((name) => ({ name, path: Buffer.from(`${root}/${name}`, 'latin1') }))
    .map(({ name, path }) => {
      const stat = lstatSync(path, { bigint: true });
      const kind = stat.isDirectory() ? 'directory' : stat.isSymbolicLink() ? `-> ${readlinkSync(path, 'latin1')}` : stat.isFIFO() ? 'fifo' : readFileSync(path, 'latin1'); // prettier-ignore
      const sec = stat.mtimeNs >= 0n ? stat.mtimeNs / 10n ** 9n : (stat.mtimeNs - 10n ** 9n + 1n) / 10n ** 9n;
      const nsec = stat.mtimeNs - sec * 10n ** 9n;
      const mtime = nanoseconds === true && nsec !== 0n ? `${sec}.${String(nsec).padStart(9, '0')}` : `${sec}`;
      return { name, what: short(kind), mode: Number(stat.mode) & 0o7777, owner: `${stat.uid}:${stat.gid}`, mtime };
    })
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

function factsInArchive(archive: Uint8Array, { nanoseconds }: Maker): Facts[] {
  const { entries } = collectTar(archive, 10_000);
  const contents = new Map(entries.map(({ name, content }) => [normalised(name), content]));
  return entries
    .map(({ type, name, linkname, content, mode, uid, gid, mtime }) => {
      const what = { file: content, hardlink: contents.get(normalised(linkname)) ?? '?', symlink: `-> ${linkname}`, directory: 'directory', fifo: 'fifo', char: '?', block: '?' }[type]; // prettier-ignore
      return {
        name: normalised(name),
        what: short(what),
        mode,
        owner: `${uid}:${gid}`,
        mtime: nanoseconds === true ? mtime : mtime.replace(/\..*/, ''),
      };
    })
    .filter(({ name }) => name !== '')
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** A content, or its digest where a difference could not be read anyway. */
function short(content: string): string {
  return content.length < 100 ? content : createHash('sha256').update(content, 'latin1').digest('hex');
}

function normalised(name: string): string {
  return name
    .split('/')
    .filter((part) => part !== '' && part !== '.')
    .join('/');
}

describe.skipIf(missing.length > 0)('archives of other programs', () => {
  test.each(makers)('$title', (maker) => {
    const [program, ...args] = maker.args;
    const root = makeTree(maker);
    const archive = execFileSync(program, [...args, '-cf', '-', '-C', root, '.'], { maxBuffer: 1 << 28, env: { ...process.env, LC_ALL: 'C.UTF-8' } }); // prettier-ignore
    expect(factsInArchive(archive, maker)).toEqual(factsOnDisk(root, maker));
  });

  test('GNU tar stores the holes of a sparse file as nothing', () => {
    const root = makeTree(makers.find(({ title }) => title === 'GNU tar posix')!);
    const archive = execFileSync('tar', [...gnu('posix', '--sparse').slice(1), '-cf', '-', '-C', root, 'holes']);
    const { entries } = collectTar(archive);
    expect(entries.map(({ name, size, content }) => ({ name, size, content }))).toEqual([
      { name: 'holes', size: 1_000_000, content: readFileSync(`${root}/holes`, 'latin1') },
    ]);
    expect(entries[0]!.holeBytes).toBeGreaterThan(900_000);
    expect(archive.length).toBeLessThan(100_000);
  });
});
