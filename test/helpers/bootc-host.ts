/**
 * A host as bootc's composefs backend leaves it, out of what its documentation says: made from a deployment of
 * hostctl, whose image and `/etc` are the same, with every record of ours replaced by bootc's.
 */

import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { fsverityDigest } from '../../src/format/fsverity/digest.ts';
import { readComposefsImage } from '../../src/format/erofs/reader.ts';
import { writeComposefsImage } from '../../src/format/erofs/writer.ts';

export interface BootcForm {
  readonly loader: 'grub' | 'systemd-boot';
  /** Of the image that bootc made. */
  readonly formatVersion: 1 | 2;
  /** Whether a splitstream of the OCI image is kept. */
  readonly hasStreams: boolean;
  /** Of the image, as its entry has it. */
  readonly version?: string;
}

export interface BootcHost {
  readonly digest: string;
  readonly entryFile: string;
  /** Every path of bootc's on the two file systems, below `root` and `boot`. */
  readonly paths: readonly string[];
}

/** Turns the one deployment below `root` and `boot` (SHA-512) into bootc's. */
export function asBootc(root: string, boot: string, form: BootcForm): BootcHost {
  const [before = ''] = readdirSync(`${root}/state/deploy`);
  const digest = form.formatVersion === 1 ? before : asVersion2(root, before);
  const state = `${root}/state/deploy/${digest}`;
  if (digest !== before) renameSync(`${root}/state/deploy/${before}`, state);
  rmSync(`${state}/${before}.origin`);
  writeFileSync(
    `${state}/${digest}.origin`,
    `[origin]\ncontainer-image-reference=ostree-unverified-image:docker://registry.example/os:42\n\n` +
      `[boot]\nboot_type=bls\ndigest=${'0'.repeat(64)}\n\n[image]\nmanifest_digest=sha256:${'1'.repeat(64)}\n`,
  );
  const entryFile = moveEntry(boot, digest, form);
  for (const ours of ['state/hostctl', 'composefs/images/refs/hostctl', 'composefs/hostctl']) {
    rmSync(`${root}/${ours}`, { recursive: true, force: true });
  }
  writeFileSync(`${root}/composefs/meta.json`, META);
  if (form.hasStreams) {
    const stream = 'ab'.repeat(64);
    mkdirSync(`${root}/composefs/objects/ab`, { recursive: true });
    writeFileSync(`${root}/composefs/objects/ab/${stream.slice(2)}`, 'a splitstream');
    symlinkSync(`../objects/ab/${stream.slice(2)}`, `${root}/composefs/streams/oci-config-sha256:22`);
    symlinkSync(`../oci-config-sha256:22`, `${root}/composefs/streams/refs/registry.example`);
  }
  const { kernels } = PLACES[form.loader];
  return {
    digest,
    entryFile,
    paths: [
      state,
      `${root}/composefs`,
      `${boot}/${kernels}/bootc_composefs-${digest}`,
      `${boot}/loader/entries/${entryFile}`,
    ],
  };
}

const META = JSON.stringify({
  version: 1,
  algorithm: 'fsverity-sha512-12',
  features: { compatible: [], 'read-only-compatible': ['v1_erofs'], incompatible: [] },
});

/** Kernels lie at the top for GRUB, and where EFI programs are for systemd-boot; the newest sorts first for each. */
const PLACES = {
  grub: { kernels: '.', sortKey: 'bootc-example-0' },
  'systemd-boot': { kernels: 'EFI/Linux', sortKey: 'bootc-example-0' },
} as const;

function moveEntry(boot: string, digest: string, { loader, version = '42.20250101' }: BootcForm): string {
  const entries = `${boot}/loader/entries`;
  const [ours = ''] = readdirSync(entries);
  const text = readFileSync(`${entries}/${ours}`, 'utf8');
  const [, prefix = ''] = /^linux (.*)\/hostctl\//m.exec(text) ?? [];
  const { kernels, sortKey } = PLACES[loader];
  const directory = `${kernels === '.' ? '' : `${kernels}/`}bootc_composefs-${digest}`;
  mkdirSync(`${boot}/${directory}`, { recursive: true });
  const [hash = ''] = readdirSync(`${boot}/hostctl`);
  renameSync(`${boot}/hostctl/${hash}/linux`, `${boot}/${directory}/vmlinuz`);
  renameSync(`${boot}/hostctl/${hash}/initrd`, `${boot}/${directory}/initrd`);
  rmSync(`${boot}/hostctl`, { recursive: true });
  const file = `bootc_example-${version}-1.conf`;
  const kargs = (/^options (.*)$/m.exec(text)?.[1] ?? '')
    .split(' ')
    .filter((arg) => !/^(composefs\.digest=|hostctl\.|panic=|rd\.shell=|rd\.emergency=)/.test(arg));
  writeFileSync(
    `${entries}/${file}`,
    [
      'title Example OS 42',
      `version ${version}`,
      `sort-key ${sortKey}`,
      `linux ${prefix}/${directory}/vmlinuz`,
      `initrd ${prefix}/${directory}/initrd`,
      `options ${kargs.join(' ')} composefs=${digest}`,
      '',
    ].join('\n'),
  );
  rmSync(`${entries}/${ours}`);
  return file;
}

/** The same tree as composefs-rs wrote it before version 1; takes the place of the image of version 1. */
function asVersion2(root: string, before: string): string {
  const objects = `${root}/composefs/objects`;
  const old = `${objects}/${before.slice(0, 2)}/${before.slice(2)}`;
  const tree = readComposefsImage(readFileSync(old));
  const { bytes } = writeComposefsImage(tree, { algorithm: 'sha512', minVersion: 2 });
  const digest = fsverityDigest('sha512', bytes);
  mkdirSync(`${objects}/${digest.slice(0, 2)}`, { recursive: true });
  writeFileSync(`${objects}/${digest.slice(0, 2)}/${digest.slice(2)}`, bytes);
  rmSync(old);
  rmSync(`${root}/composefs/images/${before}`);
  symlinkSync(`../objects/${digest.slice(0, 2)}/${digest.slice(2)}`, `${root}/composefs/images/${digest}`);
  if (existsSync(`${root}/composefs/objects/${digest.slice(0, 2)}`)) return digest;
  throw new Error('The image was not written');
}
