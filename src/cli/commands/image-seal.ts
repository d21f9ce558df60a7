/** `hostctl image seal|sign|verify|revoke` */

import type { Argv, CommandModule } from 'yargs';
import { HostctlError } from '../../errors.ts';
import type { VerityAlgorithm } from '../../tree/node.ts';
import type { UkiOptions } from '../../ops/make-uki.ts';
import type { Pkcs7Signer } from '../../ops/pkcs7.ts';
import { openContext, type GlobalOptions } from '../context.ts';
import type { Run } from '../program.ts';
import { verifiedText } from '../view/verified-text.ts';

interface SignArguments extends GlobalOptions {
  readonly image: string;
  readonly key: readonly string[];
}

interface SealArguments extends SignArguments {
  readonly uki: boolean;
  readonly 'secureboot-private-key'?: string | undefined;
  readonly 'secureboot-certificate'?: string | undefined;
  readonly karg: readonly string[];
  readonly 'pkcs7-private-key'?: string | undefined;
  readonly 'pkcs7-certificate'?: string | undefined;
  readonly hash?: VerityAlgorithm | undefined;
  readonly name?: string | undefined;
  readonly 'security-version': number;
  readonly expires?: string | undefined;
}

export function sealCommand(run: Run): CommandModule<GlobalOptions, SealArguments> {
  return {
    command: 'seal <image>',
    describe: 'Compute the digests that an image has on a host, sign them, and put the seal beside it',
    builder: (argv) =>
      keyOption(imagePositional(argv), 'Private key (PEM) to sign with; may be given several times')
        .option('hash', { choices: ['sha256', 'sha512'] as const, describe: 'For repositories of this hash only' })
        .option('name', { type: 'string', requiresArg: true, describe: 'Repository it is published in, HOST/NAME' })
        .option('security-version', {
          type: 'number',
          default: 0,
          requiresArg: true,
          describe: 'Hosts where a higher one was good do not go back to it',
        })
        .option('expires', { type: 'string', requiresArg: true, describe: 'Time such as 2027-03-01T00:00:00Z' })
        .option('uki', {
          type: 'boolean',
          default: false,
          describe: 'Put kernel, initramfs and digest as one signed file (UKI) into the image first',
        })
        .option('secureboot-private-key', {
          type: 'string',
          requiresArg: true,
          describe: 'Key (PEM) to sign the UKI with',
        })
        .option('secureboot-certificate', {
          type: 'string',
          requiresArg: true,
          describe: 'Certificate (PEM) of that key',
        })
        .option('karg', {
          type: 'string',
          array: true,
          default: [] as string[],
          requiresArg: true,
          describe: 'Kernel argument of the UKI; may be given several times',
        })
        .option('pkcs7-private-key', {
          type: 'string',
          requiresArg: true,
          describe: 'Key (PEM) to sign the digests with for other tools, as "fsverity sign" does',
        })
        .option('pkcs7-certificate', { type: 'string', requiresArg: true, describe: 'Certificate (PEM) of that key' })
        .check((options) => {
          const version = options['security-version'];
          if (Number.isSafeInteger(version) && version >= 0) return true;
          throw new HostctlError('usage', '--security-version takes a whole number from 0');
        }),
    handler: async (options) => {
      refuseWithoutSeal(options);
      const { sealImage } = await import('../../ops/seal-image.ts');
      const context = openContext(options, run.signal);
      const result = await sealImage(context.host, {
        image: options.image,
        keys: options.key,
        name: options.name,
        securityVersion: options['security-version'],
        expires: options.expires,
        algorithms: options.hash === undefined ? ['sha512', 'sha256'] : [options.hash],
        uki: ukiOptions(options),
        pkcs7: pkcs7Options(options),
      });
      context.print(result, () => lines(result.digests));
    },
  };
}

/** What only a seal can say is not lost where none is made. */
function refuseWithoutSeal(options: SealArguments): void {
  const ofSeal = [options.name, options.expires, options['security-version'] || undefined];
  if (options.key.length === 0 && ofSeal.some((value) => value !== undefined)) {
    throw new HostctlError('usage', '--name, --expires and --security-version are of a seal: they need --key');
  }
}

function ukiOptions(options: SealArguments): UkiOptions | undefined {
  const { 'secureboot-private-key': key, 'secureboot-certificate': certificate, uki, karg } = options;
  if (!uki) {
    if (key === undefined && certificate === undefined && karg.length === 0) return undefined;
    throw new HostctlError('usage', '--secureboot-private-key, --secureboot-certificate and --karg go with --uki');
  }
  if (key === undefined || certificate === undefined) {
    throw new HostctlError('usage', '--uki needs --secureboot-private-key and --secureboot-certificate');
  }
  return { secureBootKey: key, secureBootCertificate: certificate, kargs: karg };
}

