/** `hostctl composefs …` and `hostctl fsverity …`: what mkcomposefs, composefs-info and fsverity do. */

import { buffer } from 'node:stream/consumers';
import type { Argv, CommandModule } from 'yargs';
import type * as tools from '../../ops/composefs-tools.ts';
import type { VerityAlgorithm } from '../../tree/node.ts';
import { openContext, type Context, type GlobalOptions } from '../context.ts';
import type { Run } from '../program.ts';

type Tools = typeof tools;

interface ImageFileArguments extends GlobalOptions {
  readonly img: string;
}

interface CreateArguments extends GlobalOptions {
  readonly source: string;
  readonly out: string;
  readonly 'from-dump': boolean;
  readonly 'digest-store'?: string | undefined;
  readonly 'composefs-version': 0 | 1 | 2;
  readonly hash: VerityAlgorithm;
}

export function composefsCommand(run: Run): CommandModule<GlobalOptions, GlobalOptions> {
  return {
    command: 'composefs',
    describe: 'Make composefs image files and take them apart',
    builder: (argv) =>
      argv
        .command(createCommand(run))
        .command(
          imageFileCommand(run, 'dump <img>', 'Print an image as a dump', (context, tools, { img }) =>
            context.printPieces(tools.dumpImage(img)),
          ),
        )
        .command(
          imageFileCommand(run, 'ls <img>', 'List what is in an image', async (context, tools, { img }) => {
            const { lsLine, lsRecord } = await import('../view/ls.ts');
            return context.printList(tools.listImage(img), lsRecord, lsLine);
          }),
        )
        .command(
          imageFileCommand(run, 'objects <img>', 'List the objects an image needs', (context, tools, { img }) =>
            printObjects(context, tools.objectsOfImage(img)),
          ),
        )
        .command(
          imageFileCommand(run, 'inspect <img>', 'Show every byte range and field', (context, tools, { img }) =>
            context.printPieces(tools.inspectImageFile(img)),
          ),
        )
        .command(missingObjectsCommand(run))
        .demandCommand(1, 'Name a verb of "composefs"'),
    handler: () => undefined,
  };
}

function imageFileCommand(
  run: Run,
  command: string,
  describe: string,
  body: (context: Context, tools: Tools, options: ImageFileArguments) => Promise<void>,
): CommandModule<GlobalOptions, ImageFileArguments> {
  return {
    command,
    describe,
    builder: imgOption,
    handler: async (options) => {
      const tools = await import('../../ops/composefs-tools.ts');
      await body(openContext(options, run.signal), tools, options);
    },
  };
}

/** One path a line; `-` for an object without one, which machines get as null. */
function printObjects(context: Context, objects: readonly { readonly path?: string }[]): Promise<void> {
  return context.printList(
    objects,
    ({ path }) => path ?? null,
    ({ path }) => path ?? '-',
  );
}

function imgOption(argv: Argv<GlobalOptions>) {
  return argv.positional('img', { type: 'string', demandOption: true, describe: 'Image file' });
}

function missingObjectsCommand(
  run: Run,
): CommandModule<GlobalOptions, ImageFileArguments & { 'digest-store': string }> {
  return {
    command: 'missing-objects <img>',
    describe: 'List the objects an image needs and a store lacks',
    builder: (argv) =>
      imgOption(argv).option('digest-store', {
        type: 'string',
        demandOption: true,
        requiresArg: true,
        describe: 'Directory of objects',
      }),
    handler: async (options) => {
      const { missingObjects } = await import('../../ops/composefs-tools.ts');
      const missing = missingObjects(options.img, options['digest-store']);
      await printObjects(openContext(options, run.signal), missing);
    },
  };
}

function createCommand(run: Run): CommandModule<GlobalOptions, CreateArguments> {
  return {
    command: 'create <source> <out>',
    describe: 'Write an image file and print its digest',
    builder: (argv) =>
      argv
        .positional('source', {
          type: 'string',
          demandOption: true,
          describe: 'Directory; with --from-dump a file or -',
        })
        .positional('out', { type: 'string', demandOption: true, describe: 'Image file to write' })
        .option('from-dump', { type: 'boolean', default: false, describe: 'SOURCE is a dump' })
        .option('digest-store', { type: 'string', requiresArg: true, describe: 'Store the contents of files here' })
        .option('composefs-version', { choices: [0, 1, 2] as const, default: 1 as const, describe: 'Format version' })
        .option('hash', { choices: ['sha256', 'sha512'] as const, default: 'sha256' as const, describe: 'Hash' }),
    handler: async (options) => {
      const { createImage } = await import('../../ops/composefs-tools.ts');
      const context = openContext(options, run.signal);
      const digest = await createImage(context.host, {
        // yargs makes an empty text of a lone dash.
        source: options['from-dump'] && options.source === '' ? '-' : options.source,
        out: options.out,
        // Not by descriptor: a pipe may be set to return at once when it is empty.
        readStdin: () => buffer(process.stdin),
        fromDump: options['from-dump'],
        digestStore: options['digest-store'],
        formatVersion: options['composefs-version'],
        algorithm: options.hash,
      });
      context.print({ digest, hash: options.hash }, () => `${digest}\n`);
    },
  };
}

interface FsverityArguments extends GlobalOptions {
  readonly file: readonly string[];
  readonly hash: VerityAlgorithm;
}

export function fsverityCommand(run: Run): CommandModule<GlobalOptions, GlobalOptions> {
  const digest: CommandModule<GlobalOptions, FsverityArguments> = {
    command: 'digest <file..>',
    describe: 'Print the fs-verity digests of files',
    builder: (argv) =>
      argv
        .positional('file', { type: 'string', array: true, demandOption: true, describe: 'Files' })
        .option('hash', { choices: ['sha256', 'sha512'] as const, default: 'sha256' as const, describe: 'Hash' }),
    handler: async (options) => {
      const { digestFile } = await import('../../ops/composefs-tools.ts');
      const context = openContext(options, run.signal);
      const digests = options.file.map((file) => ({ file, digest: digestFile(file, options.hash) }));
      context.print(digests, () => digests.map((line) => `${line.digest}\n`).join(''));
    },
  };
  return {
    command: 'fsverity',
    describe: 'Compute fs-verity digests',
    builder: (argv) => argv.command(digest).demandCommand(1, 'Name a verb of "fsverity"'),
    handler: () => undefined,
  };
}
