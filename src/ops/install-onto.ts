/**
 * The part that every installation shares: the first deployment and a boot loader onto file systems that are mounted.
 * Places of ours must be free; what a failed installation made there is taken away again, by itself or, where it was
 * cut off, by the next.
 */

import * as fs from 'node:fs';
import { ENTRIES } from '../deploy/boot-entries.ts';
import { GRUB } from '../deploy/grub.ts';
import { efiName, loaderFiles, SHIPPED_LOADERS } from '../deploy/loader-files.ts';
import { materializeTree, repositoryContent } from '../deploy/materialize.ts';
import { directoryIn } from '../deploy/state.ts';
import { checkUserKarg } from '../deploy/change-kargs.ts';
import { openSysroot, withSysrootLock } from '../deploy/sysroot.ts';
import { setDirectoryAttributes } from '../deploy/write-inode.ts';
import { HostctlError } from '../errors.ts';
import type { ImageSource } from '../image/source.ts';
import { findKargs } from '../format/cmdline.ts';
import { withDirectory } from '../sys/beneath.ts';
import type { DiskPartition } from '../sys/block-facts.ts';
import {
  createFile,
  deviceOf,
  exists,
  freeSpace,
  fsyncPath,
  listNames,
  makeDirectories,
  openDirectory,
  split,
  temporaryName,
} from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { lookupDirectory, resolve } from '../tree/lookup.ts';
import { rawFromText } from '../tree/name.ts';
import { contentSize, type DirectoryNode, type FileNode, type VerityAlgorithm } from '../tree/node.ts';
import type { ContentOf } from './boot-facts.ts';
import { deployLocked, type DeployResult } from './deploy.ts';
import { imageBootConfig } from './image-config.ts';
import { GRUB_FILES, installGrub } from './install-grub.ts';
import {
  isInstallationCutOff,
  isMark,
  isMarked,
  isOnlyLock,
  markInstallation,
  unmarkInstallation,
} from './install-marks.ts';
import { afterCommit } from './publish.ts';
import { requireRoot } from './require-root.ts';
import { withUndo, type Undo } from './undo.ts';

export interface InstallOptions {
  readonly image: string;
  readonly kargs: readonly string[];
  readonly algorithm: VerityAlgorithm | undefined;
  readonly allowMissingVerity: boolean;
  /** Path of a file of public keys. */
  readonly authorizedKeys: string | undefined;
}

/** Where it goes; every path is absolute and without symlinks. */
export interface InstallPlaces {
  readonly root: string;
  /** Entries and kernels. */
  readonly boot: string;
  /** The boot loader of a machine with EFI; may be the same as `boot`. */
  readonly esp: string | undefined;
  /** A file system of its own for `/var`. */
  readonly var: string | undefined;
  /** The file system that `boot` lies on. */
  readonly bootFileSystem: { readonly uuid: string | undefined; readonly type: string };
  /** Where a loader for a BIOS goes. */
  readonly biosBoot: DiskPartition | undefined;
  /** By which the places are found at boot. */
  readonly foundKargs: readonly string[];
  /** Why systemd-boot cannot start this; undefined when it can. */
  readonly systemdBootProblem: HostctlError | undefined;
}

export interface PreparedInstall {
  /** Systemd's name of the architecture in EFI programs. */
  readonly efi: string;
  readonly keys: string | undefined;
}

/** What the loader's directories and small files take beside the programs. */
const LOADER_SPARE_BYTES = 65536;

/** Whatever can be known to be wrong without looking at the target. */
export function prepareInstall(host: Host, options: InstallOptions): PreparedInstall {
  requireRoot(host, 'install');
  const efi = efiName(host.architecture);
  if (efi === undefined) {
    throw new HostctlError(
      'host-unsupported',
      `Cannot install on ${host.architecture}: no boot loader is known for it`,
    );
  }
  options.kargs.forEach(checkUserKarg);
  return { efi, keys: options.authorizedKeys === undefined ? undefined : readKeys(options.authorizedKeys) };
}

