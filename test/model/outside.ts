/** What is done to the machine by others: the boot loader, the administrator, another system's tools. */

import * as fs from 'node:fs';
import { countDown } from '../helpers/loader-oracles.ts';
import { entriesPath, readEntries, type DiskEntry } from './disk.ts';
import { choose, type Verb } from './verbs.ts';
import { demand } from './violation.ts';
import type { World } from './world.ts';

type Act = (world: World, a: number, b: number) => string;

function outside(run: Act): Verb {
  return { isOurs: false, refusals: [], run };
}

const MAX_BOOTS = 5;

/** Starts what the loader chooses until something comes up; `a` says, bit by bit, which tries fail. */
const boot = outside((world, a) => {
  const tried: string[] = [];
  world.running = undefined;
  for (let attempt = 0; attempt < MAX_BOOTS; attempt += 1) {
    const entry = world.defaultEntry();
    if (entry === undefined) return 'boot: no entry';
    const fileName = world.loader === 'systemd-boot' ? countDown(entry.fileName) : entry.fileName;
    if (fileName !== entry.fileName) renameEntry(world, entry.fileName, fileName);
    tried.push(fileName);
    world.boots += 1;
    // What has been good, and what is not counted, comes up.
    if (entry.isCounted && ((a >> attempt) & 1) === 1) continue;
    world.running = { cmdline: entry.keys.get('options') ?? '', stateName: entry.stateName };
    return `boot by ${world.loader}: ${tried.join(' failed, ')}`;
  }
  return `boot by ${world.loader}: ${tried.join(' failed, ')} failed`;
});

/** The loader counts foreign entries down as well. */
function renameEntry(world: World, from: string, to: string): void {
  fs.renameSync(`${entriesPath(world.path)}/${from}`, `${entriesPath(world.path)}/${to}`);
  const text = world.foreign.get(`loader/entries/${from}`);
  if (text === undefined) return;
  world.foreign.delete(`loader/entries/${from}`);
  world.foreign.set(`loader/entries/${to}`, text);
}

/** `systemd-bless-boot`, which may come before `mark-good`, or alone. */
const bless = outside((world) => {
  const counted = readEntries(world.path).filter(
    ({ isCounted, stateName }) => isCounted && stateName !== undefined && stateName === world.running?.stateName,
  );
  const [entry] = counted.sort((a, b) => (a.fileName < b.fileName ? 1 : -1));
  if (entry === undefined || world.loader !== 'systemd-boot') return 'bless: nothing';
  const directory = entriesPath(world.path);
  const blessed = `${directory}/${entry.fileName.replace(/\+.*$/, '')}.conf`;
  if (!fs.existsSync(blessed)) fs.renameSync(`${directory}/${entry.fileName}`, blessed);
  return `bless ${entry.fileName}`;
});

const FOREIGN_NAMES = [
  'aaa.conf',
  'debian-12.conf',
  'hostctl.conf',
  'hostctl-5.conf',
  'hostctl-99999999-other.conf',
  'hostctl_99999999.conf',
  '6f0c2d1e-6.1.0-13-amd64.conf',
  'windows+3-0.conf',
  'zzz-9.conf',
] as const;
const SORT_KEYS = [undefined, undefined, 'a', 'hostctl', 'zz'] as const;
const VERSIONS = [undefined, '1~', '7', '100000000'] as const;

const addForeign = outside((world, a, b) => {
  const name = choose(FOREIGN_NAMES, a);
  const [sortKey, version] = [choose(SORT_KEYS, b), choose(VERSIONS, b >> 3)];
  const text = [
    '# another system',
    'title   Another system',
    ...(sortKey === undefined ? [] : [`sort-key ${sortKey}`]),
    ...(version === undefined ? [] : [`version ${version}`]),
    'linux /other/linux',
    'options root=/dev/other',
    'x-unknown kept',
    '',
  ].join('\n');
  writeForeign(world, 'other/linux', 'another kernel');
  writeForeign(world, `loader/entries/${name}`, text);
  return `add ${name} (${sortKey ?? '-'}, ${version ?? '-'})`;
});

