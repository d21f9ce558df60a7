/** `hostctl deploy IMAGE` */

import type { Argv, CommandModule } from 'yargs';
import { HostctlError } from '../../errors.ts';
import { MAX_TRIES } from '../../format/config.ts';
import type { VerityAlgorithm } from '../../tree/node.ts';
import { openContext, type GlobalOptions } from '../context.ts';
import type { Run } from '../program.ts';
import { deployText } from '../view/deploy-text.ts';

export interface DeployArguments extends GlobalOptions {
  readonly image: string;
  readonly karg: readonly string[];
  readonly hash?: VerityAlgorithm | undefined;
  readonly tries?: number | undefined;
  readonly 'allow-missing-verity': boolean;
  readonly 'allow-downgrade': boolean;
  readonly 'allow-weaker-policy': boolean;
  readonly stage: boolean;
}

export function deployCommand(run: Run): CommandModule<GlobalOptions, DeployArguments> {
  return {
    command: 'deploy <image>',
    describe: 'Deploy an image: the next boot uses it',
    builder: (argv) =>
      triesOption(imageOptions(argv))
        .positional('image', { type: 'string', demandOption: true, describe: 'Image reference, such as oci:DIR' })
        .option('stage', {
          type: 'boolean',
          default: false,
          describe: 'Publish it at shutdown, with /etc as it is then',
        }),
    handler: async (options) => {
      const { deploy } = await import('../../ops/deploy.ts');
      const { etcPolicyOf, loadConfig } = await import('../../ops/load-config.ts');
      const { ensureWritable } = await import('../../ops/writable.ts');
      const context = openContext(options, run.signal);
      if (await ensureWritable(context.host, context.paths, run)) return;
      const config = loadConfig(options.config);
      const result = await deploy(context.host, {
        ...context.paths,
        image: options.image,
        kargs: options.karg,
        algorithm: options.hash,
        tries: options.tries ?? config.deployTries,
        allowMissingVerity: options['allow-missing-verity'],
        allowDowngrade: options['allow-downgrade'],
        allowWeakerPolicy: options['allow-weaker-policy'],
        stage: options.stage,
        etcPolicy: etcPolicyOf(config),
      });
      context.print(result, () => deployText(result));
    },
  };
}

export function triesOption<T>(argv: Argv<T>) {
  return argv
    .option('allow-downgrade', {
      type: 'boolean',
      default: false,
      describe: 'Take an older release, or one below the security floor, too',
    })
    .option('allow-weaker-policy', {
      type: 'boolean',
      default: false,
      describe: 'Take an image by a policy that asks for less than that of the image tracked so far',
    })
    .option('tries', {
      type: 'number',
      requiresArg: true,
      describe: 'Boots to try before it is given up (3, or as configured)',
    })
    .check(({ tries }) => {
      if (tries === undefined || (Number.isInteger(tries) && tries >= 1 && tries <= MAX_TRIES)) return true;
      throw new HostctlError('usage', `--tries takes a whole number from 1 to ${MAX_TRIES}`);
    });
}

/** Options that all verbs share that deploy an image. */
export function imageOptions<T>(argv: Argv<T>) {
  return argv
    .option('karg', {
      type: 'string',
      array: true,
      default: [] as string[],
      requiresArg: true,
      describe: 'Kernel argument to add; may be given several times',
    })
    .option('hash', {
      choices: ['sha256', 'sha512'] as const,
      describe: 'Hash of a new repository (default sha512)',
    })
    .option('allow-missing-verity', {
      type: 'boolean',
      default: false,
      describe: 'Deploy where the file system has no fs-verity: nothing is verified at boot',
    });
}
