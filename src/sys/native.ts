/**
 * A few Linux system calls that Node does not offer, through koffi. Every call takes fixed-size arguments; lengths from
 * outside never reach C. What can be done without koffi is in `syscalls.ts`, which callers use.
 */

import os from 'node:os';
import { loadLibrary, type CFunction } from './koffi.ts';
import { openLoopDevice, type LoopDevice } from './loop.ts';

/** A failed system call, shaped like Node's own errors. */
export class SyscallError extends Error {
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;

  constructor(syscall: string, errno: number, subject: string) {
    const code = ERRNO_NAMES.get(errno) ?? `E${errno}`;
    super(`${code}: ${syscall} '${subject}'`);
    this.name = 'SyscallError';
    this.code = code;
    this.errno = errno;
    this.syscall = syscall;
  }
}

const ERRNO_NAMES = new Map<number, string>(Object.entries(os.constants.errno).map(([name, value]) => [value, name]));

/** The system calls themselves; each throws `SyscallError`. Descriptors are open file descriptors of this process. */
export interface NativeCalls {
  /** `flock(2)`; false when the lock is held elsewhere and `wait` is false. */
  flock(fd: number, mode: 'shared' | 'exclusive' | 'unlock'): boolean;
  /** `syncfs(2)` on the file system of `fd`. */
  syncfs(fd: number): void;
  /** The same in a thread; what becomes of it is not told. */
  startSyncfs(fd: number, ended: () => void): void;
  /** Gives the unnamed file behind `fd` the name `path` (`linkat` of `/proc/self/fd`). EEXIST when it is taken. */
  linkFd(fd: number, path: string): void;
  /** `ioctl(2)` with a buffer; `argument` is changed in place. Returns what the call does. */
  ioctl(fd: number, request: number, argument: Uint8Array): number;
  /** All xattr names of `path`, not following a symlink; NUL-separated bytes. */
  llistxattr(path: Buffer): Uint8Array;
  lgetxattr(path: Buffer, name: Buffer): Uint8Array;
  lsetxattr(path: Buffer, name: Buffer, value: Uint8Array): void;
  lremovexattr(path: Buffer, name: Buffer): void;
  /** `utimensat(2)`: the modification time, to the nanosecond, not following a symlink. */
  setMtime(path: Buffer, sec: bigint, nsec: number): void;
  /** The mount API by descriptors; undefined where the C library (glibc 2.36) or the kernel (Linux 6.15) is older. */
  readonly mountApi: MountCalls | undefined;
}

/** Linux takes detached mounts as layers of an overlay since this release. */
const FIRST_KERNEL = [6, 15] as const;

/** `fsopen(2)` and its family, and what they mount from. Every descriptor returned is close-on-exec and the caller's. */
export interface MountCalls {
  fsopen(type: string): number;
  setString(fd: number, key: string, value: string): void;
  setFlag(fd: number, key: string): void;
  /** Gives a descriptor as the value of an option. */
  setFd(fd: number, key: string, value: number): void;
  create(fd: number): void;
  /** A mount that has no place yet. */
  fsmount(fd: number, readOnly: boolean): number;
  /** Gives a mount its place: the directory `targetFd` is of. */
  moveMount(mountFd: number, targetFd: number): void;
  /** A read-only loop device over an open file; it lasts as long as it is used. */
  openLoopDevice(fileFd: number): LoopDevice;
}

const LOCK_FLAGS = { shared: 1 | 4, exclusive: 2 | 4, unlock: 8 } as const;
const AT_FDCWD = -100;
const AT_SYMLINK_FOLLOW = 0x400;
const AT_SYMLINK_NOFOLLOW = 0x100;
/** As nanoseconds of a time: leave this one as it is. */
const UTIME_OMIT = 0x3ffffffen;
/** Largest xattr list and value the kernel hands out. */
const XATTR_SIZE_MAX = 65536;

/** linux/mount.h */
const FSOPEN_CLOEXEC = 1;
const FSMOUNT_CLOEXEC = 1;
const FSCONFIG_SET_FLAG = 0;
const FSCONFIG_SET_STRING = 1;
const FSCONFIG_SET_FD = 5;
const FSCONFIG_CMD_CREATE = 6;
const MOUNT_ATTR_RDONLY = 1;
/** Both descriptors stand for themselves: MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH. */
const MOVE_EMPTY_PATHS = 0x04 | 0x40;

