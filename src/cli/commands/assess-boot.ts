/** The verbs that judge a boot, each run by its unit: `count-boot`, `check-boot`, `mark-good`, `mark-failed`. */

import type { CommandModule } from 'yargs';
import type { CountedBoot } from '../../ops/count-boot.ts';
import { openContext, type Context, type GlobalOptions } from '../context.ts';
import type { Run } from '../program.ts';

/** Below the runtime directory of the unit. */
const METRICS_FILE = '/run/hostctl/metrics.prom';

type BootCommand = CommandModule<GlobalOptions, GlobalOptions>;

export function countBootCommand(run: Run): BootCommand {
  return {
    command: 'count-boot',
    describe: 'Count a boot of a deployment that has not been good yet (run by a unit)',
    handler: async (options) => {
      const { countBoot } = await import('../../ops/count-boot.ts');
      const { reboot } = await import('../../ops/reboot.ts');
      const context = openContext(options, run.signal);
      if (await restarted(context, run)) return;
      const result = await countBoot(context.host, context.paths);
      context.print(result, () => `${countText(result)}\n`);
      if (result.decision === 'roll-back') reboot(context.host);
    },
  };
}

function countText({ id, decision, attempts, tries, rollback }: CountedBoot): string {
  switch (decision) {
    case 'none':
      return `Deployment ${id ?? '?'} is not on trial`;
    case 'try':
      return `Boot ${attempts} of ${tries} of deployment ${id ?? '?'}`;
    case 'roll-back':
      return `Deployment ${id ?? '?'} had its ${tries} boots and was started again: rebooting into deployment ${rollback}`;
    case 'stay':
      return `Deployment ${id ?? '?'} had its ${tries} boots, and there is nothing to go back to: it stays`;
  }
}

export function checkBootCommand(run: Run): BootCommand {
  return {
    command: 'check-boot',
    describe: 'Check that this boot is a good one (run by a unit)',
    handler: async (options) => {
      const { checkBoot } = await import('../../ops/check-boot.ts');
      const { loadConfig } = await import('../../ops/load-config.ts');
      const context = openContext(options, run.signal);
      const result = await checkBoot(context.host, loadConfig(options.config));
      context.print(result, () => `The root is the image ${result.digest}\n`);
    },
  };
}

export function markGoodCommand(run: Run): BootCommand {
  return {
    command: 'mark-good',
    describe: 'Record that the running deployment came up (run by a unit)',
    handler: async (options) => {
      const { markGood } = await import('../../ops/mark-good.ts');
      const context = openContext(options, run.signal);
      if (await restarted(context, run)) return;
      const result = await markGood(context.host, { ...context.paths, metricsFile: METRICS_FILE });
      context.print(result, () => `Deployment ${result.id ?? '?'} is good ("${result.entryFile}")\n`);
    },
  };
}

export function markFailedCommand(run: Run): BootCommand {
  return {
    command: 'mark-failed',
    describe: 'Record why this boot failed, and end it while there are tries left (run by a unit)',
    handler: async (options) => {
      const { markFailed } = await import('../../ops/mark-failed.ts');
      const { loadConfig } = await import('../../ops/load-config.ts');
      const { reboot } = await import('../../ops/reboot.ts');
      const context = openContext(options, run.signal);
      if (await restarted(context, run)) return;
      const result = await markFailed(context.host, { ...context.paths, ...loadConfig(options.config) });
      const then = result.decision === 'next-try' ? 'rebooting' : 'it stays up';
      context.print(
        result,
        () => `This boot of deployment ${result.id ?? '?'} failed: ${result.message} (${result.code}); ${then}\n`,
      );
      if (result.decision === 'next-try') reboot(context.host);
    },
  };
}

async function restarted({ host, paths }: Context, run: Run): Promise<boolean> {
  const { ensureWritable } = await import('../../ops/writable.ts');
  return ensureWritable(host, paths, run);
}
