/**
 * A small bootable image in two versions, made by GNU tar: a kernel and an initrd that are only bytes, files in and out
 * of the image, links, a whiteout. Small, since every crash point costs one deployment of it.
 */

import { createHash } from 'node:crypto';
import {
  chmodSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { run } from '../../../scripts/lib/run.ts';
import { peFile } from '../../helpers/pe-builder.ts';

type Files = Readonly<Record<string, string | Buffer>>;

const VERSION = '6.12.0-proof';
const BOUND_FILE = 'usr/share/containers/systemd/app.image';
const BOUND_LINK = 'usr/lib/bootc/bound-images.d/app.image';

/** Bytes that do not compress, the same each time. */
function noise(seed: string, length: number): Buffer {
  const parts: Buffer[] = [];
  for (let i = 0; i * 64 < length; i += 1) parts.push(createHash('sha512').update(`${seed} ${i}`).digest());
  return Buffer.concat(parts).subarray(0, length);
}

const BASE: Files = {
  'etc/hostname': 'proof\n',
  'etc/os-release': '',
  'etc/conf.d/large.conf': 'setting = value\n'.repeat(40),
  'usr/lib/os-release': 'ID=proof\nPRETTY_NAME="Proof 1"\nVERSION_ID=1\n',
  'usr/bin/tool': noise('tool', 9000),
  'usr/bin/other': noise('other', 300),
  'usr/lib/library': noise('library', 70_000),
  'usr/share/removed': noise('removed', 200),
  'var/lib/state/first': 'first\n',
  [`usr/lib/modules/${VERSION}/vmlinuz`]: noise('kernel', 30_000),
  [`usr/lib/modules/${VERSION}/initramfs.img`]: noise('initrd', 50_000),
};

const UPDATE: Files = {
  'usr/lib/os-release': 'ID=proof\nPRETTY_NAME="Proof 2"\nVERSION_ID=2\n',
  'usr/bin/tool': noise('tool 2', 9500),
  'usr/lib/added': noise('added', 5000),
  'usr/share/.wh.removed': '',
  'etc/conf.d/large.conf': 'setting = other\n'.repeat(40),
  [`usr/lib/modules/${VERSION}/initramfs.img`]: noise('initrd 2', 52_000),
};

/** A file that only the first version has. */
export const ONLY_IN_FIRST: Buffer = noise('removed', 200);

/** Some MiB for the root and for the boot partition. */
const LARGE: Files = {
  'usr/lib/large': noise('large', 9 * 2 ** 20),
  [`usr/lib/modules/${VERSION}/initramfs.img`]: noise('large initrd', 5 * 2 ** 20),
};

/** What an installation puts onto the ESP. */
export const LOADER: Buffer = noise('loader', 20_000);

const BOOT_LOADER: Files = { 'usr/lib/systemd/boot/efi/systemd-bootx64.efi': LOADER };

const APP: Files = {
  'usr/bin/app': noise('app', 4000),
  'usr/lib/library': BASE['usr/lib/library']!,
};

/** What a tag of the layout is: two versions of the host image, a larger one, one that is bound to the application, that, the first with a boot loader, and one that boots by a unified kernel image. */
export const TAGS = ['v1', 'v2', 'large', 'bound', 'app', 'loader', 'unified'] as const;
export type Tag = (typeof TAGS)[number];

/** What makes a host image one that is bound to the application image of the layout. */
function binding(directory: string): Files {
  return {
    'usr/lib/os-release': 'ID=proof\nPRETTY_NAME="Proof 3"\nVERSION_ID=3\n',
    [BOUND_FILE]: `# An application of this host, the same at every start\n[Image]\nImage=oci:${directory}:app\n`,
  };
}

const UNIFIED = 'boot/EFI/Linux/proof.efi';

/** What makes a host image one that boots by a unified kernel image with an add-on, which pins this digest. */
function unified(digest: string): Files {
  const cmdline = `quiet composefs.digest=?v1-sha512-12:${digest}`;
  const sections = [
    { name: '.cmdline', content: `${cmdline}\0` },
    { name: '.linux', content: noise('unified kernel', 40_000) },
  ];
  return {
    'usr/lib/os-release': 'ID=proof\nPRETTY_NAME="Proof 4"\nVERSION_ID=4\n',
    [UNIFIED]: peFile(sections),
    [`${UNIFIED}.extra.d/more.addon.efi`]: peFile([{ name: '.cmdline', content: 'proof=2' }]),
  };
}

/** Writes the layout to `directory`; layers gzip and zstd. `digestOfImage` measures what a reference would boot. */
export async function makeImages(
  directory: string,
  digestOfImage: (reference: string) => Promise<string>,
): Promise<void> {
  mkdirSync(`${directory}/blobs/sha256`, { recursive: true });
  const base = await makeLayer(directory, BASE, 'gzip');
  const update = await makeLayer(directory, UPDATE, 'zstd');
  const bound = await makeLayer(directory, binding(directory), 'gzip', { [BOUND_LINK]: `/${BOUND_FILE}` });
  const unifiedWith = (digest: string): Promise<Layer> => makeLayer(directory, unified(digest), 'gzip');
  const layersOf: Record<Tag, readonly Layer[]> = {
    v1: [base],
    v2: [base, update],
    large: [base, await makeLayer(directory, LARGE, 'zstd')],
    bound: [base, bound],
    app: [await makeLayer(directory, APP, 'gzip')],
    loader: [base, await makeLayer(directory, BOOT_LOADER, 'gzip')],
    // What is pinned is the image without what pins it, so any other digest there leads to the same.
    unified: [base, await unifiedWith('0'.repeat(128))],
  };
  writeIndex(directory, layersOf);
  layersOf.unified = [base, await unifiedWith(await digestOfImage(`oci:${directory}:unified`))];
  writeIndex(directory, layersOf);
}

function writeIndex(directory: string, layersOf: Readonly<Record<Tag, readonly Layer[]>>): void {
  const manifests = TAGS.map((tag) => {
    const layers = layersOf[tag];
    const config = putJson(directory, 'application/vnd.oci.image.config.v1+json', {
      architecture: 'amd64',
      os: 'linux',
      config: { Labels: { 'containers.bootc': '1' } },
      rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
    });
    const manifest = putJson(directory, 'application/vnd.oci.image.manifest.v1+json', {
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config,
      layers: layers.map(({ descriptor }) => descriptor),
    });
    return { ...manifest, annotations: { 'org.opencontainers.image.ref.name': tag } };
  });
  writeFileSync(`${directory}/oci-layout`, JSON.stringify({ imageLayoutVersion: '1.0.0' }));
  writeFileSync(
    `${directory}/index.json`,
    JSON.stringify({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests }),
  );
}

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

interface Layer {
  readonly descriptor: Descriptor;
  readonly diffId: string;
}

async function makeLayer(
  directory: string,
  files: Files,
  compression: 'gzip' | 'zstd',
  links: Readonly<Record<string, string>> = {},
): Promise<Layer> {
  const stage = mkdtempSync(`${directory}/stage-`);
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(`${stage}/tree/${path}`), { recursive: true });
    if (path !== 'etc/os-release') writeFileSync(`${stage}/tree/${path}`, content);
  }
  for (const [path, target] of Object.entries(links)) {
    mkdirSync(dirname(`${stage}/tree/${path}`), { recursive: true });
    symlinkSync(target, `${stage}/tree/${path}`);
  }
  if (files === BASE) addSpecialFiles(`${stage}/tree`);
  const tar = `${stage}/layer.tar`;
  await run('tar', [
    ...['--create', `--file=${tar}`, `--directory=${stage}/tree`, '--sort=name', '--format=pax'],
    ...['--owner=0', '--group=0', '--numeric-owner', '--mtime=@1700000000'],
    ...['--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime', '.'],
  ]);
  const diffId = digestOf(readFileSync(tar));
  await (compression === 'gzip' ? run('gzip', ['-n', tar]) : run('zstd', ['-q', '--rm', tar]));
  const blob = compression === 'gzip' ? `${tar}.gz` : `${tar}.zst`;
  const digest = digestOf(readFileSync(blob));
  const size = statSync(blob).size;
  renameSync(blob, `${directory}/blobs/${digest.replace(':', '/')}`);
  rmSync(stage, { recursive: true });
  return { descriptor: { mediaType: `application/vnd.oci.image.layer.v1.tar+${compression}`, digest, size }, diffId };
}

function addSpecialFiles(tree: string): void {
  for (const name of ['boot', 'dev', 'proc', 'run', 'sys', 'sysroot', 'tmp', 'root']) mkdirSync(`${tree}/${name}`);
  chmodSync(tree, 0o755);
  chmodSync(`${tree}/usr/bin/tool`, 0o755);
  symlinkSync('../usr/lib/os-release', `${tree}/etc/os-release`);
  symlinkSync('usr/bin', `${tree}/bin`);
  linkSync(`${tree}/usr/bin/other`, `${tree}/usr/bin/same`);
}

function putJson(directory: string, mediaType: string, value: unknown): Descriptor {
  const bytes = Buffer.from(JSON.stringify(value));
  const digest = digestOf(bytes);
  writeFileSync(`${directory}/blobs/${digest.replace(':', '/')}`, bytes);
  return { mediaType, digest, size: bytes.length };
}

function digestOf(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}
