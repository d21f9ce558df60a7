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
  readonly once: boolean;
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
      )
        .option('once', { type: 'boolean', default: false, describe: 'For the next boot alone' })
        .option('plan', { type: 'boolean', default: false, describe: 'Only say what would be changed' }),
    handler: async (options) => {
      const { changeDeploymentKargs, showKargs } = await import('../../ops/kargs.ts');
      const { changedKargsText, onceKargsText, shownKargsText } = await import('../view/kargs-text.ts');
      const { etcPolicyOf, loadConfig } = await import('../../ops/load-config.ts');
      const { ensureWritable } = await import('../../ops/writable.ts');
      const context = openContext(options, run.signal);
      const { append, delete: deleted, replace, plan, once } = options;
      const changes = { append, delete: deleted, replace };
      if (append.length + deleted.length + replace.length === 0) {
        if (plan || once) {
          throw new HostctlError('usage', `--${plan ? 'plan' : 'once'} needs --append, --delete or --replace`);
        }
        const shown = showKargs(context.host, context.paths);
        context.print({ ...shown, id: shown.id ?? null }, () => shownKargsText(shown));
        return;
      }
      if (!plan && (await ensureWritable(context.host, context.paths, run))) return;
      if (once) {
        const { changeKargsOnce } = await import('../../ops/kargs-once.ts');
        const result = await changeKargsOnce(context.host, { ...context.paths, changes, plan });
        context.print({ ...result, id: result.id ?? null }, () => onceKargsText(result));
        return;
      }
      const config = loadConfig(options.config);
      const result = await changeDeploymentKargs(context.host, {
        ...context.paths,
        changes,
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
