/** What `npm run bench` says of what it measured; nothing is timed here. */

import { describe, expect, test } from 'vitest';
import { initramfsMilliseconds, unitMilliseconds } from '../scripts/lib/bench/boot-times.ts';
import {
  comparisonsJson,
  formatComparisons,
  ratioOf,
  verdictOf,
  type Comparison,
} from '../scripts/lib/bench/comparison.ts';
import { compare, contest, peak, type Contestant } from '../scripts/lib/bench/contest.ts';
import { drawFiles } from '../scripts/lib/bench/derive-image.ts';
import { dumpLines } from '../scripts/lib/bench/metadata.ts';
import type { Run } from '../scripts/lib/bench/report.ts';
import { parseDump } from '../src/format/dump/parse.ts';
import { walkTree } from '../src/tree/walk.ts';

const row = { row: 'deploy', unit: 's', hostctl: 2, reference: 8, against: 'the peer' } as const;

describe('A comparison', () => {
  test.each<[string, Partial<Comparison>, number | undefined, string]>([
    ['as fast as asked', { goal: { least: 4 } }, 4, 'met'],
    ['not so fast', { goal: { least: 4.1 } }, 4, 'missed'],
    ['a rate high enough', { unit: 'GB/s', goal: { least: 0.25 } }, 0.25, 'met'],
    ['a rate too low', { unit: 'GB/s', goal: { least: 0.26 } }, 0.25, 'missed'],
    ['as little as asked', { goal: { most: 0.25 } }, 0.25, 'met'],
    ['too much', { goal: { most: 0.24 } }, 0.25, 'missed'],
    ['nothing asked', {}, 0.25, 'no goal'],
    ['no peer', { reference: undefined, goal: { least: 4 } }, undefined, 'not measured'],
    ['a void result', { hostctl: undefined, goal: { most: 4 } }, undefined, 'not measured'],
    ['a reference of nothing', { reference: 0, goal: { most: 4 } }, Infinity, 'not measured'],
  ])('%s', (_, change, ratio, verdict) => {
    const comparison = { ...row, ...change };
    expect([ratioOf(comparison), verdictOf(comparison)]).toEqual([ratio, verdict]);
  });

  test('is a line of the table', () => {
    const rows: Comparison[] = [
      { ...row, goal: { least: 3 } },
      { ...row, row: 'memory', unit: 'MiB', hostctl: 412.3, reference: 300, against: 'the limit', goal: { most: 1 } },
      { ...row, row: 'create', hostctl: undefined, reference: undefined, against: 'mkcomposefs', note: 'no mkcomposefs', goal: { most: 2.5 } }, // prettier-ignore
      { ...row, row: 'gc', unit: 'ms', hostctl: 0.25 },
    ];
    expect(formatComparisons(rows)).toBe(
      [
        'row     unit  hostctl  reference  ratio   goal                reference is',
        'deploy  s        2.00       8.00   4.00    ≥ 3  met           the peer',
        'memory  MiB       412        300   1.37    ≤ 1  missed        the limit',
        'create  s           -          -         ≤ 2.5  not measured  mkcomposefs; no mkcomposefs',
        'gc      ms      0.250       8.00   0.03                       the peer',
      ].join('\n'),
    );
    expect(comparisonsJson(rows.slice(2))).toEqual([
      { ...rows[2], hostctl: null, reference: null, ratio: null, verdict: 'not measured' },
      { ...rows[3], ratio: 0.25 / 8, verdict: 'no goal' },
    ]);
  });
});

