/**
 * Deliberately broken builds of hostctl: each leaves out one step that the promise needs, at a named place of the
 * source. The proof must catch every one of them; a proof that passes a mutant is broken.
 */

import type { ConcurrencyOptions } from './concurrency.ts';
import type { FileSystem } from './lib/disks.ts';
import type { Patch } from './lib/tools.ts';

/** How a mutant is looked for. */
export type Hunt =
  /** Power cuts while and after this command runs; FAT is recorded in a guest. */
  | { readonly kind: 'power'; readonly command: string; readonly boot: FileSystem }
  /** Power cuts, and the command run again, on a root that can have files without their data: see `CARELESS_ROOT`. */
  | { readonly kind: 'power, then again'; readonly command: string }
  /** One fault at every call, or from every call on. */
  | { readonly kind: 'fault'; readonly command: string; readonly fault: string; readonly sticky?: boolean }
  /** Files of a host damaged, these of them. */
  | { readonly kind: 'damage'; readonly among: RegExp }
  /** Many commands at a time. */
  | { readonly kind: 'together'; readonly options: ConcurrencyOptions };

export interface Mutant {
  readonly name: string;
  readonly patches: readonly Patch[];
  readonly hunt: Hunt;
}

/** Not a mutant: hostctl as it is on a kernel without fs-verity, so that this kernel can read what a guest wrote. */
export const WITHOUT_VERITY: Patch = {
  file: 'sys/syscalls.ts',
  find: "return syscalls.measureVerity(fd).kind !== 'unsupported';",
  replace: 'return false;',
};

/** Not a mutant either: takes what is mounted at `/boot` for an ESP, whatever its file system and its partition are. */
export const BOOT_IS_ESP: Patch = {
  file: 'ops/install-to-filesystem.ts',
  find: '    luks: (block?.dmUuids',
  replace:
    "    ...(mount.mountPoint.endsWith('/boot') ? { type: 'vfat', partitionType: 'c12a7328-f81f-11d2-ba4b-00a0c93ec93b' } : {}),\n" +
    '    luks: (block?.dmUuids',
};

const FILE_FSYNC: Patch = {
  file: 'sys/files.ts',
  find: '    fs.fsyncSync(fd);\n    fs.closeSync(fd);\n  } catch',
  replace: '    fs.closeSync(fd);\n  } catch',
};

/** Leaves these of the names that are synced once a kernel's directory has its name. */
function kernelFsyncs(names: string): Patch {
  return {
    file: 'deploy/kernels.ts',
    find: '[...named.map(({ name }) => `${path}/${name}`), ...directories, parent]',
    replace: `[${names}]`,
  };
}

const COMMIT_FSYNCS: Patch = {
  file: 'deploy/publish-entry.ts',
  find: '  underItsName(boot, file, fsyncPath);\n  fsyncPath(`${boot.path}/${ENTRIES}`);\n  return bootBarrier(host, boot);',
  replace: '  return bootBarrier(host, boot);',
};

