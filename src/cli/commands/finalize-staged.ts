/** `hostctl finalize-staged`, run by its unit when the system shuts down. */

import type { CommandModule } from 'yargs';
import type { FinalizeResult } from '../../ops/finalize-staged.ts';
import { openContext, type GlobalOptions } from '../context.ts';
import type { Run } from '../program.ts';

export function finalizeStagedCommand(run: Run): CommandModule<GlobalOptions, GlobalOptions> {
  return {
    command: 'finalize-staged',
    describe: 'Make the staged deployment the default (run by a unit at shutdown)',
    handler: async (options) => {
      const { finalizeStaged } = await import('../../ops/finalize-staged.ts');
      const { etcPolicyOf, loadConfig } = await import('../../ops/load-config.ts');
      const { ensureWritable } = await import('../../ops/writable.ts');
      const context = openContext(options, run.signal);
      if (await ensureWritable(context.host, context.paths, run)) return;
      const etcPolicy = etcPolicyOf(loadConfig(options.config));
      const result = await finalizeStaged(context.host, { ...context.paths, etcPolicy });
      context.print(result, () => `${finalizeText(result)}\n`);
    },
  };
}

function finalizeText({ id, reason }: FinalizeResult): string {
  switch (reason) {
    case 'finalized':
      return `Deployment ${id} boots next`;
    case 'nothing-staged':
      return 'Nothing is staged';
    case 'downloaded-only':
      return `Deployment ${id} is downloaded only and stays staged`;
    case 'failed-before':
      return `Deployment ${id} could not be finalized before and stays staged: see "hostctl status"`;
  }
}
