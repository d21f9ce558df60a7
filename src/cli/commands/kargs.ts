/** `hostctl kargs` */

import type { Argv, CommandModule } from 'yargs';
import { HostctlError } from '../../errors.ts';
import { openContext, type GlobalOptions } from '../context.ts';
import type { Run } from '../program.ts';

interface KargsArguments extends GlobalOptions {
  readonly append: readonly string[];
  readonly delete: readonly string[];
  readonly replace: readonly string[];
  readonly plan: boolean;
}

export function kargsCommand(run: Run): CommandModule<GlobalOptions, KargsArguments> {
  return {
    command: 'kargs',
    describe: 'Show kernel arguments and where they come from, or change them in a new deployment',
    builder: (argv) =>
      listOption(
        listOption(
          listOption(argv, 'append', 'Argument to add'),
          'delete',
          'Argument to take away, or the key of the only one with it',
        ),
        'replace',
        'KEY=VALUE: another value for the only argument with this key',
      ).option('plan', { type: 'boolean', default: false, describe: 'Only say what would be changed' }),
    handler: async (options) => {
      const { changeDeploymentKargs, showKargs } = await import('../../ops/kargs.ts');
      const { changedKargsText, shownKargsText } = await import('../view/kargs-text.ts');
      const { etcPolicyOf, loadConfig } = await import('../../ops/load-config.ts');
      const { ensureWritable } = await import('../../ops/writable.ts');
      const context = openContext(options, run.signal);
      const { append, delete: deleted, replace, plan } = options;
      if (append.length + deleted.length + replace.length === 0) {
        if (plan) throw new HostctlError('usage', '--plan needs --append, --delete or --replace');
        const shown = showKargs(context.host, context.paths);
        context.print({ ...shown, id: shown.id ?? null }, () => shownKargsText(shown));
        return;
      }
      if (!plan && (await ensureWritable(context.host, context.paths, run))) return;
      const config = loadConfig(options.config);
      const result = await changeDeploymentKargs(context.host, {
        ...context.paths,
        changes: { append, delete: deleted, replace },
        plan,
        tries: config.deployTries,
        etcPolicy: etcPolicyOf(config),
      });
      context.print({ ...result, id: result.id ?? null }, () => changedKargsText(result));
    },
  };
}

function listOption<T, K extends string>(argv: Argv<T>, name: K, describe: string) {
  return argv.option(name, { type: 'string', array: true, default: [] as string[], requiresArg: true, describe });
}