export const MUTANTS: readonly Mutant[] = [
  {
    name: 'no fsync of files on FAT',
    patches: [FILE_FSYNC, kernelFsyncs('...directories, parent')],
    hunt: { kind: 'power', command: 'deploy', boot: 'vfat' },
  },
  {
    name: 'no fsync of directories on FAT',
    patches: [kernelFsyncs('...named.map(({ name }) => `${path}/${name}`)')],
    hunt: { kind: 'power', command: 'deploy', boot: 'vfat' },
  },
  {
    name: 'mode of a new directory set again on FAT',
    patches: [{ file: 'sys/files.ts', find: 'if ((mode & process.umask()) !== 0) fs', replace: 'fs' }],
    hunt: { kind: 'power', command: 'install to-filesystem', boot: 'vfat' },
  },
  {
    name: 'no fsync after the commit on FAT',
    patches: [COMMIT_FSYNCS],
    hunt: { kind: 'power', command: 'deploy', boot: 'vfat' },
  },
  {
    name: 'syncfs instead of fsync on FAT',
    patches: [
      FILE_FSYNC,
      COMMIT_FSYNCS,
      {
        file: 'deploy/boot-partition.ts',
        find: '  if (boot.isFat) return true;\n  const fd = openDirectory(boot.path);',
        replace:
          '  const fd = openDirectory(boot.path);\n  if (boot.isFat) { host.syscalls.syncfs(fd, boot.path); closeSync(fd); return true; }',
      },
    ],
    hunt: { kind: 'power', command: 'deploy', boot: 'vfat' },
  },
  {
    name: 'rename over an existing entry on FAT',
    patches: [
      {
        file: 'deploy/publish-entry.ts',
        find: '  fs.renameSync(inert.temporaryPath, inert.finalPath);',
        replace:
          "  const names = listNames(`${boot.path}/${ENTRIES}`).filter((name) => name.endsWith('.conf')).sort();\n" +
          '  fs.renameSync(inert.temporaryPath, names.length > 0 ? `${boot.path}/${ENTRIES}/${names.at(-1)}` : inert.finalPath);\n' +
          '  if (names.length > 0) return bootBarrier(host, boot);',
      },
    ],
    hunt: { kind: 'power', command: 'deploy', boot: 'vfat' },
  },
  {
    // On ext4 `syncfs` alone writes the blocks in place too: only XFS shows what is missing.
    name: 'no freeze for the boot loader',
    patches: [
      {
        file: 'deploy/boot-partition.ts',
        find: '    if (!boot.isLoaderRead) return true;',
        replace: '    return true;',
      },
    ],
    hunt: { kind: 'power', command: 'deploy', boot: 'xfs' },
  },
  {
    name: 'entry before its kernel',
    patches: [
      {
        file: 'ops/publish.ts',
        find: '    writeKernel(sysroot.boot, kernel);\n    stopIfAborted(host);',
        replace: '    stopIfAborted(host);',
      },
      {
        file: 'ops/publish.ts',
        find: '    const settled = await commitEntry(host, sysroot.boot, inert);',
        replace:
          '    const settled = await commitEntry(host, sysroot.boot, inert);\n    writeKernel(sysroot.boot, kernel);',
      },
    ],
    hunt: { kind: 'fault', command: 'deploy', fault: 'kill' },
  },
  {
    name: 'old entries deleted before the barrier',
    patches: [
      {
        file: 'deploy/publish-entry.ts',
        find: '  fs.renameSync(inert.temporaryPath, inert.finalPath);',
        replace:
          '  for (const name of listNames(`${boot.path}/${ENTRIES}`)) {\n' +
          "    if (name.endsWith('.conf')) fs.unlinkSync(`${boot.path}/${ENTRIES}/${name}`);\n" +
          '  }\n' +
          '  fs.renameSync(inert.temporaryPath, inert.finalPath);',
      },
    ],
    hunt: { kind: 'power', command: 'deploy', boot: 'vfat' },
  },
  {
    name: 'entries gone before their names are',
    patches: [
      {
        file: 'deploy/publish-entry.ts',
        find: '  const isSettled = await bootBarrier(host, boot);\n  for (const file of files) {',
        replace:
          '  for (const file of files) fs.rmSync(`${directory}/${file}.tmp`);\n' +
          '  const isSettled = await bootBarrier(host, boot);\n  for (const file of files) {',
      },
    ],
    hunt: { kind: 'power', command: 'delete', boot: 'ext4' },
  },
  {
    name: 'image linked before its objects are durable',
    patches: [
      { file: 'store/images.ts', find: 'store.put(bytes);\n  store.barrier();\n', replace: 'store.put(bytes);\n' },
    ],
    hunt: { kind: 'power', command: 'image pull', boot: 'ext4' },
  },
  {
    name: 'state directory not synced',
    patches: [
      {
        file: 'deploy/state.ts',
        find: '    syncFileSystem(host, temporary);\n    fs.renameSync(temporary, `${sysroot.deployments}/${state.name}`);',
        replace: '    fs.renameSync(temporary, `${sysroot.deployments}/${state.name}`);',
      },
    ],
    hunt: { kind: 'power', command: 'deploy', boot: 'ext4' },
  },
  {
    name: 'dirty marker ignored',
    patches: [
      {
        file: 'store/markers.ts',
        find: '    .filter((path) => isFree(syscalls, path));',
        replace: '    .filter((path) => isFree(syscalls, path) && false);',
      },
    ],
    hunt: { kind: 'power, then again', command: 'image pull' },
  },
  {
    name: 'gc leaves state directories',
    patches: [{ file: 'ops/gc-plan.ts', find: "      ...garbage.states.map(state('state')),\n", replace: '' }],
    hunt: { kind: 'fault', command: 'deploy', fault: 'kill' },
  },
  {
    name: 'installation without its marks',
    patches: [{ file: 'ops/install-onto.ts', find: '      markInstallation(options);\n', replace: '' }],
    hunt: { kind: 'fault', command: 'install to-filesystem', fault: 'kill' },
  },
  {
    name: 'kernel of an installation taken away before its entry',
    patches: [
      {
        file: 'ops/install-onto.ts',
        find: 'for (const path of entriesIn(boot)) fs.rmSync(',
        replace: 'for (const path of [] as string[]) fs.rmSync(',
      },
    ],
    hunt: { kind: 'fault', command: 'install to-filesystem, cut off before', fault: 'ENOSPC', sticky: true },
  },
  {
    name: 'local changes of /etc not carried over',
    patches: [
      {
        file: 'ops/carry-etc.ts',
        find: '  if (plan.live !== undefined) applyEtcMerge',
        replace: '  if (false) applyEtcMerge',
      },
    ],
    hunt: { kind: 'fault', command: 'deploy', fault: 'kill' },
  },
  {
    name: 'state of a killed deployment in the way of a unified kernel',
    patches: [
      {
        file: 'ops/unified-kernel.ts',
        find: 'const mayBeLeft = there',
        replace: 'const mayBeLeft = false && there',
      },
    ],
    hunt: { kind: 'fault', command: 'deploy of a unified kernel', fault: 'kill' },
  },
  {
    name: 'add-ons of a unified kernel forgotten',
    patches: [
      {
        file: 'deploy/kernels.ts',
        find: '    ...files.addons.map(({ name, content }) => ({ name: `${ADDONS}/${name}`, content })),\n',
        replace: '',
      },
    ],
    hunt: { kind: 'fault', command: 'deploy of a unified kernel', fault: 'kill' },
  },
  {
    name: 'fetched blobs trusted by their names',
    patches: [
      {
        file: 'store/blob-cache.ts',
        find: '      if (hasher.digest() === digest) return true;',
        replace: '      return true;',
      },
    ],
    hunt: { kind: 'power, then again', command: 'deploy from a registry' },
  },
  {
    name: 'reboot that a signal calls off',
    patches: [
      {
        file: 'ops/reboot.ts',
        find: '  host.exec.runSync(',
        replace: '  host.signal.throwIfAborted();\n  host.exec.runSync(',
      },
    ],
    hunt: { kind: 'fault', command: 'count-boot', fault: 'term' },
  },
  {
    name: 'short write ignored',
    patches: [
      {
        file: 'sys/files.ts',
        find: '  while (done < bytes.length) {',
        replace: '  if (done < bytes.length) {',
      },
    ],
    hunt: { kind: 'fault', command: 'deploy', fault: 'short' },
  },
  {
    name: 'half a write of the environment block refused',
    patches: [
      {
        file: 'sys/files.ts',
        find: '    writeAll(fd, bytes, 0);\n',
        replace:
          "    if (fs.writeSync(fd, bytes, 0, bytes.length, 0) !== bytes.length) throw new HostctlError('io', 'Half');\n",
      },
    ],
    hunt: { kind: 'fault', command: 'deploy with GRUB', fault: 'short' },
  },
  {
    name: 'what GRUB was told not taken back',
    patches: [
      {
        file: 'deploy/publish-entry.ts',
        find: '    return await bootBarrier(host, boot);\n  } catch (error) {\n    takeBack();\n',
        replace: '    return await bootBarrier(host, boot);\n  } catch (error) {\n',
      },
    ],
    hunt: { kind: 'fault', command: 'mark-good with GRUB', fault: 'EIO' },
  },
  {
    name: 'staged /etc away while it is merged',
    patches: [
      {
        file: 'deploy/state.ts',
        find: '  adjustEtc(etc);\n  syncFileSystem(host, directory);',
        replace:
          '  fs.renameSync(etc, `${etc}.tmp`);\n  adjustEtc(`${etc}.tmp`);\n  fs.renameSync(`${etc}.tmp`, etc);\n  syncFileSystem(host, directory);',
      },
      {
        file: 'deploy/deployments.ts',
        find: 'staged === undefined && !isDirectory(`${directory}/etc`)',
        replace: '!isDirectory(`${directory}/etc`)',
      },
    ],
    hunt: { kind: 'fault', command: 'finalize-staged', fault: 'kill' },
  },
  {
    name: 'gc forgets what is deployed',
    patches: [
      {
        file: 'ops/gc-plan.ts',
        find: '  for (const deployment of kept) {',
        replace: '  for (const deployment of [] as typeof kept) {',
      },
      {
        file: 'ops/gc-plan.ts',
        find: "owner.kind !== 'name' && !ids.has(owner.id)",
        replace: "owner.kind !== 'name'",
      },
    ],
    hunt: { kind: 'fault', command: 'gc', fault: 'kill' },
  },
  {
    name: 'objects not read by fsck',
    patches: [
      {
        file: 'store/check-object.ts',
        find: 'if (deep && digestOfFile(fd, place.algorithm, sizeBytes) !== digest)',
        replace: 'if (deep && digestOfFile(fd, place.algorithm, sizeBytes) === undefined)',
      },
    ],
    hunt: { kind: 'damage', among: /^composefs\/objects\// },
  },
  {
    name: 'records of layers not read by fsck',
    patches: [{ file: 'store/layer-records.ts', find: '!isAsWritten(', replace: 'false && !isAsWritten(' }],
    hunt: { kind: 'damage', among: /^composefs\/hostctl\/layers\// },
  },
  {
    name: 'checksums of entries and records not compared',
    patches: [
      {
        file: 'ops/fsck-text.ts',
        find: '(hasChecksum(text) && isMisplaced !== true)',
        replace: '(hasChecksum(text) || isMisplaced !== true)',
      },
    ],
    hunt: { kind: 'damage', among: /^boot\/loader\/entries\// },
  },
  {
    name: 'no lock',
    patches: [
      {
        file: 'sys/lock.ts',
        find: '  while (!syscalls.tryLock(fd, mode)) {',
        replace: '  while (!syscalls.tryLock(fd, mode) && false) {',
      },
    ],
    hunt: { kind: 'together', options: { workers: 8, seconds: 120, seed: 1 } },
  },
];

export function mutantNamed(name: string): Mutant {
  const mutant = MUTANTS.find((one) => one.name === name);
  if (!mutant) throw new Error(`There is no mutant "${name}"`);
  return mutant;
}
