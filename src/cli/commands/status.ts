/** `hostctl status` */

import type { CommandModule } from 'yargs';
import { openContext, type GlobalOptions } from '../context.ts';
import type { Run } from '../program.ts';

interface StatusOptions extends GlobalOptions {
  readonly booted: boolean;
  readonly verbose: boolean;
}

export function statusCommand(run: Run): CommandModule<GlobalOptions, StatusOptions> {
  return {
    command: 'status',
    describe: 'Show what is deployed, what runs and what would boot',
    builder: (argv) =>
      argv
        .option('booted', { type: 'boolean', default: false, describe: 'Only the deployment that runs' })
        .option('verbose', { type: 'boolean', default: false, describe: 'Everything that is known' }),
    handler: async (options) => {
      const { status } = await import('../../ops/status.ts');
      const { statusDocument } = await import('../view/status-json.ts');
      const { statusText } = await import('../view/status-text.ts');
      const context = openContext(options, run.signal);
      const result = status(context.host, context.paths);
      const document = statusDocument(result, options.booted);
      context.print(document, () => statusText(document, options.verbose));
    },
  };
}
