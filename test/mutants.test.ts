/** Mutants of the proof are looked for in hours; that they have a place in the source is seen at once. */

import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { patched } from './proof/lib/tools.ts';
import { BOOT_IS_ESP, MUTANTS, WITHOUT_VERITY } from './proof/mutants.ts';

const OF_SCENES = { name: 'what a scene needs', patches: [BOOT_IS_ESP, WITHOUT_VERITY] };

test.each([...MUTANTS, OF_SCENES])('the mutant "$name" has its place in the source', ({ patches }) => {
  for (const patch of patches) {
    const source = readFileSync(new URL(`../src/${patch.file}`, import.meta.url), 'utf8');
    expect(patched(source, patch)).not.toBe(source);
  }
});