/** Undefined without koffi or glibc: the slower ways in `syscalls.ts` take over. */
export function loadNative(): NativeCalls | undefined {
  const loaded = loadLibrary('libc.so.6');
  if (loaded === undefined) return undefined;
  const { koffi, library: libc } = loaded;
  const flock = libc.func('int flock(int fd, int operation)');
  const syncfs = libc.func('int syncfs(int fd)');
  const linkat = libc.func(
    'int linkat(int olddirfd, const char *oldpath, int newdirfd, const char *newpath, int flags)',
  );
  const ioctl = libc.func('int ioctl(int fd, unsigned long request, void *argument)');
  const llistxattr = libc.func('long llistxattr(void *path, void *list, size_t size)');
  const lgetxattr = libc.func('long lgetxattr(void *path, void *name, void *value, size_t size)');
  const lsetxattr = libc.func('int lsetxattr(void *path, void *name, void *value, size_t size, int flags)');
  const lremovexattr = libc.func('int lremovexattr(void *path, void *name)');

  const utimensat = libc.func('int utimensat(int dirfd, void *path, void *times, int flags)');

  const mountApi = loadMountCalls();

  const EAGAIN = os.constants.errno.EAGAIN;
  const EINTR = os.constants.errno.EINTR;

  function check(syscall: string, subject: string, call: () => number): number {
    for (;;) {
      const result = call();
      if (result >= 0) return result;
      const errno = koffi.errno();
      if (errno !== EINTR) throw new SyscallError(syscall, errno, subject);
    }
  }

  function checkedIoctl(fd: number, request: number, argument: Uint8Array): number {
    return check('ioctl', `fd ${fd}`, () => ioctl(fd, request, argument));
  }

  function loadMountCalls(): MountCalls | undefined {
    const [major = 0, minor = 0] = os.release().split('.').map(Number);
    if (major < FIRST_KERNEL[0] || (major === FIRST_KERNEL[0] && minor < FIRST_KERNEL[1])) return undefined;
    let calls: Record<'fsopen' | 'fsconfig' | 'fsmount' | 'moveMount', CFunction>;
    try {
      calls = {
        fsopen: libc.func('int fsopen(const char *type, unsigned int flags)'),
        fsconfig: libc.func('int fsconfig(int fd, unsigned int command, const char *key, const char *value, int aux)'),
        fsmount: libc.func('int fsmount(int fd, unsigned int flags, unsigned int attributes)'),
        moveMount: libc.func(
          'int move_mount(int from, const char *fromPath, int to, const char *toPath, unsigned int flags)',
        ),
      };
    } catch {
      // An older C library: mounts are made by mount(8).
      return undefined;
    }
    const { fsopen, fsconfig, fsmount, moveMount } = calls;
    const configure = (what: string, ...args: readonly unknown[]): void =>
      void check('fsconfig', what, () => fsconfig(...args));
    return {
      fsopen: (type) => check('fsopen', type, () => fsopen(type, FSOPEN_CLOEXEC)),
      setString: (fd, key, value) => configure(`${key}=${value}`, fd, FSCONFIG_SET_STRING, key, value, 0),
      setFlag: (fd, key) => configure(key, fd, FSCONFIG_SET_FLAG, key, null, 0),
      setFd: (fd, key, value) => configure(`${key} by descriptor`, fd, FSCONFIG_SET_FD, key, null, value),
      create: (fd) => configure('create', fd, FSCONFIG_CMD_CREATE, null, null, 0),
      fsmount: (fd, readOnly) =>
        check('fsmount', `fd ${fd}`, () => fsmount(fd, FSMOUNT_CLOEXEC, readOnly ? MOUNT_ATTR_RDONLY : 0)),
      moveMount: (mountFd, targetFd) =>
        void check('move_mount', `fd ${targetFd}`, () => moveMount(mountFd, '', targetFd, '', MOVE_EMPTY_PATHS)),
      openLoopDevice: (fileFd) => openLoopDevice(checkedIoctl, fileFd),
    };
  }

  return {
    mountApi,
    flock(fd, mode) {
      try {
        check('flock', `fd ${fd}`, () => flock(fd, LOCK_FLAGS[mode]));
        return true;
      } catch (error) {
        if (error instanceof SyscallError && error.errno === EAGAIN) return false;
        throw error;
      }
    },
    syncfs(fd) {
      check('syncfs', `fd ${fd}`, () => syncfs(fd));
    },
    startSyncfs(fd, ended) {
      syncfs.async(fd, ended);
    },
    linkFd(fd, path) {
      check('linkat', path, () => linkat(AT_FDCWD, `/proc/self/fd/${fd}`, AT_FDCWD, path, AT_SYMLINK_FOLLOW));
    },
    ioctl: checkedIoctl,
    llistxattr(path) {
      const buffer = Buffer.alloc(XATTR_SIZE_MAX);
      const length = check('llistxattr', path.toString(), () => llistxattr(cString(path), buffer, buffer.length));
      return buffer.subarray(0, length);
    },
    lgetxattr(path, name) {
      const buffer = Buffer.alloc(XATTR_SIZE_MAX);
      const length = check('lgetxattr', path.toString(), () =>
        lgetxattr(cString(path), cString(name), buffer, buffer.length),
      );
      return buffer.subarray(0, length);
    },
    lsetxattr(path, name, value) {
      check('lsetxattr', path.toString(), () => lsetxattr(cString(path), cString(name), value, value.length, 0));
    },
    lremovexattr(path, name) {
      check('lremovexattr', path.toString(), () => lremovexattr(cString(path), cString(name)));
    },
    setMtime(path, sec, nsec) {
      // Two struct timespec: access and modification.
      const times = new BigInt64Array([0n, UTIME_OMIT, sec, BigInt(nsec)]);
      check('utimensat', path.toString(), () => utimensat(AT_FDCWD, cString(path), times, AT_SYMLINK_NOFOLLOW));
    },
  };
}

function cString(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.of(0)]);
}
