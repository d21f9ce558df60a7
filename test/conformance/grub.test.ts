/** GRUB's own programs as referees: what is in an environment block, and whether a script is one. */

import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  changeEnvironment,
  emptyEnvironment,
  ENVIRONMENT_BYTES,
  parseEnvironment,
} from '../../src/format/grub/environment-block.ts';
import { formatGrubMenuEntry } from '../../src/format/grub/menu-entry.ts';
import { MENU_SCRIPT } from '../../src/format/grub/menu-script.ts';
import { missingPrograms } from '../helpers/requires.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';

const noGrub = missingPrograms('grub-editenv', 'grub-script-check').length > 0;

/** What grub-editenv lists; undefined where it refuses. */
function listed(path: string): string | undefined {
  const { status, stdout } = spawnSync('grub-editenv', [path, 'list'], { encoding: 'latin1' });
  return status === 0 ? stdout : undefined;
}

test.skipIf(noGrub)('grub-editenv lists what was read, of blocks of any kind', () => {
  const path = `${scratchDir()}/grubenv`;
  const unit = fc.constantFrom(...'ab=\\\n# \xe4');
  fc.assert(
    fc.property(fc.string({ unit, maxLength: 40 }), (lines) => {
      const block = Buffer.from(`# GRUB Environment Block\n${lines}\n`.padEnd(ENVIRONMENT_BYTES, '#'), 'latin1');
      writeFileSync(path, block);
      const ours = [...parseEnvironment(block)].map(([name, value]) => `${name}=${value}\n`).join('');
      const theirs = listed(path) ?? '';
      // Of two lines of one name it lists both.
      fc.pre(theirs.length <= ours.length);
      expect(theirs).toBe(ours);
    }),
    { numRuns: 100 },
  );
});

test.skipIf(noGrub)('grub-editenv goes on with a block of ours, and we with one of it', () => {
  const path = `${scratchDir()}/grubenv`;
  writeFileSync(path, changeEnvironment(emptyEnvironment(), { hostctl_try: '2', hostctl_left: '3' }));
  execFileSync('grub-editenv', [path, 'set', 'saved_entry=x\\y', 'hostctl_left=2', 'more=l\nm']);
  const changed = changeEnvironment(readFileSync(path), { hostctl_try: undefined, hostctl_left: undefined, good: '2' });
  writeFileSync(path, changed);
  expect(listed(path)).toBe('good=2\nsaved_entry=x\\y\nmore=l\nm\n');
});

test.skipIf(noGrub)('grub-script-check takes the menu script and menu entries', () => {
  const options = `root=UUID=1 a="b c" {d} $e ;f |g &h <i> #j`;
  const entry = formatGrubMenuEntry({
    id: 'hostctl-00000001',
    title: `'"$(x)\\ {y};`,
    linuxPath: '/hostctl/1/linux',
    initrdPath: '/hostctl/1/initrd',
    options,
    tries: 1,
  });
  for (const script of [MENU_SCRIPT, entry]) {
    const { status, stderr } = spawnSync('grub-script-check', { input: script, encoding: 'utf8' });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  }
});
