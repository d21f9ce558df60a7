/** `hostctl install to-disk` */

import type { CommandModule } from 'yargs';
import type { VerityAlgorithm } from '../../tree/node.ts';
import { openContext, type GlobalOptions } from '../context.ts';
import type { Run } from '../program.ts';
import { imageOptions } from './deploy.ts';

interface InstallArguments extends GlobalOptions {
  readonly target: string;
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
    builder: (argv) => argv.command(toDiskCommand(run)).demandCommand(1, 'Name a verb of "install"'),
    handler: () => undefined,
  };
}

function toDiskCommand(run: Run): CommandModule<GlobalOptions, InstallArguments> {
  return {
    command: 'to-disk <target> <image>',
    describe: 'Partition an empty disk or file, install systemd-boot and deploy',
    builder: (argv) =>
      imageOptions(argv)
        .positional('target', { type: 'string', demandOption: true, describe: 'Block device or file' })
        .positional('image', { type: 'string', demandOption: true, describe: 'Image reference, such as oci:DIR' })
        .option('root-ssh-authorized-keys', {
          type: 'string',
          requiresArg: true,
          describe: 'File with public keys that may log in as root',
        }),
    handler: async (options) => {
      const { installToDisk } = await import('../../ops/install-to-disk.ts');
      const context = openContext(options, run.signal);
      const result = await installToDisk(context.host, run, {
        target: options.target,
        image: options.image,
        kargs: options.karg,
        algorithm: options.hash,
        allowMissingVerity: options['allow-missing-verity'],
        authorizedKeys: options['root-ssh-authorized-keys'],
      });
      if (result === undefined) return;
      context.print(result, () => `Installed deployment ${result.id} on "${options.target}"\nImage ${result.digest}\n`);
    },
  };
}
