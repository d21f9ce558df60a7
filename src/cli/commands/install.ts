/** `hostctl install to-disk` and `install to-filesystem` */

import type { Argv, CommandModule } from 'yargs';
import type { VerityAlgorithm } from '../../tree/node.ts';
import { openContext, type GlobalOptions } from '../context.ts';
import type { Run } from '../program.ts';
import { imageOptions } from './deploy.ts';

interface InstallArguments extends GlobalOptions {
  readonly image: string;
  readonly karg: readonly string[];
  readonly hash?: VerityAlgorithm | undefined;
  readonly 'allow-missing-verity': boolean;
  readonly 'root-ssh-authorized-keys'?: string | undefined;
}

export function installCommand(run: Run): CommandModule<GlobalOptions, GlobalOptions> {
  return {
    command: 'install',
    describe: 'Make the first deployment, with boot loader',
    builder: (argv) =>
      argv.command(toDiskCommand(run)).command(toFilesystemCommand(run)).demandCommand(1, 'Name a verb of "install"'),
    handler: () => undefined,
  };
}

function toDiskCommand(run: Run): CommandModule<GlobalOptions, InstallArguments & { readonly target: string }> {
  return {
    command: 'to-disk <target> <image>',
    describe: 'Partition an empty disk or file, install the boot loader of the image and deploy',
    builder: (argv) =>
      installOptions(argv).positional('target', {
        type: 'string',
        demandOption: true,
        describe: 'Block device or file',
      }),
    handler: async (options) => {
      const { installToDisk } = await import('../../ops/install-to-disk.ts');
      const context = openContext(options, run.signal);
      const result = await installToDisk(context.host, run, { ...common(options), target: options.target });
      if (result === undefined) return;
      context.print(result, () => `Installed deployment ${result.id} on "${options.target}"\nImage ${result.digest}\n`);
    },
  };
}

function toFilesystemCommand(run: Run): CommandModule<GlobalOptions, InstallArguments & { readonly root: string }> {
  return {
    command: 'to-filesystem <root> <image>',
    describe: 'Install the boot loader of the image and deploy onto file systems that are mounted',
    builder: (argv) =>
      installOptions(argv).positional('root', {
        type: 'string',
        demandOption: true,
        describe: 'Where the new root is mounted, with the ESP and others below it',
      }),
    handler: async (options) => {
      const { installToFilesystem } = await import('../../ops/install-to-filesystem.ts');
      const context = openContext(options, run.signal);
      const result = await installToFilesystem(context.host, { ...common(options), root: options.root });
      context.print(result, () => `Installed deployment ${result.id} on "${options.root}"\nImage ${result.digest}\n`);
    },
  };
}

function installOptions(argv: Argv<GlobalOptions>) {
  return imageOptions(argv)
    .positional('image', { type: 'string', demandOption: true, describe: 'Image reference, such as oci:DIR' })
    .option('root-ssh-authorized-keys', {
      type: 'string',
      requiresArg: true,
      describe: 'File with public keys that may log in as root',
    });
}

/** What both verbs hand on. */
function common(options: InstallArguments) {
  return {
    image: options.image,
    kargs: options.karg,
    algorithm: options.hash,
    allowMissingVerity: options['allow-missing-verity'],
    authorizedKeys: options['root-ssh-authorized-keys'],
  };
}
