/** `hostctl upgrade` and `hostctl switch IMAGE` */

import type { Argv, CommandModule } from 'yargs';
import { HostctlError } from '../../errors.ts';
import type { CheckResult, UpgradeOptions, UpgradeResult } from '../../ops/upgrade.ts';
import { openContext, type Context, type GlobalOptions } from '../context.ts';
import { EXIT_NOTHING_NEW } from '../exit-codes.ts';
import type { Run } from '../program.ts';
import { deployText } from '../view/deploy-text.ts';
import { upgradePlanText } from '../view/upgrade-plan-text.ts';
import { imageOptions, triesOption, type DeployArguments } from './deploy.ts';

interface UpgradeArguments extends Omit<DeployArguments, 'image' | 'stage'> {
  readonly check: boolean;
  readonly apply: boolean;
  readonly plan: boolean;
  readonly 'download-only': boolean;
  readonly 'from-downloaded': boolean;
  readonly 'unchanged-exit-77': boolean;
  readonly tag?: string | undefined;
  /** `switch` only. */
  readonly image?: string | undefined;
}

export function upgradeCommand(run: Run): CommandModule<GlobalOptions, UpgradeArguments> {
  return {
    command: 'upgrade',
    describe: 'Deploy what the tracked image is now; on the running host it is staged until shutdown',
    builder: (argv) =>
      upgradeOptions(argv).option('tag', { type: 'string', requiresArg: true, describe: 'Another tag, from now on' }),
    handler: (options) => handle(options, run),
  };
}

export function switchCommand(run: Run): CommandModule<GlobalOptions, UpgradeArguments> {
  return {
    command: 'switch <image>',
    describe: 'Deploy another image and track it from now on',
    builder: (argv) =>
      upgradeOptions(argv).positional('image', {
        type: 'string',
        demandOption: true,
        describe: 'Image reference, such as oci:DIR',
      }),
    handler: (options) => handle(options, run),
  };
}

function upgradeOptions<T>(argv: Argv<T>) {
  return triesOption(imageOptions(argv))
    .option('check', {
      type: 'boolean',
      default: false,
      describe: 'Only look: 0 when there is something new, 77 if not',
    })
    .option('plan', { type: 'boolean', default: false, describe: 'Show what would happen, and do nothing' })
    .option('download-only', {
      type: 'boolean',
      default: false,
      describe: 'Stage it, but leave it out at shutdown until --from-downloaded',
    })
    .option('from-downloaded', { type: 'boolean', default: false, describe: 'Take what is staged; look nothing up' })
    .option('apply', { type: 'boolean', default: false, describe: 'Reboot into it' })
    .option('unchanged-exit-77', { type: 'boolean', default: false, describe: 'End with 77 when nothing is new' })
    .check((options) => {
      const modes = ['check', 'plan', 'download-only', 'from-downloaded'].filter((name) => options[name] === true);
      if (modes.length > 1) throw new HostctlError('usage', `--${modes[0]} and --${modes[1]} exclude each other`);
      if (options.apply && modes.length > 0 && modes[0] !== 'from-downloaded') {
        throw new HostctlError('usage', `--apply and --${modes[0]} exclude each other`);
      }
      return true;
    });
}

async function handle(options: UpgradeArguments, run: Run): Promise<void> {
  const { checkUpgrade, planUpgrade, takeDownloaded, upgrade } = await import('../../ops/upgrade.ts');
  const { etcPolicyOf, loadConfig } = await import('../../ops/load-config.ts');
  const { reboot, requireRunning } = await import('../../ops/reboot.ts');
  const { openSysroot } = await import('../../deploy/sysroot.ts');
  const { ensureWritable } = await import('../../ops/writable.ts');
  const context = openContext(options, run.signal);
  const { host, paths } = context;
  if (options.check) {
    printCheck(context, await checkUpgrade(host, { ...paths, image: options.image, tag: options.tag }), run);
    return;
  }
  if (options.apply) requireRunning(openSysroot(host, paths));
  if (await ensureWritable(host, paths, run)) return;
  const config = loadConfig(options.config);
  const etcPolicy = etcPolicyOf(config);
  const upgradeOptions: UpgradeOptions = {
    ...paths,
    image: options.image,
    tag: options.tag,
    kargs: options.karg,
    algorithm: options.hash,
    tries: options.tries ?? config.deployTries,
    allowMissingVerity: options['allow-missing-verity'],
    allowDowngrade: options['allow-downgrade'],
    allowWeakerPolicy: options['allow-weaker-policy'],
    etcPolicy,
    keep: config.retentionKeep,
    downloadOnly: options['download-only'],
  };
  if (options.plan) {
    const plan = await planUpgrade(host, upgradeOptions);
    context.print(plan, () => upgradePlanText(plan));
    return;
  }
  const result: UpgradeResult = options['from-downloaded']
    ? await takeDownloaded(host, { ...paths, etcPolicy })
    : await upgrade(host, upgradeOptions);
  context.print(result, () => deployText(result));
  if (!result.changed && options['unchanged-exit-77']) run.setExitCode(EXIT_NOTHING_NEW);
  if (options.apply && (result.changed || result.isStaged)) reboot(host);
}

function printCheck(context: Context, check: CheckResult, run: Run): void {
  const { candidate, isNew, avoided } = check;
  context.print(check, () =>
    isNew
      ? `New: ${candidate.reference} is ${candidate.manifestDigest} (version ${candidate.version ?? 'unknown'})\n`
      : `Nothing new${avoided === null ? '' : `: ${avoided}`}\n`,
  );
  if (!isNew) run.setExitCode(EXIT_NOTHING_NEW);
}
