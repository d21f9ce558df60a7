/** A file system that the kernel has mounted at a directory. Nothing outside that directory is ever opened. */

import { closeSync, constants, fstatSync, lstatSync, openSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { Damage, type Files, join, type Kind } from './files.ts';

export function mountedFiles(mountPoint: string): Files {
  // Names are bytes, kept as latin1 text.
  const at = (path: string): Buffer => Buffer.from(`${mountPoint}/${join(path)}`, 'latin1');
  return {
    kind: (path) =>
      orAbsent(path, (): Kind => {
        const stat = lstatSync(at(path));
        if (stat.isFile()) return 'file';
        if (stat.isDirectory()) return 'directory';
        return stat.isSymbolicLink() ? 'symlink' : 'other';
      }),
    read: (path) =>
      orAbsent(path, () => {
        const fd = openSync(at(path), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
        try {
          return fstatSync(fd).isFile() ? readFileSync(fd) : undefined;
        } finally {
          closeSync(fd);
        }
      }),
    list: (path) => orAbsent(path, () => readdirSync(at(path), 'latin1')),
    readlink: (path) => orAbsent(path, () => readlinkSync(at(path), 'latin1')),
  };
}

const ABSENT = new Set(['ENOENT', 'ENOTDIR', 'ELOOP', 'EINVAL']);

function orAbsent<T>(path: string, action: () => T): T | undefined {
  try {
    return action();
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : '?';
    if (ABSENT.has(code)) return undefined;
    throw new Damage(`${path}: ${code}`, { cause: error });
  }
}
