/**
 * What makes an image one that cannot be deployed, or that makes trouble later: each rule with a code and a remedy.
 * Judged over the flattened tree alone. Pure.
 */

import { isHostctlError } from '../errors.ts';
import { isQuadletName } from '../format/quadlet.ts';
import { UKI_DIRECTORY, type BootFiles } from '../image/boot-files.ts';
import { lookup } from '../tree/lookup.ts';
import { displayRaw, type RawName } from '../tree/name.ts';
import { contentSize, inodeOf, type DirectoryNode } from '../tree/node.ts';
import { walkTree } from '../tree/walk.ts';
import { imageKargs, smallText, type ContentOf } from './boot-facts.ts';
import { boundReferences } from './bound-images.ts';
import { imageBootConfig } from './image-config.ts';

export interface LintFinding {
  readonly code: string;
  /** Fatal: `deploy` refuses it, since the host could not boot. */
  readonly severity: 'fatal' | 'warning';
  readonly message: string;
  readonly remedy: string;
}

/** What stands in the initramfs: names that were found, or why it could not be read. */
export type InitramfsLook = { readonly names: ReadonlySet<string> } | { readonly unreadable: string };

export interface LintInput {
  readonly tree: DirectoryNode;
  /** Looks for what it boots, which may lie in a `/boot` that the tree has no more. Throws as `findBootFiles`. */
  readonly bootFiles: () => BootFiles;
  readonly contentOf: ContentOf;
  /** Go's name of it. */
  readonly architecture: string;
  readonly labels: ReadonlyMap<string, string>;
  /** Undefined where the image has no initramfs to look into. */
  readonly initramfs: InitramfsLook | undefined;
}

/** Programs and units of the boot hooks that mount what hostctl deploys: its own, and that of bootc. */
const HOOKS = [
  /^usr\/lib\/systemd\/system\/(hostctl-root|bootc-root-setup)\.service$/,
  /^usr\/lib\/hostctl\/hostctl-root$/,
];
const FIRST_KERNEL = [6, 6] as const;
const ROOT_DIRECTORIES = ['boot', 'dev', 'etc', 'proc', 'run', 'sys', 'sysroot', 'tmp', 'usr', 'var'];
const MAX_NAMED = 5;

/** Whether a name in the initramfs is one that the rules ask for. */
export function isHookName(name: string): boolean {
  return HOOKS.some((form) => form.test(name));
}

/** Files whose content the rules ask for. */
export function isLintedFile(path: string): boolean {
  return (
    /^(etc\/(fstab|machine-id|hostname)$|usr\/lib\/hostctl\/|usr\/lib\/bootc\/kargs\.d\/)/.test(path) ||
    isQuadletName(path)
  );
}

/** All findings, fatal ones first. */
export function lintTree(input: LintInput): LintFinding[] {
  const findings = RULES.flatMap((rule) => rule(input));
  return [
    ...findings.filter(({ severity }) => severity === 'fatal'),
    ...findings.filter(({ severity }) => severity !== 'fatal'),
  ];
}

type Rule = (input: LintInput) => readonly LintFinding[];

const RULES: readonly Rule[] = [
  kernelRule,
  kernelAgeRule,
  initramfsRule,
  directoriesRule,
  ({ tree, contentOf }) =>
    thrown('boot-config', 'Correct the file in the image', () => imageBootConfig(tree, contentOf)),
  ({ tree, contentOf, architecture }) =>
    thrown('kargs', 'Correct the file in the image', () => imageKargs(tree, contentOf, architecture)),
  ({ tree, contentOf }) =>
    thrown('bound-images', 'Correct the files that bound-images.d leads to', () => boundReferences(tree, contentOf)),
  labelRule,
  updaterRule,
  fstabRule,
  usrEtcRule,
  varRule,
  varRunRule,
  mountPointRule,
  machineIdRule,
  hostKeyRule,
  nameRule,
];

function fatal(code: string, message: string, remedy: string): LintFinding {
  return { code, severity: 'fatal', message, remedy };
}

function warning(code: string, message: string, remedy: string): LintFinding {
  return { code, severity: 'warning', message, remedy };
}

