/** `hostctl rollback` */

import type { CommandModule } from 'yargs';
import { openContext, type GlobalOptions } from '../context.ts';
import type { Run } from '../program.ts';

interface RollbackArguments extends GlobalOptions {
  readonly to?: string | undefined;
}

export function rollbackCommand(run: Run): CommandModule<GlobalOptions, RollbackArguments> {
  return {
    command: 'rollback',
    describe: 'Make an earlier deployment the default again',
    builder: (argv) =>
      argv.option('to', { type: 'string', requiresArg: true, describe: 'Its number, or the beginning of its digest' }),
    handler: async (options) => {
      const { rollback } = await import('../../ops/rollback.ts');
      const { ensureWritable } = await import('../../ops/writable.ts');
      const context = openContext(options, run.signal);
      if (await ensureWritable(context.host, context.paths, run)) return;
      const result = await rollback(context.host, { ...context.paths, to: options.to });
      context.print(result, () =>
        result.changed
          ? `Deployment ${result.to ?? '?'} boots next ("${result.entryFile}")\n`
          : `Deployment ${result.to ?? '?'} is the default already\n`,
      );
    },
  };
}
