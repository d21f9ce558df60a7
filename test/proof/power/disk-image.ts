/**
 * The bytes of one disk while crash states are tried on it: what is flushed grows with the recording, what a state adds
 * is laid over it, and the result is written to a file of which only the parts that hold something take room.
 */

import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import type { Event, Recording } from './recording.ts';
import type { Patch } from './states.ts';

const CHUNK = 65_536;

export class DiskImage {
  readonly #bytes: Buffer;
  readonly #device: number;
  readonly #events: readonly Event[];
  /** Chunks that may hold something. */
  readonly #used = new Set<number>();
  #flushed = 0;

  constructor(image: string, recording: Recording, device: number) {
    this.#bytes = readFileSync(image);
    this.#device = device;
    this.#events = recording.events;
    const zero = Buffer.alloc(CHUNK);
    for (let at = 0; at < this.#bytes.length; at += CHUNK) {
      const chunk = this.#bytes.subarray(at, at + CHUNK);
      if (!chunk.equals(zero.subarray(0, chunk.length))) this.#used.add(at / CHUNK);
    }
    for (const event of recording.before) this.#apply(event);
  }

  /** Takes over the writes among the first `count` events. Counts only grow. */
  advance(count: number): void {
    for (; this.#flushed < count; this.#flushed += 1) {
      const event = this.#events[this.#flushed];
      if (event) this.#apply(event);
    }
  }

  /** Runs `use` with the open writes of a state laid over the disk. */
  with<T>(patches: readonly Patch[], use: (bytes: Buffer) => T): T {
    // Saved before any is laid down: where patches overlap, each saved piece holds what was there first.
    const undo = patches.map(({ offset, data }) => ({
      offset,
      data: Buffer.from(this.#bytes.subarray(offset, offset + data.length)),
    }));
    try {
      for (const patch of patches) this.#write(patch);
      return use(this.#bytes);
    } finally {
      for (const patch of undo) this.#write(patch);
    }
  }

  /** Writes the disk, as it is now, to a file. */
  save(path: string): void {
    const fd = openSync(path, 'w');
    try {
      ftruncateSync(fd, this.#bytes.length);
      for (const chunk of this.#used)
        writeSync(fd, this.#bytes, chunk * CHUNK, Math.min(CHUNK, this.#bytes.length - chunk * CHUNK), chunk * CHUNK);
    } finally {
      closeSync(fd);
    }
  }

  #apply(event: Event): void {
    if (event.kind === 'write' && event.device === this.#device) this.#write(event);
  }

  #write({ offset, data }: Patch): void {
    data.copy(this.#bytes, offset);
    for (let chunk = Math.floor(offset / CHUNK); chunk * CHUNK < offset + data.length; chunk += 1)
      this.#used.add(chunk);
  }
}
