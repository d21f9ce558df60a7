/**
 * `image seal --uki`: the kernel, the initramfs and the digest of an image's root become one file that firmware
 * verifies, which is put into the image by one more layer. It lies in `/boot`, which is no part of that root, so that
 * the digest stays what it was. ukify puts it together and sbsign signs it.
 */

import * as fs from 'node:fs';
import { checkUserKarg } from '../deploy/change-kargs.ts';
import { buildCmdline } from '../deploy/kargs.ts';
import { efiName, SHIPPED_LOADERS } from '../deploy/loader-files.ts';
import { HostctlError } from '../errors.ts';
import { formatImageParameters, splitCmdline, type ImageParameters } from '../format/cmdline.ts';
import { writeComposefsImage } from '../format/erofs/writer.ts';
import { fsverityDigest } from '../format/fsverity/digest.ts';
import { formatImageReference } from '../format/oci/reference.ts';
import { readPeCmdlines } from '../format/pe.ts';
import { tarHeaders, tarPadding, TAR_END } from '../format/tar/writer.ts';
import { bootableTree } from '../image/build.ts';
import { UKI_DIRECTORY, unifiedKernels, type SplitKernel } from '../image/boot-files.ts';
import { measuringSink } from '../image/ingest.ts';
import { putLayer } from '../image/layout-layer.ts';
import type { ImageSource } from '../image/source.ts';
import { makeDirectories, temporaryName } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { lookup } from '../tree/lookup.ts';
import type { RawName } from '../tree/name.ts';
import type { DirectoryNode, VerityAlgorithm } from '../tree/node.ts';
import { imageKargs, isKargsFile, keptContent, smallText } from './boot-facts.ts';
import { flattenImage } from './build.ts';
import { extractingSink, type WantedFile } from './extract-files.ts';
import { checkUnifiedCmdline } from './unified-kernel.ts';
import { withImage } from './with-image.ts';

export interface UkiOptions {
  /** Files of the private key and of the certificate that firmware knows. */
  readonly secureBootKey: string;
  readonly secureBootCertificate: string;
  /** Added to those of the image. */
  readonly kargs: readonly string[];
}

export interface MakeUkiOptions extends UkiOptions {
  /** In an OCI layout. */
  readonly image: string;
  /** Of the repositories that it is for. */
  readonly algorithm: VerityAlgorithm;
}

export interface UkiResult {
  /** In the image. */
  readonly path: string;
  /** Of the image that has it. */
  readonly manifestDigest: string;
  /** `v1-sha512-12:HEX`, as in the command line. */
  readonly digest: string;
  readonly cmdline: string;
}

const OS_RELEASE = ['etc/os-release', 'usr/lib/os-release'];

export async function makeUki(host: Host, options: MakeUkiOptions): Promise<UkiResult> {
  const { image, algorithm, secureBootKey, secureBootCertificate } = options;
  options.kargs.forEach(checkUserKarg);
  for (const path of [secureBootKey, secureBootCertificate]) {
    if (fs.statSync(path, { throwIfNoEntry: false })?.isFile() !== true)
      throw new HostctlError('usage', `"${path}" is not a file`);
  }
  return withImage(host, image, undefined, async (source) => {
    const { reference } = source;
    if (reference.transport !== 'oci') {
      throw new HostctlError('image-unsupported', `Cannot add a layer to "${formatImageReference(reference)}"`, {
        hint: 'Copy the image into an OCI layout, oci:DIR[:TAG], and from there to where it belongs',
      });
    }
    const keep = (path: string): boolean => isKargsFile(path) || OS_RELEASE.includes(path);
    const flat = await flattenImage(host, source, measuringSink(algorithm), keep);
    const kernel = requireSplit(flat, source);
    const { bytes, version } = writeComposefsImage(bootableTree(flat).tree, { algorithm });
    const digest = fsverityDigest(algorithm, bytes);
    const parameters: ImageParameters = { formatVersion: version, algorithm, logBlockSize: 12 };
    const cmdline = buildCmdline(
      {
        pinned: { parameters, digest, verityRequired: true },
        stateName: digest,
        // The same file boots counted and good: which of the two it is, the boot hook finds out by itself.
        counted: true,
        kargs: { image: imageKargs(flat, keptContent, host.architecture), host: [], user: options.kargs, removed: [] },
      },
      host.machine,
    );
    const name = `${UKI_DIRECTORY}/${kernel.kernelVersion}.efi`;
    checkUnifiedCmdline(`/${name}`, splitCmdline(cmdline));
    const scratch = makeDirectories(reference.path, temporaryName('uki'), 0o700);
    try {
      const uki = await runUkify(host, source, { flat, kernel, cmdline, scratch, ...options });
      const manifestDigest = putLayer(source, layerWith(name, uki), { created_by: 'hostctl image seal --uki' });
      return {
        ...{ path: `/${name}`, manifestDigest, cmdline },
        digest: `${formatImageParameters(parameters)}:${digest}`,
      };
    } finally {
      fs.rmSync(scratch, { recursive: true, force: true });
    }
  });
}