function readKeys(path: string): string {
  const text = fs.readFileSync(path, 'utf8');
  const lines = text.split('\n').filter((line) => line.trim() !== '' && !line.startsWith('#'));
  if (lines.length > 0 && lines.every((line) => /\b(ssh-|ecdsa-|sk-)/.test(line))) return `${lines.join('\n')}\n`;
  throw new HostctlError('usage', `"${path}" is not a file of SSH public keys`);
}

/** Installs; leaves the file systems as they were when it fails. */
export function installOnto(
  host: Host,
  { efi, keys }: PreparedInstall,
  source: ImageSource,
  options: InstallOptions & InstallPlaces,
): Promise<DeployResult> {
  const { root, boot } = options;
  checkFree(options, efi);
  const isContinued = isInstallationCutOff(options);
  const sysroot = openSysroot(host, { sysroot: root, boot });
  const isForGrub = (tree: DirectoryNode): boolean => chooseLoader(tree, options, efi).kind === 'grub';
  return withUndo(host.log, (undo) => {
    const takeBackAll = (): void => {
      // Last of all: where taking back is cut off too, the next installation removes the rest.
      undo.add('remove the marks of the installation', () => unmarkInstallation(options));
      for (const path of [`${root}/composefs`, `${root}/state`, ...bootDirectories(options)]) {
        if (exists(path) && path !== `${root}/state`) continue;
        undo.add(`remove "${path}" again`, () => fs.rmSync(path, { recursive: true, force: true }));
      }
      // Before their kernels, also where the directory was there already.
      undo.add('remove the boot entries again', () => {
        for (const path of entriesIn(boot)) fs.rmSync(path, { recursive: true });
      });
    };
    if (!isContinued) takeBackAll();
    return withSysrootLock(host, sysroot, async () => {
      if (isContinued) {
        // Another one may have come to its end before we had the lock.
        checkFree(options, efi);
        host.log.warn(`Removing what an installation that was cut off left in "${root}"`);
        removeCutOff(options, efi);
        takeBackAll();
      }
      markInstallation(options);
      // The boot hook wants it there, also below the one that will be mounted over it.
      if (options.var !== undefined) makeDirectories(root, 'state/os/default/var');
      const result = await deployLocked(
        host,
        sysroot,
        source,
        {
          kargs: options.kargs,
          kargsFor: (tree) => [...(isForGrub(tree) ? bootKargs(options) : []), ...options.foundKargs],
          isForGrub,
          algorithm: options.algorithm,
          // Nothing to fall back to: without a counter a failed boot stops with its reason on the console.
          tries: 0,
          allowMissingVerity: options.allowMissingVerity,
          action: 'install',
          mode: 'publish',
        },
        (tree, repository, etc) => {
          const contentOf = repositoryContent(repository);
          if (keys !== undefined) installKeys(etc, keys, tree, contentOf);
          if (options.var !== undefined) fillVar(host, options.var, tree, contentOf, undo);
          installLoader(host, undo, options, efi, tree, contentOf);
        },
      );
      afterCommit(host, 'remove the marks of the installation', () => unmarkInstallation(options));
      return result;
    });
  });
}

/** Directories that an installation may make on the boot partitions, outer ones last. */
function bootDirectories({ boot, esp }: InstallPlaces): string[] {
  const ofBoot = ['hostctl', 'loader/entries', 'loader', GRUB].map((name) => `${boot}/${name}`);
  const ofEsp = ['loader', 'EFI/systemd', 'EFI/BOOT', 'EFI'].map((name) => `${esp}/${name}`);
  return [...ofBoot, ...(esp === undefined ? [] : ofEsp)];
}

