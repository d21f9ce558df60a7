/** `hostctl gc` and `hostctl delete` */

import type { CommandModule } from 'yargs';
import { openContext, type GlobalOptions } from '../context.ts';
import type { Run } from '../program.ts';

interface GcArguments extends GlobalOptions {
  readonly 'dry-run': boolean;
}

interface DeleteArguments extends GlobalOptions {
  readonly id: string;
}

export function gcCommand(run: Run): CommandModule<GlobalOptions, GcArguments> {
  return {
    command: 'gc',
    describe: 'Drop old deployments and remove what nothing needs any more',
    builder: (argv) => argv.option('dry-run', { type: 'boolean', default: false, describe: 'Only show what would go' }),
    handler: async (options) => {
      const { gc } = await import('../../ops/gc.ts');
      const { loadConfig } = await import('../../ops/load-config.ts');
      const { ensureWritable } = await import('../../ops/writable.ts');
      const { gcText } = await import('../view/gc-text.ts');
      const context = openContext(options, run.signal);
      const dryRun = options['dry-run'];
      if (!dryRun && (await ensureWritable(context.host, context.paths, run))) return;
      const keep = loadConfig(options.config).retentionKeep;
      const result = await gc(context.host, { ...context.paths, keep, dryRun });
      context.print(result, () => gcText(result));
    },
  };
}

export function deleteCommand(run: Run): CommandModule<GlobalOptions, DeleteArguments> {
  return {
    command: 'delete <id>',
    describe: 'Remove one deployment',
    builder: (argv) =>
      argv.positional('id', {
        type: 'string',
        demandOption: true,
        describe: 'Its number, or the beginning of its digest',
      }),
    handler: async (options) => {
      const { deleteDeployment } = await import('../../ops/delete-deployment.ts');
      const { ensureWritable } = await import('../../ops/writable.ts');
      const { gcText } = await import('../view/gc-text.ts');
      const context = openContext(options, run.signal);
      if (await ensureWritable(context.host, context.paths, run)) return;
      const result = await deleteDeployment(context.host, { ...context.paths, id: options.id });
      context.print(result, () => gcText(result));
    },
  };
}
