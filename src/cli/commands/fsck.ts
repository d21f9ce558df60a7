/** `hostctl fsck` */

import type { CommandModule } from 'yargs';
import { openContext, type GlobalOptions } from '../context.ts';
import { exitCodeOf } from '../exit-codes.ts';
import type { Run } from '../program.ts';

interface FsckArguments extends GlobalOptions {
  readonly deep: boolean;
  readonly repair: boolean;
}

export function fsckCommand(run: Run): CommandModule<GlobalOptions, FsckArguments> {
  return {
    command: 'fsck',
    describe: 'Check deployments, boot entries, kernels, images and objects',
    builder: (argv) =>
      argv
        .option('deep', { type: 'boolean', default: false, describe: 'Read every byte of every object' })
        .option('repair', { type: 'boolean', default: false, describe: 'Put right what can be put right' }),
    handler: async (options) => {
      const { fsck, isDamaged } = await import('../../ops/fsck.ts');
      const { ensureWritable } = await import('../../ops/writable.ts');
      const { fsckText } = await import('../view/fsck-text.ts');
      const context = openContext(options, run.signal);
      const { deep, repair } = options;
      if (repair && (await ensureWritable(context.host, context.paths, run))) return;
      const result = await fsck(context.host, { ...context.paths, deep, repair });
      context.print(result, () => fsckText(result));
      if (isDamaged(result)) run.setExitCode(exitCodeOf('corrupt'));
    },
  };
}
