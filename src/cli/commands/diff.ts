/** `hostctl diff [FROM] [TO]` and `hostctl config-diff [ID]` */

import type { CommandModule } from 'yargs';
import { openContext, type GlobalOptions } from '../context.ts';
import type { Run } from '../program.ts';

interface DiffArguments extends GlobalOptions {
  readonly from?: string | undefined;
  readonly to?: string | undefined;
}

export function diffCommand(run: Run): CommandModule<GlobalOptions, DiffArguments> {
  const describe = 'Deployment, image in the repository, or image reference';
  return {
    command: 'diff [from] [to]',
    describe: 'Show what differs between two deployments or images: files, kernel, arguments, packages',
    builder: (argv) =>
      argv
        .positional('from', { type: 'string', describe: `${describe} (what runs)` })
        .positional('to', { type: 'string', describe: `${describe} (what boots next)` }),
    handler: async (options) => {
      const { diff } = await import('../../ops/diff.ts');
      const { diffRecord, diffText } = await import('../view/diff.ts');
      const context = openContext(options, run.signal);
      const result = await diff(context.host, { ...context.paths, from: options.from, to: options.to });
      if (options.format === 'human') await context.printPieces(diffText(result));
      else context.print(diffRecord(result), () => '');
    },
  };
}

interface ConfigDiffArguments extends GlobalOptions {
  readonly id?: string | undefined;
}

export function configDiffCommand(run: Run): CommandModule<GlobalOptions, ConfigDiffArguments> {
  return {
    command: 'config-diff [id]',
    describe: "Show what was changed in /etc against the image's default",
    builder: (argv) => argv.positional('id', { type: 'string', describe: 'Deployment (what runs, or boots next)' }),
    handler: async (options) => {
      const { configDiff } = await import('../../ops/config-diff.ts');
      const { configDiffRecord, configDiffText } = await import('../view/diff.ts');
      const context = openContext(options, run.signal);
      const result = configDiff(context.host, { ...context.paths, id: options.id });
      if (options.format === 'human') await context.printPieces(configDiffText(result));
      else context.print(configDiffRecord(result), () => '');
    },
  };
}
