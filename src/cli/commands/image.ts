/** `hostctl image …`: images without a host. */

import type { Argv, CommandModule } from 'yargs';
import type { VerityAlgorithm } from '../../tree/node.ts';
import { openContext, type GlobalOptions } from '../context.ts';
import type { Run } from '../program.ts';

interface ImageArguments extends GlobalOptions {
  readonly image: string;
  readonly hash?: VerityAlgorithm | undefined;
}

interface DigestArguments extends ImageArguments {
  readonly 'composefs-version': 0 | 1;
  readonly bootable: boolean;
}

export function imageCommand(run: Run): CommandModule<GlobalOptions, GlobalOptions> {
  return {
    command: 'image <verb>',
    describe: 'Work with images',
    builder: (argv) =>
      argv.command(pullCommand(run)).command(digestCommand(run)).demandCommand(1, 'Name a verb of "image"'),
    handler: () => undefined,
  };
}

function imageOptions(argv: Argv<GlobalOptions>) {
  return argv
    .positional('image', { type: 'string', demandOption: true, describe: 'Image reference, such as oci:DIR' })
    .option('hash', { choices: ['sha256', 'sha512'] as const, describe: 'Hash (default sha512)' });
}

function pullCommand(run: Run): CommandModule<GlobalOptions, ImageArguments> {
  return {
    command: 'pull <image>',
    describe: 'Store an image in the repository and print its composefs digest',
    builder: imageOptions,
    handler: async (options) => {
      const { pullImage } = await import('../../ops/pull-image.ts');
      const context = openContext(options, run.signal);
      const result = await pullImage(context.host, { ...context.paths, image: options.image, algorithm: options.hash });
      context.print(result, () => `${result.digest}\n`);
    },
  };
}

function digestCommand(run: Run): CommandModule<GlobalOptions, DigestArguments> {
  return {
    command: 'digest <image>',
    describe: 'Print the composefs digest an image would have; nothing is written',
    builder: (argv) =>
      imageOptions(argv)
        .option('composefs-version', { choices: [0, 1] as const, default: 1 as const, describe: 'Format version' })
        .option('bootable', { type: 'boolean', default: false, describe: 'The tree that deploy boots' }),
    handler: async (options) => {
      const { digestImage } = await import('../../ops/digest-image.ts');
      const context = openContext(options, run.signal);
      const result = await digestImage(context.host, {
        image: options.image,
        algorithm: options.hash ?? 'sha512',
        formatVersion: options['composefs-version'],
        bootable: options.bootable,
      });
      context.print(result, () => `${result.digest}\n`);
    },
  };
}