function pkcs7Options(options: SealArguments): Pkcs7Signer | undefined {
  const { 'pkcs7-private-key': privateKey, 'pkcs7-certificate': certificate } = options;
  if (privateKey === undefined && certificate === undefined) return undefined;
  if (privateKey !== undefined && certificate !== undefined) return { privateKey, certificate };
  throw new HostctlError('usage', '--pkcs7-private-key and --pkcs7-certificate go together');
}

export function signCommand(run: Run): CommandModule<GlobalOptions, SignArguments> {
  return {
    command: 'sign <image>',
    describe: 'Check the seal beside an image against its layers, and sign it by one more key',
    builder: (argv) => keyOption(imagePositional(argv), 'Private key (PEM) to sign with; may be given several times'),
    handler: async (options) => {
      const { signImage } = await import('../../ops/seal-image.ts');
      const context = openContext(options, run.signal);
      const result = await signImage(context.host, { image: options.image, keys: options.key });
      context.print(result, () => lines(result.keys));
    },
  };
}

interface VerifyArguments extends SignArguments {
  readonly 'pkcs7-certificate'?: string | undefined;
}

export function verifyCommand(run: Run): CommandModule<GlobalOptions, VerifyArguments> {
  return {
    command: 'verify <image>',
    describe: 'Say whether an image is what a trusted key sealed; every byte of it is read',
    builder: (argv) =>
      keyOption(
        argv.positional('image', {
          type: 'string',
          demandOption: true,
          describe: 'Image reference, or a digest in the repository',
        }),
        'Public key (PEM) to trust instead of those of the host; may be given several times',
      ).option('pkcs7-certificate', {
        type: 'string',
        requiresArg: true,
        describe: 'Certificate (PEM) whose key signed the digests for other tools: look at these, and not at seals',
      }),
    handler: async (options) => {
      const certificate = options['pkcs7-certificate'];
      if (certificate !== undefined) {
        if (options.key.length > 0) {
          throw new HostctlError('usage', '--key is for seals, --pkcs7-certificate is for other signatures');
        }
        const { verifyMetadata } = await import('../../ops/metadata-artifact.ts');
        const context = openContext(options, run.signal);
        const found = await verifyMetadata(context.host, { image: options.image, certificate });
        context.print(found, () => lines(found.signed.map(({ name, digest }) => `${name} ${digest}`)));
        return;
      }
      const { verifyImage } = await import('../../ops/verify-image.ts');
      const context = openContext(options, run.signal);
      const result = await verifyImage(context.host, { ...context.paths, image: options.image, keys: options.key });
      context.print(result, () => verifiedText(result));
    },
  };
}

interface RevokeArguments extends GlobalOptions {
  readonly file: string;
  readonly digest: readonly string[];
  readonly key: readonly string[];
}

export function revokeCommand(run: Run): CommandModule<GlobalOptions, RevokeArguments> {
  return {
    command: 'revoke <file> <digest..>',
    describe: 'Add digests to a signed list of images that hosts must not run any more',
    builder: (argv) =>
      keyOption(
        argv
          .positional('file', { type: 'string', demandOption: true, describe: 'The list, for /etc/hostctl/revoked' })
          .positional('digest', {
            type: 'string',
            array: true,
            demandOption: true,
            describe: 'As "image seal" prints it, v1-sha512-12:HEX',
          }),
        'Private key (PEM) to sign with; may be given several times',
      ),
    handler: async (options) => {
      const { revokeImages } = await import('../../ops/revoke-image.ts');
      const context = openContext(options, run.signal);
      const result = revokeImages({ file: options.file, digests: options.digest, keys: options.key });
      context.print(result, () => lines(result.digests));
    },
  };
}

function imagePositional<T>(argv: Argv<T>) {
  return argv.positional('image', {
    type: 'string',
    demandOption: true,
    describe: 'Image in an OCI layout, oci:DIR[:TAG]',
  });
}

function keyOption<T>(argv: Argv<T>, describe: string) {
  return argv.option('key', { type: 'string', array: true, default: [] as string[], requiresArg: true, describe });
}

function lines(items: readonly string[]): string {
  return items.map((item) => `${item}\n`).join('');
}