/** Nothing of anybody's is replaced or built upon, but for what an installation that was cut off made. */
function checkFree(places: InstallPlaces, efi: string): void {
  const isContinued = isInstallationCutOff(places);
  const first = takenPaths(places, efi).find(({ place }) => !isContinued || !isMarked(place));
  if (first === undefined) return;
  throw new HostctlError('host-unsupported', `"${first.path}" exists already; nothing was changed`, {
    hint: 'An installation needs file systems of its own: for a machine that has a deployment use "hostctl deploy"',
  });
}

/** The caller holds the lock, whose directory stays. */
function removeCutOff(places: InstallPlaces, efi: string): void {
  for (const { place, path } of takenPaths(places, efi)) {
    if (!isMarked(place)) continue;
    if (path !== `${places.root}/state`) fs.rmSync(path, { recursive: true });
    else for (const name of listNames(path)) if (name !== 'hostctl') fs.rmSync(`${path}/${name}`, { recursive: true });
    fsyncPath(split(path).directory);
  }
}

/** Paths of our boot entries, whole and inert. */
function entriesIn(boot: string): string[] {
  const names = listNames(`${boot}/${ENTRIES}`).filter((name) => name.startsWith('hostctl-'));
  return names.map((name) => `${boot}/${ENTRIES}/${name}`);
}

/** What exists of what an installation makes, each with the file system it lies on. */
function takenPaths({ root, boot, esp, var: ownVar }: InstallPlaces, efi: string): { place: string; path: string }[] {
  const at = (place: string | undefined, names: readonly string[]): { place: string; path: string }[] =>
    place === undefined
      ? []
      : names.map((name) => ({ place, path: `${place}/${name}` })).filter(({ path }) => exists(path));
  const inVar = ownVar === undefined ? [] : listNames(ownVar).filter((name) => name !== 'lost+found' && !isMark(name));
  return [
    ...at(root, ['composefs', ...(isOnlyLock(root) ? [] : ['state'])]),
    ...at(boot, ['hostctl', ...GRUB_FILES]),
    ...entriesIn(boot).map((path) => ({ place: boot, path })),
    ...at(esp, ['loader/loader.conf', ...loaderFiles(efi).map(([directory, name]) => `${directory}/${name}`)]),
    ...(ownVar === undefined ? [] : at(ownVar, inVar)),
  ];
}

/** The loader that the image ships; systemd-boot where it has both and that can start what is installed. */
function chooseLoader(
  tree: DirectoryNode,
  { systemdBootProblem }: InstallPlaces,
  efi: string,
): { readonly kind: 'systemd-boot'; readonly file: FileNode } | { readonly kind: 'grub' } {
  const shipped = `${SHIPPED_LOADERS}/systemd-boot${efi}.efi`;
  // As bootctl does: where the firmware verifies, it starts no other.
  const files = [`${shipped}.signed`, shipped].map((path) => resolve(tree, rawFromText(path)));
  const file = files.find((node) => node?.kind === 'file');
  if (file?.kind === 'file' && systemdBootProblem === undefined) return { kind: 'systemd-boot', file };
  if (lookupDirectory(tree, 'usr/lib/grub') !== undefined) return { kind: 'grub' };
  if (file?.kind === 'file' && systemdBootProblem !== undefined) throw systemdBootProblem;
  throw new HostctlError('image-not-bootable', 'The image has neither systemd-boot nor GRUB', {
    hint: 'Install systemd-boot-efi (systemd-boot on Fedora), or the modules of GRUB, in the image',
  });
}

/** systemd finds the boot partition by itself only where the loader tells it the disk, which GRUB does not. */
function bootKargs({ root, boot, bootFileSystem: { uuid, type }, kargs }: InstallPlaces & InstallOptions): string[] {
  const isOwn = boot !== `${root}/boot` || deviceOf(boot) !== deviceOf(root);
  const isSaid = findKargs(kargs, 'systemd.mount-extra').some((value) => value?.split(':')[1] === '/boot');
  if (!isOwn || isSaid || uuid === undefined) return [];
  return [`systemd.mount-extra=UUID=${uuid}:/boot:${type}${type === 'vfat' ? ':umask=0077' : ''}`];
}