/** What a part of `deploy` refuses, as a finding. */
function thrown(code: string, remedy: string, check: () => unknown): LintFinding[] {
  try {
    check();
    return [];
  } catch (error) {
    if (!isHostctlError(error)) throw error;
    return [fatal(code, error.message, error.hint ?? remedy)];
  }
}

function kernelRule({ bootFiles }: LintInput): LintFinding[] {
  const remedy = 'Install one kernel with its initramfs into /usr/lib/modules/VERSION/{vmlinuz,initramfs.img}';
  return thrown('kernel', remedy, bootFiles);
}

function kernelVersion({ bootFiles }: LintInput): string | undefined {
  try {
    return bootFiles().kernelVersion;
  } catch (error) {
    if (isHostctlError(error)) return undefined;
    throw error;
  }
}

function kernelAgeRule(input: LintInput): LintFinding[] {
  const version = kernelVersion(input);
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(version ?? '') ?? [];
  if (version === undefined || major === undefined) return [];
  const [firstMajor, firstMinor] = FIRST_KERNEL;
  if (Number(major) > firstMajor || (Number(major) === firstMajor && Number(minor) >= firstMinor)) return [];
  return [
    fatal(
      'kernel-too-old',
      `Kernel ${version} cannot mount a verified root: overlayfs checks digests since Linux ${FIRST_KERNEL.join('.')}`,
      `Install a kernel of ${FIRST_KERNEL.join('.')} or later`,
    ),
  ];
}

function initramfsRule({ initramfs }: LintInput): LintFinding[] {
  if (initramfs === undefined) return [];
  const remedy = 'Build the initramfs in the image with dracut and its module "hostctl": dracut --force --no-hostonly';
  if ('unreadable' in initramfs) {
    return [
      warning('initramfs-unreadable', `Whether it has the boot hook is not known: ${initramfs.unreadable}`, remedy),
    ];
  }
  if (initramfs.names.size > 0) return [];
  return [fatal('boot-hook', 'The initramfs has no boot hook that mounts a deployment', remedy)];
}

function directoriesRule({ tree }: LintInput): LintFinding[] {
  const missing = ROOT_DIRECTORIES.filter((name) => lookup(tree, `/${name}`)?.kind !== 'directory');
  if (missing.length === 0) return [];
  return [
    fatal(
      'directories',
      `The root lacks ${missing.map((name) => `/${name}`).join(', ')}, where something is mounted at boot`,
      'Make them empty directories: the root cannot be written later',
    ),
  ];
}

function labelRule({ labels }: LintInput): LintFinding[] {
  if (labels.get('containers.bootc') === '1' || labels.get('ostree.bootable') === '1') return [];
  return [warning('label', 'No label says that it is meant to be booted', 'Set the label containers.bootc=1')];
}

function updaterRule({ tree }: LintInput): LintFinding[] {
  const missing = ['hostctl', 'node'].filter(
    (name) => lookupIn(tree, ['/usr/bin', '/usr/local/bin'], name) === undefined,
  );
  if (missing.length === 0) return [];
  return [
    warning(
      'no-updater',
      `There is no ${missing.join(' and no ')} inside: the host cannot upgrade itself once it runs this image`,
      'Install the hostctl package, and Node 20 or later, in the image',
    ),
  ];
}

function lookupIn(tree: DirectoryNode, directories: readonly string[], name: string): unknown {
  return directories.map((directory) => lookup(tree, `${directory}/${name}`)).find((node) => node !== undefined);
}

