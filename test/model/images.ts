/**
 * The images of the model: as small as they can be and still be deployed, in everything that could upset an order or a
 * merge as odd as images get. What their `/etc` holds is known as plain data, without reading it back.
 */

import type { Plain } from '../helpers/etc-model.ts';
import { ociLayout } from '../helpers/oci-builder.ts';
import { tar, tarDir, tarFile, tarSymlink } from '../helpers/tar-builder.ts';

export interface ModelImage {
  readonly name: string;
  /** Of its OCI layout. */
  readonly directory: string;
  readonly reference: string;
  readonly manifestDigest: string;
  readonly etc: Plain;
  readonly kernelBytes: Buffer;
  readonly initrdBytes: Buffer;
  /** Contents that are too large to lie in the image itself. */
  readonly objects: readonly Buffer[];
}

interface ImageSpec {
  readonly os: string;
  readonly version: string;
  readonly kernel: string;
  readonly kargs: readonly string[];
  /** By path below `/etc`; a value that begins with `->` is a symlink's target, `/` a directory. */
  readonly etc: Readonly<Record<string, string>>;
}

const LARGE = 'A default that is too large to be kept inline, so that it becomes an object of the store. ';

const INLINE_LIMIT = 64;

/** Later ones are not newer: versions go up and down, and so do names of systems. */
const SPECS: readonly ImageSpec[] = [
  {
    os: 'example',
    version: '1',
    kernel: 'a',
    kargs: ['quiet'],
    etc: { conf: 'one\n', d: '/', 'd/a': 'a', 'd/b': LARGE },
  },
  { os: 'example', version: '10', kernel: 'a', kargs: [], etc: { conf: 'ten\n', d: '/', 'd/a': 'a', extra: LARGE } },
  {
    os: 'example',
    version: '2~rc1',
    kernel: 'b',
    kargs: ['x=1'],
    etc: { conf: 'one\n', d: 'no directory now', extra: '->conf' },
  },
  { os: 'zzz', version: '99999999.9-1^git', kernel: 'c', kargs: [], etc: { conf: '->d/a', d: '/', 'd/a': 'other' } },
  { os: 'aaa', version: '0', kernel: 'b', kargs: ['quiet', 'x=2'], etc: { d: '/', 'd/b': 'short', 'd/c': '/' } },
];

export function modelImages(directory: string): ModelImage[] {
  return SPECS.map((spec, index) => buildImage(`${directory}/${index}`, spec));
}

function buildImage(directory: string, spec: ImageSpec): ModelImage {
  const kernelBytes = Buffer.alloc(300, `kernel ${spec.kernel}`);
  const initrdBytes = Buffer.alloc(200, `initrd ${spec.kernel}`);
  const modules = `usr/lib/modules/${spec.kernel}`;
  const top = [
    'boot',
    'dev',
    'etc',
    'proc',
    'run',
    'sys',
    'sysroot',
    'tmp',
    'usr',
    'var',
    'usr/lib',
    'usr/lib/modules',
  ];
  const osRelease = `ID=${spec.os}\nPRETTY_NAME="${spec.os} ${spec.version}"\nVERSION_ID=${spec.version}\n`;
  const kargs = `kargs = ${JSON.stringify(spec.kargs)}\n`;
  const bytes = tar([
    ...[...top, modules, 'usr/lib/bootc', 'usr/lib/bootc/kargs.d'].map((name) => tarDir(name)),
    tarFile('usr/lib/os-release', osRelease),
    tarFile('usr/lib/bootc/kargs.d/10.toml', kargs),
    tarFile(`${modules}/vmlinuz`, kernelBytes),
    tarFile(`${modules}/initramfs.img`, initrdBytes),
    ...Object.entries(spec.etc).map(([path, value]) => etcEntry(`etc/${path}`, value)),
  ]);
  const { manifestDigest } = ociLayout(directory, {
    layers: [{ tar: bytes, compression: 'none' }],
    labels: { 'containers.bootc': '1', 'org.opencontainers.image.version': spec.version },
  });
  const large = [osRelease, kargs, ...Object.values(spec.etc)].filter((value) => value.length > INLINE_LIMIT);
  return {
    name: `${spec.os} ${spec.version}`,
    directory,
    reference: `oci:${directory}`,
    manifestDigest,
    etc: plainEtc(spec.etc),
    kernelBytes,
    initrdBytes,
    objects: [kernelBytes, initrdBytes, ...large.map((value) => Buffer.from(value))],
  };
}

function etcEntry(path: string, value: string): Buffer {
  if (value === '/') return tarDir(path);
  return value.startsWith('->') ? tarSymlink(path, value.slice(2)) : tarFile(path, value);
}

/** Parents stand before what is in them. */
function plainEtc(etc: ImageSpec['etc']): Plain {
  const root: Record<string, Plain> = {};
  const directories = new Map([['', root]]);
  for (const [path, value] of Object.entries(etc)) {
    const slash = path.lastIndexOf('/');
    const parent = directories.get(path.slice(0, Math.max(slash, 0)));
    if (parent === undefined) throw new Error(`"${path}" has no parent`);
    const children: Record<string, Plain> = {};
    if (value === '/') directories.set(path, children);
    parent[path.slice(slash + 1)] = plainNode(value, children);
  }
  return { dir: root, mode: 0o755, xattrs: '' };
}

function plainNode(value: string, children: Record<string, Plain>): Plain {
  if (value === '/') return { dir: children, mode: 0o755, xattrs: '' };
  if (value.startsWith('->')) return { leaf: `symlink ${value.slice(2)}`, mode: 0, xattrs: '' };
  return { leaf: `file ${value}`, mode: 0o644, xattrs: '' };
}
