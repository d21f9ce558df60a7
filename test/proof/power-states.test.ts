/** Which crash states a recording has: too few would prove too little, impossible ones would accuse wrongly. */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { describe, expect, test } from 'vitest';
import type { FileSystem } from './lib/disks.ts';
import { DiskImage } from './power/disk-image.ts';
import type { Event, Recording } from './power/recording.ts';
import { crashStates } from './power/states.ts';

const write = (device: number, offset: number, text: string): Event => ({
  kind: 'write',
  device,
  offset,
  data: Buffer.from(text, 'latin1'),
});
const flush = (device: number): Event => ({ kind: 'flush', device });

function recording(events: Event[], endedAt = events.length): Recording {
  return { before: [], events, endedAt };
}

/** The content of both disks (`bytes` long, dots at first) in every state, each once, sorted. */
function contents(made: Recording, bytes: number, subsets: number, types: FileSystem[] = ['vfat', 'vfat']): string[] {
  const scratch = mkdtempSync(`${tmpdir()}/states-`);
  try {
    writeFileSync(`${scratch}/disk`, '.'.repeat(bytes));
    const disks = [0, 1].map((device) => new DiskImage(`${scratch}/disk`, made, device));
    const found = new Set<string>();
    for (const state of crashStates(made, types, { all: subsets, boot: subsets })) {
      const shown = disks.map((disk, device) => {
        disk.advance(state.flushed[device] ?? 0);
        return disk.with(state.open[device] ?? [], () => {
          disk.save(`${scratch}/state`);
          return readFileSync(`${scratch}/state`, 'latin1');
        });
      });
      found.add(`${shown.join('|')}${state.ended ? ' ended' : ''}`);
    }
    return [...found].sort();
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

describe('the states of a recording', () => {
  test('without flushes are all subsets of its writes, given enough tries', () => {
    const made = recording([write(0, 0, 'a'), write(0, 1, 'b'), write(0, 2, 'c')], 99);
    expect(contents(made, 3, 400)).toEqual(
      ['...', '..c', '.b.', '.bc', 'a..', 'a.c', 'ab.', 'abc'].map((root) => `${root}|...`).sort(),
    );
  });

  test('never lack what was flushed', () => {
    const made = recording([write(0, 0, 'a'), flush(0), write(0, 1, 'b')], 99);
    expect(contents(made, 2, 50)).toEqual(['..|..', 'a.|..', 'ab|..'].sort());
  });

  test('keep each disk to its own flushes', () => {
    const made = recording([write(0, 0, 'r'), write(1, 0, 'b'), flush(1)], 99);
    expect(contents(made, 1, 50)).toEqual(['.|.', '.|b', 'r|.', 'r|b']);
  });

  test('let the later of two writes to one place win, or the earlier alone be there', () => {
    const made = recording([write(0, 0, 'x'), write(0, 0, 'y')], 99);
    expect(contents(made, 1, 50)).toEqual(['.|.', 'x|.', 'y|.']);
  });

  test('tell whether the command had ended', () => {
    const made = recording([write(0, 0, 'a'), flush(0), write(0, 0, 'b')], 2);
    expect(contents(made, 1, 20)).toEqual(['.|.', 'a|.', 'a|. ended', 'b|. ended']);
  });
});

describe('a write is torn', () => {
  const half = 'x'.repeat(512);
  const torn = (type: FileSystem, offset: number, start = ''): number => {
    const data = start + half.repeat(2).slice(start.length);
    const made = recording([write(0, offset, data)], 99);
    const states = contents(made, offset + 1024, 200, [type, 'vfat']);
    return states.filter((state) => state.includes(`.${data.slice(0, 512)}.`) || state.includes(`.${half}|`)).length;
  };

  test.each<[what: string, FileSystem, number, string, boolean]>([
    ['FAT', 'vfat', 0, '', true],
    ['ext4', 'ext4', 8192, '', true],
    ['btrfs', 'btrfs', 8192, '', true],
    ["ext4's superblock", 'ext4', 1024, '', false],
    ["btrfs' superblock", 'btrfs', 65_536, '', false],
    ["XFS' data and log", 'xfs', 8192, '', true],
    ["XFS' inodes", 'xfs', 8192, 'IN', true],
    ["a directory block of XFS'", 'xfs', 8192, 'XDB3', false],
    ["a leaf of XFS'", 'xfs', 8192, '\0\0\0\0\0\0\0\0\x3d\xf1', false],
  ])('at 512 bytes: %s', (_, type, offset, start, expected) => {
    expect(torn(type, offset, start) > 0).toBe(expected);
  });
});

test('a disk is put back as it was after each state', () => {
  const scratch = mkdtempSync(`${tmpdir()}/states-`);
  try {
    writeFileSync(`${scratch}/disk`, 'abcdef');
    const disk = new DiskImage(`${scratch}/disk`, recording([]), 0);
    const patches = [
      { offset: 1, data: Buffer.from('XX') },
      { offset: 2, data: Buffer.from('YY') },
    ];
    expect(disk.with(patches, (bytes) => bytes.toString())).toBe('aXYYef');
    expect(disk.with([], (bytes) => bytes.toString())).toBe('abcdef');
  } finally {
    rmSync(scratch, { recursive: true });
  }
});
