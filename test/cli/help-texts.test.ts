/** The bundle lays the help out by the length of texts (`scripts/lib/text-width.ts`). */

import { expect, test } from 'vitest';
import { recordedProgram } from '../../scripts/lib/program-tree.ts';

test('the texts of verbs, options and arguments are ASCII, so that each character takes one column', () => {
  expect(JSON.stringify(recordedProgram(), undefined, 1).split('\n').filter((line) => /[^\x20-\x7e]/.test(line))).toEqual([]); // prettier-ignore
});