function fstabRule({ tree, contentOf }: LintInput): LintFinding[] {
  const text = smallText(lookup(tree, '/etc/fstab'), contentOf) ?? '';
  const lines = text.split('\n').filter((line) => /^\s*[^#\s]\S*\s+\/\s/.test(line));
  if (lines.length === 0) return [];
  return [
    warning(
      'fstab-root',
      `/etc/fstab has a line for "/": at boot it would be applied to the verified root and fail`,
      'Remove the line: hostctl finds and mounts the root',
    ),
  ];
}

function usrEtcRule({ tree }: LintInput): LintFinding[] {
  if (lookup(tree, '/usr/etc')?.kind !== 'directory' || lookup(tree, '/etc')?.kind !== 'directory') return [];
  return [warning('usr-etc', 'It has both /etc and /usr/etc; only /etc is used', 'Move what is meant into /etc')];
}

function varRule({ tree }: LintInput): LintFinding[] {
  // A link is as good in ten years: `/var/run` is one, and so is what leads back to something of the image's.
  const files = below(tree, '/var', ({ kind }) => kind !== 'directory' && kind !== 'symlink');
  if (files.length === 0) return [];
  return [
    warning(
      'var-content',
      `${files.length} files lie in /var (${shown(files)}): they reach a host with its first deployment and never again`,
      'Ship them in /usr, and make what /var needs by tmpfiles.d or StateDirectory=',
    ),
  ];
}

function varRunRule({ tree }: LintInput): LintFinding[] {
  const node = lookup(tree, '/var/run');
  if (node === undefined || node.kind === 'symlink') return [];
  return [warning('var-run', `/var/run is a ${node.kind}`, 'Make it a symlink to /run')];
}

/** What is mounted over, or emptied by `deploy`. */
function mountPointRule({ tree }: LintInput): LintFinding[] {
  return ['/dev', '/proc', '/sys', '/tmp', '/run', '/boot', '/sysroot'].flatMap((path) => {
    const files = below(tree, path, (node) => node.kind !== 'file' || contentSize(node.content) > 0).filter(
      (file) => !isOfUnified(file),
    );
    if (files.length === 0) return [];
    return [
      warning(
        'mount-point-content',
        `${files.length} entries lie in ${path} (${shown(files)}), which is not seen on a running host`,
        'Remove what the build left there',
      ),
    ];
  });
}

/** A unified kernel image has its place in `/boot`, from where it is deployed. */
function isOfUnified(path: string): boolean {
  return `/${UKI_DIRECTORY}/`.startsWith(`${path}/`) || path.startsWith(`/${UKI_DIRECTORY}/`);
}

function machineIdRule({ tree, contentOf }: LintInput): LintFinding[] {
  const text = smallText(lookup(tree, '/etc/machine-id'), contentOf)?.trim() ?? '';
  if (text === '' || text === 'uninitialized') return [];
  return [
    warning('machine-id', 'All hosts would have the same /etc/machine-id', 'Empty the file, or write "uninitialized"'),
  ];
}

function hostKeyRule({ tree }: LintInput): LintFinding[] {
  const keys = below(tree, '/etc/ssh', () => true).filter((path) => /\/ssh_host_[^/]*_key$/.test(path));
  if (keys.length === 0) return [];
  return [
    warning(
      'ssh-host-key',
      `It brings private host keys (${shown(keys)}) that everybody can read`,
      'Remove them; sshd makes new ones',
    ),
  ];
}

function nameRule({ tree }: LintInput): LintFinding[] {
  const odd: string[] = [];
  for (const { path } of walkTree(tree)) if (!isUtf8(path)) odd.push(displayRaw(path));
  if (odd.length === 0) return [];
  return [warning('name-encoding', `${odd.length} names are not UTF-8 (${shown(odd)})`, 'Rename them')];
}

function isUtf8(name: RawName): boolean {
  const bytes = Buffer.from(name, 'latin1');
  return Buffer.from(bytes.toString('utf8'), 'utf8').equals(bytes);
}

/** Paths below a directory of the entries that pass. */
function below(tree: DirectoryNode, path: string, isMeant: (node: ReturnType<typeof inodeOf>) => boolean): string[] {
  const directory = lookup(tree, path);
  if (directory?.kind !== 'directory') return [];
  const found: string[] = [];
  for (const { path: at, entry } of walkTree(directory, path as RawName)) {
    if (at !== path && isMeant(inodeOf(entry))) found.push(displayRaw(at));
  }
  return found;
}

function shown(paths: readonly string[]): string {
  const rest = paths.length - MAX_NAMED;
  return [...paths.slice(0, MAX_NAMED), ...(rest > 0 ? [`${rest} more`] : [])].join(', ');
}