describe('A contest', () => {
  const takes = (wallSec: number): Run => ({ wallSec, cpuSec: 2 * wallSec, maxRssMiB: 100 * wallSec, bytesWritten: 0 });

  test('takes turns, and leaves out what once made the wrong thing', async () => {
    const order: string[] = [];
    const contestant = (name: string, times: readonly number[]): Contestant => ({
      name,
      run() {
        order.push(name);
        const time = times[order.filter((other) => other === name).length - 1]!;
        return time < 0 ? Promise.reject(new Error(`Not so: ${name}`)) : Promise.resolve(takes(time));
      },
    });
    const missing = { ...contestant('d', []), unavailable: 'no d' };
    const say = (): void => undefined;
    const results = await contest('t', 3, [contestant('a', [3, 1, 2]), contestant('b', [9, 8, 7]), contestant('c', [1, -1]), missing], say); // prettier-ignore
    expect(order.join('')).toBe('abcabcab');
    const [a, b, c, d] = results as [
      (typeof results)[0],
      (typeof results)[0],
      (typeof results)[0],
      (typeof results)[0],
    ];
    expect([c, d]).toEqual([
      { name: 'c', runs: [], note: 'Not so: c' },
      { name: 'd', runs: [], note: 'no d' },
    ]);
    expect(compare('wall', b, [c, a, d], { unit: 'ms', goal: { most: 3 } })).toEqual({
      row: 'wall',
      unit: 'ms',
      hostctl: 8000,
      reference: 2000,
      against: 'a',
      goal: { most: 3 },
      note: undefined,
    });
    expect(compare('wall', a, [b, a]).against).toBe('a');
    expect(compare('wall', a, [c, d])).toMatchObject({ hostctl: 2, reference: undefined, note: 'Not so: c' });
    expect(compare('wall', c, [a])).toMatchObject({ hostctl: undefined, reference: 2, note: 'Not so: c' });
    expect(verdictOf(peak('a', a))).toBe('met');
    expect(verdictOf(peak('b', b))).toBe('missed');
  });
});

test('a draw of files has the share of the bytes that was asked, and is the same each time', () => {
  const files = Array.from({ length: 2000 }, (_, i) => ({ path: `f${i}`, size: i % 100 === 0 ? 900_000 : 1 + i }));
  const whole = files.reduce((sum, { size }) => sum + size, 0);
  const drawn = drawFiles(files, 5);
  const share = drawn.reduce((sum, { size }) => sum + size, 0) / whole;
  expect(share).toBeGreaterThan(0.0499);
  expect(share).toBeLessThanOrEqual(0.05);
  expect(drawFiles(files, 5)).toEqual(drawn);
  expect(drawn.map(({ path }) => path)).not.toEqual(files.slice(0, drawn.length).map(({ path }) => path));
});

test.each([102, 5000])('a dump of %i inodes has as many', (inodes) => {
  const nodes = [...walkTree(parseDump(Buffer.from([...dumpLines(inodes)].join(''))))];
  expect(nodes.length).toBe(inodes);
  expect(new Set(nodes.map(({ entry }) => entry.kind))).toEqual(new Set(['directory', 'file', 'symlink']));
});

describe('Times of a boot', () => {
  const line = (unit: string, id: string, time: number): string =>
    JSON.stringify({ UNIT: unit, MESSAGE_ID: id, _SOURCE_REALTIME_TIMESTAMP: `${time}` });
  const [starting, started] = ['7d4958e842da4a758f6c1cdc7b36dcc5', '39f53479d3a045ac8e11786248231fbf'];

  test('are read from the journal', () => {
    const journal = [line('a', starting, 1_000_000), line('b', starting, 1_000_500), line('a', started, 1_250_000)];
    expect(unitMilliseconds(`${journal.join('\n')}\n`, 'a')).toBe(250);
    expect(() => unitMilliseconds(journal.join('\n'), 'b')).toThrow('does not say when b was started');
  });

  test.each([
    ['Startup finished in 1.5s (kernel) + 2.250s (initrd) + 30s (userspace) = 33.8s', 2250],
    ['Startup finished in 9s (firmware) + 1s (kernel) + 1min 2.5s (initrd) + 1min (userspace) = 2min', 62_500],
    ['Startup finished in 1s (kernel) + 900ms (initrd) + 1s (userspace)', 900],
  ])('are read from %j', (analyzed, expected) => {
    expect(initramfsMilliseconds(analyzed)).toBe(expected);
  });

  test('are missing where there was no initramfs', () => {
    expect(() => initramfsMilliseconds('Startup finished in 1s (kernel) + 1s (userspace)')).toThrow('initramfs');
  });
});
