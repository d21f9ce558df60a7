/**
 * Looks into an initramfs without unpacking it: plain cpio archives (microcode for early loading) and then one that is
 * usually compressed. Only names are of interest; memory is bounded whatever the size.
 */

import { HostctlError } from '../errors.ts';
import { CpioNames } from '../format/cpio.ts';
import type { StartFilter } from './zstd-decoder.ts';

/** What the kernel can unpack, by the bytes that it begins with, and the program that does the same. */
const COMPRESSIONS: readonly (readonly [magic: readonly number[], program: string])[] = [
  [[0x1f, 0x8b], 'gzip'],
  [[0x28, 0xb5, 0x2f, 0xfd], 'zstd'],
  [[0xfd, 0x37, 0x7a, 0x58, 0x5a], 'xz'],
  [[0x02, 0x21, 0x4c, 0x18], 'lz4'],
  [[0x42, 0x5a, 0x68], 'bzip2'],
];

/**
 * Which of its names pass `isWanted`. Throws 'format-invalid' for what is no initramfs that hostctl can read, and
 * 'tool-missing' without the program that decompresses it.
 */
export async function findInInitramfs(
  chunks: Iterable<Uint8Array>,
  isWanted: (name: string) => boolean,
  startFilter: StartFilter,
): Promise<ReadonlySet<string>> {
  const names = new CpioNames(isWanted);
  const iterator = chunks[Symbol.iterator]();
  try {
    for (let next = iterator.next(); next.done !== true; next = iterator.next()) {
      const rest = names.push(next.value);
      if (rest === undefined) continue;
      const inside = await findInCompressed(rest, iterator, isWanted, startFilter);
      return new Set([...names.found, ...inside]);
    }
  } finally {
    // What is read from may hold a file open until its end.
    iterator.return?.();
  }
  if (names.isOpen || !names.hasEntries) throw unreadable('it ends within a cpio archive');
  return names.found;
}

async function findInCompressed(
  first: Uint8Array,
  rest: Iterator<Uint8Array>,
  isWanted: (name: string) => boolean,
  startFilter: StartFilter,
): Promise<ReadonlySet<string>> {
  const [, program] = COMPRESSIONS.find(([magic]) => magic.every((byte, at) => first[at] === byte)) ?? [];
  if (program === undefined) throw unreadable('it is neither cpio nor compressed in a known way');
  const names = new CpioNames(isWanted);
  const filter = startFilter(program, ['-dcq']);
  const { stdin, stdout, ended } = filter;
  let failure: unknown;
  let isPast = false;
  stdin.on('error', () => undefined);
  ended.catch(() => undefined);
  const drained = new Promise<void>((resolve) => stdout.once('close', resolve));
  stdout.on('data', (chunk: Uint8Array) => {
    if (isPast || failure !== undefined) return;
    try {
      // Behind its trailer nothing is of interest.
      isPast = names.push(chunk) !== undefined;
    } catch (error) {
      failure = error;
      filter.kill();
    }
  });
  let isOpen = true;
  for (let chunk = first; isOpen;) {
    // The chunk may be lent for this step only.
    const error = await new Promise<Error | null | undefined>((resolve) =>
      stdin.write(Uint8Array.from(chunk), resolve),
    );
    if (error) break;
    const next = rest.next();
    isOpen = next.done !== true;
    if (next.done !== true) chunk = next.value;
  }
  stdin.end();
  await ended;
  await drained;
  if (failure instanceof Error) throw failure;
  // Programs complain about zeros behind the compressed data, which the kernel skips: what counts is a whole archive.
  if (names.isOpen || !names.hasEntries) throw unreadable(`${program} gives no whole cpio archive`);
  return names.found;
}

function unreadable(why: string): HostctlError {
  return new HostctlError('format-invalid', `The initramfs cannot be read: ${why}`);
}
