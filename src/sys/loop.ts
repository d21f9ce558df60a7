/**
 * Loop devices over open files. A device is of the descriptor itself, whatever its name leads to by now, and frees
 * itself when its last user is gone, also when this process is killed. Structures: linux/loop.h (Linux 5.8).
 */

import { closeSync, openSync } from 'node:fs';
import { errnoOf, HostctlError } from '../errors.ts';

type Ioctl = (fd: number, request: number, argument: Uint8Array) => number;

export interface LoopDevice {
  readonly path: string;
  /** Keeps the device until something else uses it. */
  readonly fd: number;
}

const LOOP_CTL_GET_FREE = 0x4c82;
const LOOP_CONFIGURE = 0x4c0a;
const LO_FLAGS_READ_ONLY = 1;
const LO_FLAGS_AUTOCLEAR = 4;
/** struct loop_config: fd, block_size, then struct loop_info64 with lo_flags at 52, then reserved. */
const CONFIG_BYTES = 304;
const FLAGS_OFFSET = 8 + 52;
const MAX_TRIES = 64;

/** A read-only loop device over the file of `fileFd`. The caller closes its descriptor. */
export function openLoopDevice(ioctl: Ioctl, fileFd: number): LoopDevice {
  const control = openSync('/dev/loop-control', 'r+');
  try {
    for (let attempt = 0; attempt < MAX_TRIES; attempt++) {
      const path = `/dev/loop${ioctl(control, LOOP_CTL_GET_FREE, Buffer.alloc(8))}`;
      const fd = openSync(path, 'r');
      try {
        const config = Buffer.alloc(CONFIG_BYTES);
        config.writeUInt32LE(fileFd, 0);
        config.writeUInt32LE(LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR, FLAGS_OFFSET);
        ioctl(fd, LOOP_CONFIGURE, config);
        return { path, fd };
      } catch (error) {
        closeSync(fd);
        // Someone else took it between the two calls.
        if (errnoOf(error) !== 'EBUSY') throw error;
      }
    }
  } finally {
    closeSync(control);
  }
  throw new HostctlError('host-unsupported', `Found no free loop device in ${MAX_TRIES} tries`);
}
