/** `hostctl pin` and `hostctl unpin` */

import type { CommandModule } from 'yargs';
import { openContext, type GlobalOptions } from '../context.ts';
import type { Run } from '../program.ts';

interface PinArguments extends GlobalOptions {
  readonly id: string;
}

export function pinCommand(run: Run): CommandModule<GlobalOptions, PinArguments> {
  return command(run, true, 'pin <id>', 'Keep a deployment until it is unpinned');
}

export function unpinCommand(run: Run): CommandModule<GlobalOptions, PinArguments> {
  return command(run, false, 'unpin <id>', 'Let a pinned deployment go when its time comes');
}

function command(
  run: Run,
  pinned: boolean,
  usage: string,
  describe: string,
): CommandModule<GlobalOptions, PinArguments> {
  return {
    command: usage,
    describe,
    builder: (argv) =>
      argv.positional('id', {
        type: 'string',
        demandOption: true,
        describe: 'Number of the deployment, or the beginning of its digest',
      }),
    handler: async (options) => {
      const { setPinned } = await import('../../ops/pin.ts');
      const { ensureWritable } = await import('../../ops/writable.ts');
      const context = openContext(options, run.signal);
      if (await ensureWritable(context.host, context.paths, run)) return;
      const result = await setPinned(context.host, { ...context.paths, id: options.id, pinned });
      const now = result.pinned ? 'pinned' : 'not pinned';
      context.print(result, () => `Deployment ${result.id} is ${now}${result.changed ? '' : ' already'}\n`);
    },
  };
}