function requireSplit(flat: DirectoryNode, { reference }: ImageSource): SplitKernel {
  const [there] = unifiedKernels(flat);
  const { bootFiles } = bootableTree(flat);
  if (there === undefined && bootFiles.kind === 'split') return bootFiles;
  throw new HostctlError(
    'image-unsupported',
    `"${formatImageReference(reference)}" has a unified kernel image already: "${there?.path}"`,
    { hint: 'Seal it as it is, without --uki, or start from the image without that file' },
  );
}

interface UkifyRun extends MakeUkiOptions {
  readonly flat: DirectoryNode;
  readonly kernel: SplitKernel;
  readonly cmdline: string;
  readonly scratch: string;
}

/** Takes the parts out of the layers, and gives what came of them, which must have the very command line. */
async function runUkify(host: Host, source: ImageSource, run: UkifyRun): Promise<Uint8Array> {
  const { flat, kernel, cmdline, scratch, algorithm } = run;
  const stub = lookup(flat, `${SHIPPED_LOADERS}/linux${efiName(host.architecture)}.efi.stub`);
  const parts: WantedFile[] = [
    { file: kernel.kernel, path: `${scratch}/linux` },
    { file: kernel.initramfs, path: `${scratch}/initrd` },
    // Without one ukify takes that of this machine.
    ...(stub?.kind === 'file' ? [{ file: stub, path: `${scratch}/stub` }] : []),
  ];
  const { sink, finish } = extractingSink(algorithm, parts);
  await flattenImage(host, source, sink);
  finish();
  const texts = { cmdline, 'os-release': osRelease(flat) };
  for (const [name, text] of Object.entries(texts)) fs.writeFileSync(`${scratch}/${name}`, text);
  const output = `${scratch}/uki.efi`;
  await host.exec.run('ukify', [
    'build',
    `--linux=${scratch}/linux`,
    `--initrd=${scratch}/initrd`,
    `--cmdline=@${scratch}/cmdline`,
    `--os-release=@${scratch}/os-release`,
    `--uname=${kernel.kernelVersion}`,
    ...(stub?.kind === 'file' ? [`--stub=${scratch}/stub`] : []),
    `--secureboot-private-key=${run.secureBootKey}`,
    `--secureboot-certificate=${run.secureBootCertificate}`,
    '--signtool=sbsign',
    `--output=${output}`,
  ]);
  const uki = fs.readFileSync(output);
  const made = readPeCmdlines([uki]);
  if (made.length === 1 && made[0]?.trim() === cmdline) return uki;
  throw new HostctlError('command-failed', `ukify gave "${made.join('", "')}" instead of "${cmdline}"`);
}

function osRelease(flat: DirectoryNode): string {
  return (
    OS_RELEASE.map((path) => smallText(lookup(flat, `/${path}`), keptContent)).find((text) => text !== undefined) ?? ''
  );
}

/** A layer with one file and the directories to it. `/boot` has no entry: it stays as the image has it. */
function layerWith(path: string, bytes: Uint8Array): Uint8Array {
  const entry = (name: string, size?: number): Uint8Array =>
    tarHeaders({
      ...{
        name: name as RawName,
        linkname: '' as RawName,
        uid: 0,
        gid: 0,
        devMajor: 0,
        devMinor: 0,
        xattrs: new Map(),
      },
      ...{ mtime: { sec: 0n, nsec: 0 }, size: size ?? 0 },
      ...(size === undefined ? { type: 'directory', mode: 0o755 } : { type: 'file', mode: 0o644 }),
    });
  const [boot = '', ...directories] = path.split('/').slice(0, -1);
  const above = directories.map((_, i) => `${[boot, ...directories.slice(0, i + 1)].join('/')}/`);
  return Buffer.concat([
    ...above.map((name) => entry(name)),
    entry(path, bytes.length),
    bytes,
    tarPadding(bytes.length),
    TAR_END,
  ]);
}
