/** `hostctl unstage` */

import type { CommandModule } from 'yargs';
import { openContext, type GlobalOptions } from '../context.ts';
import type { Run } from '../program.ts';

export function unstageCommand(run: Run): CommandModule<GlobalOptions, GlobalOptions> {
  return {
    command: 'unstage',
    describe: 'Drop the staged deployment',
    handler: async (options) => {
      const { unstage } = await import('../../ops/unstage.ts');
      const { ensureWritable } = await import('../../ops/writable.ts');
      const context = openContext(options, run.signal);
      if (await ensureWritable(context.host, context.paths, run)) return;
      const result = await unstage(context.host, context.paths);
      context.print(result, () =>
        result.changed ? `Deployment ${result.id} is not staged any more\n` : 'Nothing is staged\n',
      );
    },
  };
}
