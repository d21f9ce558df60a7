/**
 * What GRUB itself makes of the menu script, the entries and the environment block: the whole table of decisions in one
 * run of GRUB on the BIOS of an emulated machine, in which nothing is started.
 */

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { changeEnvironment, emptyEnvironment, parseEnvironment } from '../../src/format/grub/environment-block.ts';
import { formatGrubMenuEntry } from '../../src/format/grub/menu-entry.ts';
import { MENU_SCRIPT } from '../../src/format/grub/menu-script.ts';
import { FILES_OFFSET, type GrubCase, makeGrubDisk, runGrubDisk } from './lib/grub-disk.ts';
import { mtools } from './lib/disk.ts';
import { reasonNoMachines } from './lib/requirements.ts';

const say = (line: string): void => console.error(line);
const reason = await reasonNoMachines(say);

interface Entry {
  readonly seq: number;
  /** Part of the name behind the number. */
  readonly counter?: string;
  readonly lacks?: 'menu entry' | 'kernel';
  readonly isBroken?: boolean;
}

interface Decision {
  readonly name: string;
  readonly entries: readonly Entry[];
  /** Undefined: no file. */
  readonly environment: Uint8Array | undefined;
  /** What is started, and whether that is counted. */
  readonly starts: number;
  readonly counted?: boolean;
  /** The variables afterwards. */
  readonly leaves?: Readonly<Record<string, string>>;
}

const env = (values: Readonly<Record<string, string>>): Uint8Array =>
  changeEnvironment(changeEnvironment(emptyEnvironment(), { saved_entry: 'theirs' }), values);
const TRY_3 = { hostctl_check: '1', hostctl_try: '3', hostctl_left: '2', hostctl_good: '2' };
const TRIES = 3;
const THREE: readonly Entry[] = [{ seq: 1 }, { seq: 2 }, { seq: 3, counter: '+3-0' }];
/** So that names in the order in which they are stored, in any order of letters and by number come out differently. */
const MANY: readonly Entry[] = [12, 9, 100, 8, 99].map((seq) => ({ seq }));

const DECISIONS: readonly Decision[] = [
  {
    name: 'a try is counted before it is made',
    entries: THREE,
    environment: env(TRY_3),
    starts: 3,
    counted: true,
    leaves: { ...TRY_3, hostctl_left: '1', saved_entry: 'theirs' },
  },
  ...[1, 9].map((left) => ({
    name: `${left} tries are one less afterwards`,
    entries: THREE,
    environment: env({ ...TRY_3, hostctl_left: String(left) }),
    starts: 3,
    counted: true,
    leaves: { ...TRY_3, hostctl_left: String(left - 1), saved_entry: 'theirs' },
  })),
  {
    name: 'without tries left the good one is booted',
    entries: THREE,
    environment: env({ ...TRY_3, hostctl_left: '0', hostctl_good: '1' }),
    starts: 1,
    leaves: { ...TRY_3, hostctl_left: '0', hostctl_good: '1', saved_entry: 'theirs' },
  },
  {
    name: 'the good one is booted when nothing is tried, also where a newer one lies there',
    entries: THREE,
    environment: env({ hostctl_check: '1', hostctl_good: '2' }),
    starts: 2,
  },
  {
    name: 'a number of tries that is none is none',
    entries: THREE,
    environment: env({ ...TRY_3, hostctl_left: '10' }),
    starts: 2,
  },
  {
    name: 'nothing is tried before GRUB is known to count, which it tries itself',
    entries: THREE,
    environment: env({ ...TRY_3, hostctl_check: '0' }),
    starts: 2,
    leaves: { ...TRY_3, saved_entry: 'theirs' },
  },
  {
    name: 'without variables the newest one is booted',
    entries: MANY,
    environment: env({ hostctl_check: '1' }),
    starts: 100,
  },
  { name: 'without a file the newest one is booted', entries: MANY, environment: undefined, starts: 100 },
  {
    name: 'with an unreadable file the newest one is booted',
    entries: MANY,
    environment: Buffer.alloc(1024, '#'),
    starts: 100,
  },
  {
    name: 'an entry to try that is gone is not tried',
    entries: THREE.slice(0, 2),
    environment: env(TRY_3),
    starts: 2,
    leaves: { ...TRY_3, saved_entry: 'theirs' },
  },
  {
    name: 'without the good one the newest other one is booted when the tries are used up',
    entries: [{ seq: 1 }, { seq: 3, counter: '+0-3' }],
    environment: env({ ...TRY_3, hostctl_left: '0' }),
    starts: 1,
  },
  {
    name: 'a deployment that failed is booted where there is no other',
    entries: [{ seq: 3, counter: '+3-0' }],
    environment: env({ ...TRY_3, hostctl_left: '0' }),
    starts: 3,
  },
  {
    name: 'a counter in the name of an entry says nothing',
    entries: [{ seq: 1 }, { seq: 2, counter: '+0-3' }],
    environment: env({ hostctl_check: '1', hostctl_good: '2' }),
    starts: 2,
  },
  {
    name: 'an entry without a menu entry is not there',
    entries: [{ seq: 1 }, { seq: 2 }, { seq: 3, lacks: 'menu entry' }],
    environment: env(TRY_3),
    starts: 2,
    leaves: { ...TRY_3, saved_entry: 'theirs' },
  },
  {
    name: 'an entry without its kernel is left out, and its try used up',
    entries: [{ seq: 1 }, { seq: 2 }, { seq: 3, lacks: 'kernel' }],
    environment: env(TRY_3),
    starts: 2,
    leaves: { ...TRY_3, hostctl_left: '1', saved_entry: 'theirs' },
  },
  {
    name: 'after a kernel that cannot be loaded the good one is booted',
    entries: [{ seq: 1 }, { seq: 2 }, { seq: 3, isBroken: true }, { seq: 4 }],
    environment: env(TRY_3),
    starts: 2,
    leaves: { ...TRY_3, hostctl_left: '1', saved_entry: 'theirs' },
  },
];