function installLoader(
  host: Host,
  undo: Undo,
  places: InstallPlaces,
  efi: string,
  tree: DirectoryNode,
  contentOf: ContentOf,
): void {
  const loader = chooseLoader(tree, places, efi);
  const { boot, esp } = places;
  if (loader.kind === 'grub') installGrub(host, undo, places, `BOOT${efi.toUpperCase()}.EFI`, tree, contentOf);
  else if (esp !== undefined) installSystemdBoot(undo, { boot, esp }, efi, loader.file, contentOf);
}

/** At its own place and at the one firmware looks at without being told. */
function installSystemdBoot(
  undo: Undo,
  { boot, esp }: { readonly boot: string; readonly esp: string },
  efi: string,
  file: FileNode,
  contentOf: ContentOf,
): void {
  checkLoaderSpace(esp, file);
  const create = (base: string, directory: string, name: string, content: string | Iterable<Uint8Array>): void => {
    const path = `${makeDirectories(base, directory)}/${name}`;
    undo.add(`remove "${path}" again`, () => fs.rmSync(path, { force: true }));
    createFile(path, content, 0o644);
    fsyncPath(`${base}/${directory}`);
  };
  for (const [directory, name] of loaderFiles(efi)) create(esp, directory, name, contentOf(file));
  create(esp, 'loader', 'loader.conf', 'timeout 3\n');
  if (!exists(`${boot}/loader/entries.srel`)) create(boot, 'loader', 'entries.srel', 'type1\n');
}

function checkLoaderSpace(esp: string, { content }: FileNode): void {
  const { freeBytes } = freeSpace(esp);
  const needed = 2 * contentSize(content) + LOADER_SPARE_BYTES;
  if (needed <= freeBytes) return;
  throw new HostctlError('boot-full', `"${esp}" needs ${needed} bytes for the boot loader but has ${freeBytes}`, {
    hint: 'Enlarge the ESP; nothing was changed',
  });
}

/** Keys in /etc, since the image's /root is read-only; sshd is told to look there too. */
function installKeys(etc: string, keys: string, tree: DirectoryNode, contentOf: ContentOf): void {
  if (imageBootConfig(tree, contentOf).etc === 'transient') {
    throw new HostctlError('usage', 'The image forgets /etc at each boot: it cannot keep keys for root', {
      hint: 'Put the keys into the image, and leave --root-ssh-authorized-keys out',
    });
  }
  const keysDirectory = makeDirectories(etc, 'ssh/authorized_keys.d');
  createFile(`${keysDirectory}/root`, keys, 0o600);
  const configDirectory = makeDirectories(etc, 'ssh/sshd_config.d');
  const text = 'AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/authorized_keys.d/%u\n';
  createFile(`${configDirectory}/50-hostctl.conf`, text, 0o644);
}

/** The image's /var onto a file system of its own: written beside, then moved up name by name. */
function fillVar(host: Host, target: string, tree: DirectoryNode, contentOf: ContentOf, undo: Undo): void {
  const before = new Set(listNames(target));
  undo.add(`empty "${target}" again`, () => {
    for (const name of listNames(target)) if (!before.has(name)) fs.rmSync(`${target}/${name}`, { recursive: true });
  });
  const image = directoryIn(tree, 'var');
  const temporary = `${target}/${temporaryName('var')}`;
  materializeTree(host, image, temporary, contentOf);
  for (const name of fs.readdirSync(temporary, { encoding: 'buffer' })) {
    fs.renameSync(join(temporary, name), join(target, name));
  }
  fs.rmdirSync(temporary);
  withDirectory(target, (fd) => setDirectoryAttributes(host, fd, image));
  const fd = openDirectory(target);
  try {
    host.syscalls.syncfs(fd, target);
  } finally {
    fs.closeSync(fd);
  }
}

/** Names of an image are bytes. */
function join(directory: string, name: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from(`${directory}/`), name]);
}
