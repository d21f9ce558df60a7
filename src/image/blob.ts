/**
 * Files of an OCI layout. The layout comes from outside, so a file is opened without following into devices or pipes
 * and never read beyond what its descriptor says.
 */

import * as fs from 'node:fs';
import { errnoOf, HostctlError } from '../errors.ts';
import { checkContent, type Descriptor } from '../format/oci/descriptor.ts';

const { O_RDONLY, O_NONBLOCK } = fs.constants;

/** Opens a blob of exactly `size` bytes; the caller closes the descriptor. */
export function openBlob(file: string, size: number): number {
  const { fd, size: found } = openRegular(file);
  if (found === size) return fd;
  fs.closeSync(fd);
  throw new HostctlError('size-mismatch', `Blob "${file}" has ${found} bytes instead of ${size}`);
}

/** Reads the document a descriptor names, at most `maxBytes` long, and checks size and digest. */
export function readBlob(file: string, descriptor: Descriptor, what: string, maxBytes: number): Uint8Array {
  if (descriptor.size > maxBytes) {
    throw new HostctlError('image-unsupported', `${what} has ${descriptor.size} bytes, at most ${maxBytes} are read`);
  }
  const bytes = readBounded(file, descriptor.size);
  checkContent(bytes, descriptor, `${what} "${file}"`);
  return bytes;
}

/** Reads a file of the layout, of which more than `maxBytes` are an error. */
export function readLayoutFile(file: string, maxBytes: number): Uint8Array {
  const bytes = readBounded(file, maxBytes);
  if (bytes.length > maxBytes) {
    throw new HostctlError('image-unsupported', `File "${file}" has more than ${maxBytes} bytes`);
  }
  return bytes;
}

/** The file's content, cut behind `maxBytes` + 1. */
function readBounded(file: string, maxBytes: number): Uint8Array {
  const { fd, size } = openRegular(file);
  try {
    const buffer = Buffer.alloc(Math.min(size, maxBytes) + 1);
    let length = 0;
    for (let read = -1; read !== 0 && length < buffer.length; length += read) {
      read = fs.readSync(fd, buffer, length, buffer.length - length, null);
    }
    return buffer.subarray(0, length);
  } finally {
    fs.closeSync(fd);
  }
}

function openRegular(file: string): { fd: number; size: number } {
  let fd: number;
  try {
    fd = fs.openSync(file, O_RDONLY | O_NONBLOCK);
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT' || errnoOf(cause) === 'ENOTDIR') {
      throw new HostctlError('image-not-found', `Image has no file "${file}"`, { cause });
    }
    throw new HostctlError('io', `Cannot open "${file}"`, { cause });
  }
  const stat = fs.fstatSync(fd);
  if (stat.isFile()) return { fd, size: stat.size };
  fs.closeSync(fd);
  throw new HostctlError('image-invalid', `"${file}" is not a regular file`);
}
