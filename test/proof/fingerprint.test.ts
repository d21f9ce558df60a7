/** The fingerprint by which the sweep tells states apart: what it does not see is not tried again. */

import { chmodSync, cpSync, mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { fingerprint } from './lib/fingerprint.ts';

let folder: string;
let first: { root: string; boot: string };
let second: { root: string; boot: string };

const HISTORY = '[history]\nid = 2\ntime = 2026-01-01T00:00:00.000Z\nversion = 2\n; sha256 00ff\n';

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'hostctl-fingerprint-'));
  first = { root: `${folder}/first/root`, boot: `${folder}/first/boot` };
  second = { root: `${folder}/second/root`, boot: `${folder}/second/boot` };
  mkdirSync(`${first.root}/state/hostctl/history`, { recursive: true });
  mkdirSync(`${first.boot}/loader/entries`, { recursive: true });
  writeFileSync(`${first.root}/state/hostctl/lock-holder`, 'process 1 (hostctl)\n');
  writeFileSync(`${first.root}/state/hostctl/history/00000002`, HISTORY);
  writeFileSync(`${first.root}/state/.dirty.0123456789abcdef`, '');
  writeFileSync(`${first.root}/state/.name.0123456789abcdef.tmp`, 'half');
  writeFileSync(`${first.boot}/loader/entries/hostctl-00000001.conf`, 'title One\n');
  symlinkSync('entries', `${first.boot}/loader/link`);
  cpSync(`${folder}/first`, `${folder}/second`, { recursive: true, verbatimSymlinks: true });
});

afterEach(() => rmSync(folder, { recursive: true }));

test('chance and time make no other state', () => {
  writeFileSync(`${second.root}/state/hostctl/lock-holder`, 'process 22 (hostctl)\n');
  writeFileSync(
    `${second.root}/state/hostctl/history/00000002`,
    HISTORY.replace('2026', '2027').replace('00ff', 'ff00'),
  );
  renameSync(`${second.root}/state/.dirty.0123456789abcdef`, `${second.root}/state/.dirty.fedcba9876543210`);
  renameSync(`${second.root}/state/.name.0123456789abcdef.tmp`, `${second.root}/state/.name.fedcba9876543210.tmp`);
  expect(fingerprint(second)).toBe(fingerprint(first));
});

test.each<[string, () => void]>([
  ['content', () => writeFileSync(`${second.boot}/loader/entries/hostctl-00000001.conf`, 'title Two\n')],
  ['content of what is not finished', () => writeFileSync(`${second.root}/state/.name.0123456789abcdef.tmp`, 'hal')],
  ['record', () => writeFileSync(`${second.root}/state/hostctl/history/00000002`, HISTORY.replace('id = 2', 'id = 3'))],
  ['mode', () => chmodSync(`${second.root}/state/hostctl`, 0o700)],
  ['new file', () => writeFileSync(`${second.root}/state/new`, '')],
  ['missing file', () => rmSync(`${second.root}/state/.dirty.0123456789abcdef`)],
  [
    'name',
    () =>
      renameSync(
        `${second.boot}/loader/entries/hostctl-00000001.conf`,
        `${second.boot}/loader/entries/hostctl-00000001.conf.tmp`,
      ),
  ],
  [
    'target',
    () => {
      rmSync(`${second.boot}/loader/link`);
      symlinkSync('entry', `${second.boot}/loader/link`);
    },
  ],
  [
    'kind',
    () => {
      rmSync(`${second.root}/state/.dirty.0123456789abcdef`);
      mkdirSync(`${second.root}/state/.dirty.0123456789abcdef`);
    },
  ],
  ['place', () => renameSync(`${second.boot}/loader/link`, `${second.root}/link`)],
])('another %s makes another state', (_, change) => {
  change();
  expect(fingerprint(second)).not.toBe(fingerprint(first));
});
