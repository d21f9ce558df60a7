/** `hostctl image …`: images without a host. */

import type { Argv, CommandModule } from 'yargs';
import { HostctlError } from '../../errors.ts';
import type { ImageLayout } from '../../store/image-record.ts';
import type { VerityAlgorithm } from '../../tree/node.ts';
import { revokeCommand, sealCommand, signCommand, verifyCommand } from './image-seal.ts';
import { openContext, type GlobalOptions } from '../context.ts';
import { exitCodeOf } from '../exit-codes.ts';
import type { Run } from '../program.ts';

interface NamedArguments extends GlobalOptions {
  readonly image: string;
}

interface ImageArguments extends NamedArguments {
  readonly hash?: VerityAlgorithm | undefined;
}

interface DigestArguments extends ImageArguments {
  readonly 'composefs-version': 0 | 1 | 2;
  readonly bootable: boolean;
}

export function imageCommand(run: Run): CommandModule<GlobalOptions, GlobalOptions> {
  return {
    command: 'image',
    describe: 'Work with images',
    builder: (argv) =>
      argv
        .command(pullCommand(run))
        .command(digestCommand(run))
        .command(compareCommand(run))
        .command(dumpCommand(run))
        .command(listCommand(run))
        .command(inspectCommand(run))
        .command(lsCommand(run))
        .command(catCommand(run))
        .command(exportCommand(run))
        .command(lintCommand(run))
        .command(sealCommand(run))
        .command(signCommand(run))
        .command(verifyCommand(run))
        .command(revokeCommand(run))
        .command(removeCommand(run))
        .command(mountCommand(run))
        .command(umountCommand(run))
        .demandCommand(1, 'Name a verb of "image"'),
    handler: () => undefined,
  };
}

function imageOptions(argv: Argv<GlobalOptions>) {
  return imageReference(argv).option('hash', {
    choices: ['sha256', 'sha512'] as const,
    describe: 'Hash (default sha512)',
  });
}

function imageReference<T>(argv: Argv<T>) {
  return argv.positional('image', {
    type: 'string',
    demandOption: true,
    describe: 'Image reference, such as oci:DIR',
  });
}

interface PullArguments extends ImageArguments {
  readonly layout?: ImageLayout | undefined;
}

