/**
 * System calls beyond Node's own, each done in process through koffi where it is there and otherwise by the small
 * program that Debian ships for it. Both ways keep the same promise; only linking an unnamed file and xattrs have no
 * program that does them safely, and say so.
 */

import { closeSync, lstatSync, lutimesSync, openSync } from 'node:fs';
import os from 'node:os';
import { errnoOf, HostctlError } from '../errors.ts';
import type { Timestamp, VerityAlgorithm } from '../tree/node.ts';
import type { Exec } from './exec.ts';
import { loadNative, SyscallError, type MountCalls, type NativeCalls } from './native.ts';

export type LockMode = 'shared' | 'exclusive';

/** What the kernel says about fs-verity on a file. */
export type VerityState =
  | { readonly kind: 'enabled'; readonly algorithm: VerityAlgorithm; readonly digestHex: string }
  | { readonly kind: 'disabled' }
  | { readonly kind: 'unsupported' };

export interface Syscalls {
  /** Whether unnamed files can be given a name (`linkFd`). */
  readonly canLinkUnnamed: boolean;
  /** Takes the lock without waiting; false when someone else holds it. Dropped when `fd` is closed. */
  tryLock(fd: number, mode: LockMode): boolean;
  unlock(fd: number): void;
  /** Commits and flushes the whole file system of `fd` (for `path`). Throws when the kernel reports a write error. */
  syncfs(fd: number, path: string): void;
  /**
   * Begins the same and does not wait for it; does nothing where that cannot be. It promises nothing, `syncfs` does.
   * @param ended - called in any case, later or at once
   */
  startSyncfs(fd: number, ended: () => void): void;
  linkFd(fd: number, path: string): void;
  /** Turns on fs-verity (4096-byte blocks, no salt). `fd` is read-only and nobody has the file open for writing. */
  enableVerity(fd: number, algorithm: VerityAlgorithm): void;
  /** The digest the kernel holds for `fd`. */
  measureVerity(fd: number): VerityState;
  /** Blocks and unblocks writes, so that the journal is written back. False where the file system cannot. */
  freezeThaw(fd: number): boolean;
  listXattrs(path: string | Buffer): Map<string, Uint8Array>;
  setXattr(path: string | Buffer, name: string, value: Uint8Array): void;
  removeXattr(path: string | Buffer, name: string): void;
  /** The mount API by descriptors; undefined where it is not to be had. */
  readonly mountApi: MountCalls | undefined;
  /** Sets the modification time to the nanosecond, not following a symlink. */
  setMtime(path: string | Buffer, mtime: Timestamp): void;
}

const FS_IOC_ENABLE_VERITY = 0x40806685;
const FS_IOC_MEASURE_VERITY = 0xc0046686;
const FIFREEZE = 0xc0045877;
const FITHAW = 0xc0045878;
const HASH_IDS = { sha256: 1, sha512: 2 } as const;
const DIGEST_MAX_BYTES = 64;

/** Errors by which a file system says that it has no fs-verity. */
const NO_VERITY = new Set(['ENOTTY', 'EOPNOTSUPP', 'ENOTSUP', 'ENOSYS']);

/** @param native - null takes the way by programs */
export function openSyscalls(exec: Exec, native: NativeCalls | null = loadNative() ?? null): Syscalls {
  return native === null ? viaPrograms(exec) : viaNative(native);
}

function viaNative(native: NativeCalls): Syscalls {
  return {
    canLinkUnnamed: true,
    mountApi: native.mountApi,
    tryLock: (fd, mode) => native.flock(fd, mode),
    unlock: (fd) => void native.flock(fd, 'unlock'),
    syncfs: (fd) => native.syncfs(fd),
    startSyncfs: (fd, ended) => native.startSyncfs(fd, ended),
    linkFd: (fd, path) => native.linkFd(fd, path),
    enableVerity(fd, algorithm) {
      // struct fsverity_enable_arg: version, hash_algorithm, block_size, then no salt, no signature, reserved.
      const argument = Buffer.alloc(128);
      argument.writeUInt32LE(1, 0);
      argument.writeUInt32LE(HASH_IDS[algorithm], 4);
      argument.writeUInt32LE(4096, 8);
      native.ioctl(fd, FS_IOC_ENABLE_VERITY, argument);
    },
    measureVerity(fd) {
      // struct fsverity_digest: digest_algorithm, digest_size (in: room, out: length), digest.
      const argument = Buffer.alloc(4 + DIGEST_MAX_BYTES);
      argument.writeUInt16LE(DIGEST_MAX_BYTES, 2);
      try {
        native.ioctl(fd, FS_IOC_MEASURE_VERITY, argument);
      } catch (error) {
        const code = errnoOf(error) ?? '';
        if (code === 'ENODATA') return { kind: 'disabled' };
        if (NO_VERITY.has(code)) return { kind: 'unsupported' };
        throw error;
      }
      const id = argument.readUInt16LE(0);
      const digestHex = argument.subarray(4, 4 + argument.readUInt16LE(2)).toString('hex');
      if (id === HASH_IDS.sha256) return { kind: 'enabled', algorithm: 'sha256', digestHex };
      if (id === HASH_IDS.sha512) return { kind: 'enabled', algorithm: 'sha512', digestHex };
      throw new HostctlError('verity-unsupported', `The kernel measured with the unknown hash algorithm ${id}`);
    },
    freezeThaw(fd) {
      const nothing = Buffer.alloc(8);
      try {
        native.ioctl(fd, FIFREEZE, nothing);
      } catch (error) {
        if (['EOPNOTSUPP', 'ENOTTY', 'EBUSY', 'EPERM', 'EINVAL'].includes(errnoOf(error) ?? '')) return false;
        throw error;
      }
      native.ioctl(fd, FITHAW, nothing);
      return true;
    },
    listXattrs(path) {
      const bytes = pathBytes(path);
      const names = Buffer.from(native.llistxattr(bytes)).toString('latin1').split('\0').filter(Boolean);
      return new Map(names.map((name) => [name, native.lgetxattr(bytes, Buffer.from(name, 'latin1'))]));
    },
    setXattr: (path, name, value) => native.lsetxattr(pathBytes(path), Buffer.from(name, 'latin1'), value),
    removeXattr: (path, name) => native.lremovexattr(pathBytes(path), Buffer.from(name, 'latin1')),
    setMtime: (path, { sec, nsec }) => native.setMtime(pathBytes(path), sec, nsec),
  };
}