/** An administrator's copy of an entry of ours, under a name of their own. */
const copyEntry = outside((world, a, b) => {
  const ours = ourEntries(world);
  if (ours.length === 0) return 'copy: no entry';
  const entry = choose(ours, a);
  const text = fs.readFileSync(`${entriesPath(world.path)}/${entry.fileName}`, 'utf8');
  const name = choose(['my-copy.conf', 'zz-copy.conf'], b);
  writeForeign(world, `loader/entries/${name}`, `${text}# my own\n`);
  return `copy ${entry.fileName} to ${name}`;
});

function writeForeign(world: World, path: string, text: string): void {
  const file = `${world.path}/boot/${path}`;
  fs.mkdirSync(file.slice(0, file.lastIndexOf('/')), { recursive: true });
  fs.writeFileSync(file, text);
  world.foreign.set(path, text);
}

const removeForeign = outside((world, a) => {
  const names = [...world.foreign.keys()].filter((path) => path.endsWith('.conf'));
  if (names.length === 0) return 'remove a foreign entry: none';
  const name = choose(names, a);
  world.foreign.delete(name);
  fs.unlinkSync(`${world.path}/boot/${name}`);
  return `remove ${name}`;
});

const removeOurs = outside((world, a) => {
  const ours = ourEntries(world);
  if (ours.length < 2) return 'remove an entry: too few';
  const { fileName } = choose(ours, a);
  fs.unlinkSync(`${entriesPath(world.path)}/${fileName}`);
  // It may have been the entry of a rollback.
  world.rolledBack.clear();
  return `remove ${fileName}`;
});

function ourEntries(world: World): DiskEntry[] {
  return readEntries(world.path).filter(({ fileName }) => /^hostctl-\d{8}(\+\d-\d)?\.conf$/.test(fileName));
}

/** Edits of files that images ship, and of others; some of them make the next merge a conflict. */
const EDITS: readonly ((etc: string) => void)[] = [
  (etc) => replace(`${etc}/conf`, 'local\n'),
  (etc) => replace(`${etc}/own`, 'my own file\n'),
  (etc) =>
    replace(`${etc}/own`, 'my own file, again, and long enough to be an object if it were in an image: it is not\n'),
  (etc) => fs.rmSync(`${etc}/conf`, { force: true }),
  (etc) => fs.rmSync(`${etc}/d`, { recursive: true, force: true }),
  (etc) => inDirectory(`${etc}/d`, (path) => replace(`${path}/mine`, 'x')),
  (etc) => inDirectory(`${etc}/d`, (path) => fs.chmodSync(path, 0o700)),
  (etc) => inDirectory(`${etc}/own.d`, (path) => fs.mkdirSync(`${path}/empty`, { recursive: true })),
  (etc) => {
    fs.rmSync(`${etc}/extra`, { recursive: true, force: true });
    fs.symlinkSync('dangling', `${etc}/extra`);
  },
];

function replace(path: string, text: string): void {
  fs.rmSync(path, { recursive: true, force: true });
  fs.writeFileSync(path, text, { mode: 0o644 });
}

function inDirectory(path: string, act: (path: string) => void): void {
  if (fs.lstatSync(path, { throwIfNoEntry: false })?.isDirectory() !== true) {
    fs.rmSync(path, { force: true });
    fs.mkdirSync(path, 0o755);
  }
  act(path);
}

const editEtc = outside((world, a) => {
  const name = world.running?.stateName ?? world.defaultEntry()?.stateName;
  if (name === undefined) return 'edit /etc: nothing runs';
  const etc = `${world.path}/state/deploy/${name}/etc`;
  demand(fs.existsSync(etc), 'GC-SAFE', `"${etc}" of what runs is gone`);
  choose(EDITS, a)(etc);
  return `edit ${a % EDITS.length} in /etc of ${name.slice(0, 8)}`;
});

/** The publisher of the image moves the tag. */
const moveTag = outside((world, a) => {
  const image = choose(world.images, a);
  world.moveReference(image);
  return `the tag leads to ${image.name}`;
});

export const OUTSIDE_VERBS = {
  boot,
  bless,
  'add foreign': addForeign,
  'copy entry': copyEntry,
  'remove foreign': removeForeign,
  'remove entry': removeOurs,
  'edit etc': editEtc,
  'move tag': moveTag,
};