function pullCommand(run: Run): CommandModule<GlobalOptions, PullArguments> {
  return {
    command: 'pull <image>',
    describe: 'Store an image in the repository and print its composefs digest',
    builder: (argv) =>
      imageOptions(argv).option('layout', {
        choices: ['flat', 'split', 'cached'] as const,
        describe: 'How it is stored (default: split, where it has its lowest layers in common with another image)',
      }),
    handler: async (options) => {
      const { pullImage } = await import('../../ops/pull-image.ts');
      const context = openContext(options, run.signal);
      const { image, hash, layout } = options;
      const result = await pullImage(context.host, { ...context.paths, image, algorithm: hash, layout });
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
        .option('composefs-version', { choices: [0, 1, 2] as const, default: 1 as const, describe: 'Format version' })
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

interface CompareArguments extends GlobalOptions {
  readonly a: string;
  readonly b: string;
}

function compareCommand(run: Run): CommandModule<GlobalOptions, CompareArguments> {
  const describe =
    'Image reference, digest in the repository, image file or directory (beginning with "/" or "."), dump:FILE';
  return {
    command: 'compare <a> <b>',
    describe: 'Say why two digests differ: which path, and which field; exit 3 when the trees differ',
    builder: (argv) =>
      argv
        .positional('a', { type: 'string', demandOption: true, describe })
        .positional('b', { type: 'string', demandOption: true, describe: 'As the first' }),
    handler: async (options) => {
      const { compareImages } = await import('../../ops/compare-images.ts');
      const { compareRecord, compareText } = await import('../view/compare.ts');
      const context = openContext(options, run.signal);
      const result = await compareImages(context.host, { ...context.paths, a: options.a, b: options.b });
      if (options.format === 'human') await context.printPieces(compareText(result));
      else context.print(compareRecord(result), () => '');
      if (!result.equal) run.setExitCode(exitCodeOf('digest-mismatch'));
    },
  };
}

function imageArgument<T>(argv: Argv<T>) {
  return argv.positional('image', {
    type: 'string',
    demandOption: true,
    describe: 'Digest or name in the repository, or an image reference',
  });
}

function dumpCommand(run: Run): CommandModule<GlobalOptions, NamedArguments> {
  return {
    command: 'dump <image>',
    describe: 'Print the flattened tree in the composefs dump format',
    builder: imageArgument,
    handler: async (options) => {
      const { dumpTree } = await import('../../ops/image-tools.ts');
      const context = openContext(options, run.signal);
      await context.printPieces(await dumpTree(context.host, { ...context.paths, image: options.image }));
    },
  };
}

function listCommand(run: Run): CommandModule<GlobalOptions, GlobalOptions> {
  return {
    command: 'list',
    describe: 'List the images of the repository, what keeps each and what it takes',
    handler: async (options) => {
      const { listAllImages } = await import('../../ops/list-images.ts');
      const { imageListText } = await import('../view/image-list-text.ts');
      const context = openContext(options, run.signal);
      const images = listAllImages(context.host, context.paths);
      context.print(images, () => imageListText(images));
    },
  };
}

function inspectCommand(run: Run): CommandModule<GlobalOptions, NamedArguments> {
  return {
    command: 'inspect <image>',
    describe: 'Show what an image is and how it was made',
    builder: imageArgument,
    handler: async (options) => {
      const { inspectImage } = await import('../../ops/image-tools.ts');
      const context = openContext(options, run.signal);
      const result = await inspectImage(context.host, { ...context.paths, image: options.image });
      context.print(result, () => `${JSON.stringify(result, undefined, 2)}\n`);
    },
  };
}

interface LsArguments extends NamedArguments {
  readonly path: string;
  readonly recursive: boolean;
}

function lsCommand(run: Run): CommandModule<GlobalOptions, LsArguments> {
  return {
    command: 'ls <image> [path]',
    describe: 'List files of an image',
    builder: (argv) =>
      imageArgument(argv)
        .positional('path', { type: 'string', default: '/', describe: 'Directory or file in the image' })
        .option('recursive', { alias: 'R', type: 'boolean', default: false, describe: 'Everything below it' }),
    handler: async (options) => {
      const { listFiles } = await import('../../ops/image-tools.ts');
      const { lsLine, lsRecord } = await import('../view/ls.ts');
      const context = openContext(options, run.signal);
      const { image, path, recursive } = options;
      const entries = await listFiles(context.host, { ...context.paths, image, path, recursive });
      await context.printList(entries, lsRecord, lsLine);
    },
  };
}

function catCommand(run: Run): CommandModule<GlobalOptions, NamedArguments & { readonly path: string }> {
  return {
    command: 'cat <image> <path>',
    describe: 'Print a file of an image',
    builder: (argv) =>
      imageArgument(argv).positional('path', { type: 'string', demandOption: true, describe: 'File in the image' }),
    handler: async (options) => {
      const { readFile } = await import('../../ops/image-tools.ts');
      const context = openContext(options, run.signal);
      const { image, path } = options;
      await context.printPieces(await readFile(context.host, { ...context.paths, image, path }));
    },
  };
}

function exportCommand(run: Run): CommandModule<GlobalOptions, NamedArguments> {
  return {
    command: 'export <image>',
    describe: 'Write the tree of an image in the repository to standard output, as a tar archive',
    builder: (argv) =>
      argv.positional('image', {
        type: 'string',
        demandOption: true,
        describe: 'Digest or name in the repository',
      }),
    handler: async (options) => {
      const { exportImage } = await import('../../ops/export-image.ts');
      const context = openContext(options, run.signal);
      if (process.stdout.isTTY) {
        throw new HostctlError('usage', 'A tar archive is nothing for a terminal', {
          hint: 'Send it to a file or to a program: "hostctl image export IMAGE | tar -x -C DIR"',
        });
      }
      await context.printPieces(exportImage(context.host, { ...context.paths, image: options.image }));
    },
  };
}

function lintCommand(run: Run): CommandModule<GlobalOptions, NamedArguments> {
  return {
    command: 'lint <image>',
    describe: 'Say whether an image can be deployed, and every reason why not; exit 7 when it cannot',
    builder: imageReference,
    handler: async (options) => {
      const { lintImage } = await import('../../ops/lint-image.ts');
      const { lintText } = await import('../view/lint-text.ts');
      const context = openContext(options, run.signal);
      const result = await lintImage(context.host, { image: options.image });
      context.print(result, () => lintText(result));
      if (!result.deployable) run.setExitCode(exitCodeOf('image-not-bootable'));
    },
  };
}

function removeCommand(run: Run): CommandModule<GlobalOptions, GlobalOptions & { readonly name: string }> {
  return {
    command: 'remove <name>',
    describe: 'Take a name away; gc removes an image that nothing keeps',
    builder: (argv) =>
      argv.positional('name', { type: 'string', demandOption: true, describe: 'The reference it was pulled by' }),
    handler: async (options) => {
      const { removeImageName } = await import('../../ops/list-images.ts');
      const { ownersText } = await import('../view/image-list-text.ts');
      const context = openContext(options, run.signal);
      const result = await removeImageName(context.host, { ...context.paths, image: options.name });
      const kept = ownersText(result.kept);
      if (kept !== '') context.host.log.info(`The image stays: ${kept}`);
      context.print(result, () => `${result.digest}\n`);
    },
  };
}

interface MountArguments extends NamedArguments {
  readonly directory: string;
  readonly verity: 'require' | 'off';
  readonly rw?: readonly string[] | undefined;
}

function mountCommand(run: Run): CommandModule<GlobalOptions, MountArguments> {
  return {
    command: 'mount <image> <directory>',
    describe: 'Mount an image of the repository',
    builder: (argv) =>
      imageArgument(argv)
        .positional('directory', { type: 'string', demandOption: true, describe: 'Where' })
        .option('verity', {
          choices: ['require', 'off'] as const,
          default: 'require' as const,
          describe: 'Whether every file must be guarded by fs-verity',
        })
        .option('rw', {
          type: 'string',
          nargs: 2,
          requiresArg: true,
          describe: 'UPPER and WORK directory of a writable layer',
          // Two words make a list; yargs' `array` would take one of them away.
          coerce: (words: unknown) => words as readonly string[],
        }),
    handler: async (options) => {
      const { mountImage } = await import('../../ops/mount-image.ts');
      const context = openContext(options, run.signal);
      const [upper, work] = options.rw ?? [];
      const mount = {
        ...context.paths,
        image: options.image,
        directory: options.directory,
        verity: options.verity,
        writable: upper === undefined || work === undefined ? undefined : { upper, work },
      };
      const result = await mountImage(context.host, mount, run);
      if (result !== undefined) context.print(result, () => '');
    },
  };
}

function umountCommand(run: Run): CommandModule<GlobalOptions, GlobalOptions & { readonly directory: string }> {
  return {
    command: 'umount <directory>',
    describe: 'Unmount an image',
    builder: (argv) =>
      argv.positional('directory', { type: 'string', demandOption: true, describe: 'Where it is mounted' }),
    handler: async (options) => {
      const { unmountImage } = await import('../../ops/mount-image.ts');
      await unmountImage(openContext(options, run.signal).host, options.directory);
    },
  };
}