/** Without koffi: util-linux, coreutils and fsverity, which hostctl's package depends on. */
function viaPrograms(exec: Exec): Syscalls {
  return {
    canLinkUnnamed: false,
    mountApi: undefined,
    tryLock: (fd, mode) => {
      // flock(1) locks the open file description it inherits, which stays ours after it has ended.
      const flag = mode === 'shared' ? '--shared' : '--exclusive';
      return exec.runSync('flock', ['--nonblock', flag, '3'], { passFd: fd, allowed: [0, 1] }).exitCode === 0;
    },
    unlock: (fd) => void exec.runSync('flock', ['--unlock', '3'], { passFd: fd }),
    syncfs: (_fd, path) => void exec.runSync('sync', ['--file-system', path]),
    startSyncfs: (_fd, ended) => ended(),
    linkFd: () => {
      throw new HostctlError('internal', 'Linking an unnamed file needs koffi');
    },
    enableVerity(fd, algorithm) {
      const path = `/proc/${process.pid}/fd/${fd}`;
      const result = exec.runSync('fsverity', ['enable', `--hash-alg=${algorithm}`, path], { allowed: [0, 1] });
      if (result.exitCode !== 0) throw new SyscallError('fsverity enable', errnoFromText(result.stderr), path);
    },
    measureVerity(fd) {
      const path = `/proc/${process.pid}/fd/${fd}`;
      const { exitCode, stdout, stderr } = exec.runSync('fsverity', ['measure', path], { allowed: [0, 1] });
      if (exitCode !== 0) return /no data/i.test(stderr) ? { kind: 'disabled' } : { kind: 'unsupported' };
      const found = /^(sha256|sha512):([0-9a-f]+)\s/.exec(stdout);
      if (found?.[1] === undefined || found[2] === undefined) {
        throw new HostctlError('command-failed', `Cannot read the output of "fsverity measure": "${stdout.trim()}"`);
      }
      return { kind: 'enabled', algorithm: found[1] as VerityAlgorithm, digestHex: found[2] };
    },
    freezeThaw: () => false,
    listXattrs: needsKoffi,
    setXattr: needsKoffi,
    removeXattr: needsKoffi,
    setMtime(path, { sec, nsec }) {
      // Node takes a floating-point number of seconds: right to the microsecond.
      const { atimeMs } = lstatSync(path);
      lutimesSync(path, atimeMs / 1000, Number(sec) + nsec / 1e9);
    },
  };
}

function needsKoffi(): never {
  throw new HostctlError('tool-missing', 'Cannot handle extended attributes and device nodes without koffi', {
    hint: 'Install the optional dependency: npm install koffi',
  });
}

function errnoFromText(text: string): number {
  if (/text file busy/i.test(text)) return os.constants.errno.ETXTBSY;
  if (/file exists/i.test(text)) return os.constants.errno.EEXIST;
  if (/inappropriate ioctl/i.test(text)) return os.constants.errno.ENOTTY;
  if (/not supported/i.test(text)) return os.constants.errno.EOPNOTSUPP;
  return os.constants.errno.EIO;
}

function pathBytes(path: string | Buffer): Buffer {
  return typeof path === 'string' ? Buffer.from(path) : path;
}

/** Whether the file system of `directory` can do fs-verity here. Writes nothing. */
export function probeVerity(syscalls: Syscalls, directory: string): boolean {
  const fd = openSync(directory, 'r');
  try {
    // A directory never has verity; the answer tells whether the ioctl is known to the file system.
    return syscalls.measureVerity(fd).kind !== 'unsupported';
  } finally {
    closeSync(fd);
  }
}