function idOf(seq: number): string {
  return `hostctl-${String(seq).padStart(8, '0')}`;
}

/** Arguments that would be something else to a shell or to a careless GRUB script. */
const ODD = 'a="b  c" $d ${e} `f` {g} h;i j|k &l <m> #n *o \\x2dp q==r';
const ODD_WORDS = ['a=b  c', '$d', '${e}', '`f`', '{g}', 'h;i', 'j|k', '&l', '<m>', '#n', '*o', '\\x2dp', 'q==r'];

function filesOf({ entries, environment }: Decision, at: number): GrubCase {
  const files: Record<string, string | Uint8Array> = { 'grub/hostctl.cfg': MENU_SCRIPT };
  if (environment !== undefined) files['grub/grubenv'] = environment;
  for (const { seq, counter = '', lacks, isBroken } of entries) {
    const linuxPath = `/${at}/linux-${seq}`;
    files[`loader/entries/${idOf(seq)}${counter}.conf`] = `linux ${linuxPath}\n`;
    files[`loader/entries/${idOf(seq)}.cfg`] = formatGrubMenuEntry({
      id: idOf(seq),
      title: `It's "$x" (${seq})`,
      linuxPath,
      initrdPath: `/${at}/initrd-${seq}`,
      options: ODD,
      tries: counter === '' ? undefined : TRIES,
    });
    if (lacks === 'menu entry') delete files[`loader/entries/${idOf(seq)}.cfg`];
    if (isBroken === true) files[`linux-${seq}.broken`] = '';
    if (lacks !== 'kernel') files[`linux-${seq}`] = '';
  }
  return files;
}

describe.skipIf(reason !== undefined)('GRUB', () => {
  let scratch: string;
  let disk: string;
  let started: ReadonlyMap<number, readonly string[]>;

  beforeAll(async () => {
    scratch = await mkdtemp(join(tmpdir(), 'hostctl-grub-'));
    disk = join(scratch, 'disk.img');
    await makeGrubDisk(scratch, disk, DECISIONS.map(filesOf));
    const before = Date.now();
    started = await runGrubDisk(scratch, disk, DECISIONS.length);
    say(`GRUB: ${Math.round((Date.now() - before) / 1000)} s`);
  });
  afterAll(() => rm(scratch, { recursive: true, force: true }));

  test.each(DECISIONS.map((decision, at) => ({ ...decision, at })))('$name', async (decision) => {
    const { at, starts, counted, leaves } = decision;
    const argument = counted === true ? [`hostctl.counted=${leaves?.hostctl_left}/${TRIES}`] : [];
    expect(started.get(at)).toEqual([`/${at}/linux-${starts}`, ...ODD_WORDS, ...argument]);
    if (leaves === undefined) return;
    const copy = join(scratch, `grubenv-${at}`);
    await mtools('mcopy', ['-n', '-i', `${disk}@@${FILES_OFFSET}`, `::/${at}/grub/grubenv`, copy]);
    expect(Object.fromEntries(parseEnvironment(await readFile(copy)))).toEqual(leaves);
  });

  test('that cannot write its environment block tries nothing, at no boot', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'hostctl-grub-btrfs-'));
    try {
      const path = join(folder, 'disk.img');
      const environment = env({ ...TRY_3, hostctl_check: '0' });
      const decision = { name: 'btrfs', entries: THREE, environment, starts: 2 };
      await makeGrubDisk(folder, path, [filesOf(decision, 0)], 'btrfs');
      // Had the first one written that it can, the second one would try.
      const boots = [await runGrubDisk(folder, path, 1), await runGrubDisk(folder, path, 1)];
      expect(boots.map((started) => started.get(0)?.[0])).toEqual(['/0/linux-2', '/0/linux-2']);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});
