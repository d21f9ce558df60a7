/** `hostctl mark-good`, run by its unit once a boot is complete. */

import type { CommandModule } from 'yargs';
import { openContext, type GlobalOptions } from '../context.ts';
import type { Run } from '../program.ts';

export function markGoodCommand(run: Run): CommandModule<GlobalOptions, GlobalOptions> {
  return {
    command: 'mark-good',
    describe: 'Record that the running deployment came up (run by a unit)',
    handler: async (options) => {
      const { markGood } = await import('../../ops/mark-good.ts');
      const { ensureWritable } = await import('../../ops/writable.ts');
      const context = openContext(options, run.signal);
      if (await ensureWritable(context.host, context.paths, run)) return;
      const result = await markGood(context.host, context.paths);
      context.print(result, () => `Deployment ${result.id ?? '?'} is good ("${result.entryFile}")\n`);
    },
  };
}
