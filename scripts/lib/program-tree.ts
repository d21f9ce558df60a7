/** The program's verbs and options as the source defines them. */

import { recordProgram, type VerbSpec } from '../../src/cli/command-tree.ts';
import { defineProgram } from '../../src/cli/program.ts';

export function recordedProgram(): VerbSpec {
  return recordProgram((argv) => defineProgram(argv, unusedRun));
}

/** Handlers alone look at it, and nothing is run. */
const unusedRun = new Proxy({} as Parameters<typeof defineProgram>[1], {
  get: () => {
    throw new Error('A definition looks at the run');
  },
});
