/** `hostctl rollback` */

import type { CommandModule } from 'yargs';
import { HostctlError } from '../../errors.ts';
import { openContext, type GlobalOptions } from '../context.ts';
import type { Run } from '../program.ts';
import { rollbackPlanText, rollbackText } from '../view/rollback-text.ts';

interface RollbackArguments extends GlobalOptions {
  readonly to?: string | undefined;
  readonly plan: boolean;
  readonly apply: boolean;
  readonly 'allow-downgrade': boolean;
}

export function rollbackCommand(run: Run): CommandModule<GlobalOptions, RollbackArguments> {
  return {
    command: 'rollback',
    describe: 'Make an earlier deployment the default again',
    builder: (argv) =>
      argv
        .option('to', { type: 'string', requiresArg: true, describe: 'Its number, or the beginning of its digest' })
        .option('plan', { type: 'boolean', default: false, describe: 'Show what would happen, and do nothing' })
        .option('apply', { type: 'boolean', default: false, describe: 'Reboot into it' })
        .option('allow-downgrade', { type: 'boolean', default: false, describe: 'Go below the security floor too' })
        .check(({ plan, apply }) => {
          if (plan && apply) throw new HostctlError('usage', '--plan and --apply exclude each other');
          return true;
        }),
    handler: async (options) => {
      const { rollback, rollbackPlan } = await import('../../ops/rollback.ts');
      const { reboot, requireRunning } = await import('../../ops/reboot.ts');
      const { openSysroot } = await import('../../deploy/sysroot.ts');
      const { ensureWritable } = await import('../../ops/writable.ts');
      const context = openContext(options, run.signal);
      const { host, paths } = context;
      const target = { ...paths, to: options.to, allowDowngrade: options['allow-downgrade'] };
      if (options.plan) {
        const plan = rollbackPlan(host, target);
        context.print(plan, () => rollbackPlanText(plan));
        return;
      }
      if (options.apply) requireRunning(openSysroot(host, paths));
      if (await ensureWritable(host, paths, run)) return;
      const result = await rollback(host, target);
      context.print(result, () => rollbackText(result));
      if (options.apply && result.changed) reboot(host);
    },
  };
}
