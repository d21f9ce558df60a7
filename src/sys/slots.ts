/**
 * A few buffers that one thread fills and another one empties, in turn. They are shared and stay where they are:
 * nothing is copied or allocated while data passes. Which one is full is told by message; the filling thread sleeps
 * until the next one is free, so that memory is bounded whoever is faster.
 */

import { HostctlError } from '../errors.ts';

const SLOT_BYTES = 512 << 10;
const SLOTS = 8;
const FREE = 0;
const FULL = 1;

/** Behind the states of the slots: what the emptying thread wants of the other, zero for more. */
const WISH = SLOTS;
const REFUSED = 1;
const STOP = 2;

/** Can be handed to another thread as it is. */
export interface SharedSlots {
  readonly bytes: SharedArrayBuffer;
  readonly states: Int32Array;
}

export function createSlots(): SharedSlots {
  return {
    bytes: new SharedArrayBuffer(SLOT_BYTES * SLOTS),
    states: new Int32Array(new SharedArrayBuffer(4 * (SLOTS + 1))),
  };
}

/** The thread that fills. */
export class SlotWriter {
  readonly #slots: SharedSlots;
  readonly #send: (slot: number, length: number) => void;
  #next = 0;

  /** @param send - tells the other thread */
  constructor(slots: SharedSlots, send: (slot: number, length: number) => void) {
    this.#slots = slots;
    this.#send = send;
  }

  /** The next buffer, once it is free. */
  buffer(): Uint8Array {
    const { states, bytes } = this.#slots;
    while (Atomics.load(states, this.#next) === FULL) Atomics.wait(states, this.#next, FULL);
    this.checkStop();
    if (Atomics.load(states, WISH) === REFUSED) throw new HostctlError('image-invalid', 'The content was refused');
    return new Uint8Array(bytes, this.#next * SLOT_BYTES, SLOT_BYTES);
  }

  /** Hands on bytes: those in the buffer that was given last, or copies of others. */
  write(chunk: Uint8Array): void {
    if (chunk.buffer === this.#slots.bytes) {
      this.#hand(chunk.length);
      return;
    }
    for (let at = 0; at < chunk.length; at += SLOT_BYTES) {
      const piece = chunk.subarray(at, at + SLOT_BYTES);
      this.buffer().set(piece);
      this.#hand(piece.length);
    }
  }

  /** Throws once the other thread has called `stop`. */
  checkStop(): void {
    if (Atomics.load(this.#slots.states, WISH) === STOP) throw new HostctlError('interrupted', 'Stopped');
  }

  #hand(length: number): void {
    const slot = this.#next;
    Atomics.store(this.#slots.states, slot, FULL);
    this.#next = (slot + 1) % SLOTS;
    this.#send(slot, length);
  }
}

/** The thread that empties. */
export class SlotReader {
  readonly #slots: SharedSlots;

  constructor(slots: SharedSlots) {
    this.#slots = slots;
  }

  /** Lends the content of a full slot to `body`; then the slot is free. */
  read(slot: number, length: number, body: (bytes: Uint8Array) => void): void {
    const { states, bytes } = this.#slots;
    try {
      body(new Uint8Array(bytes, slot * SLOT_BYTES, length));
    } finally {
      Atomics.store(states, slot, FREE);
      Atomics.notify(states, slot);
    }
  }

  /** Takes no more, because of what came: `write` throws 'image-invalid'. */
  refuse(): void {
    this.#end(REFUSED);
  }

  /** Takes no more: `write` throws 'interrupted'. */
  stop(): void {
    this.#end(STOP);
  }

  #end(wish: typeof REFUSED | typeof STOP): void {
    const { states } = this.#slots;
    Atomics.store(states, WISH, wish);
    for (let slot = 0; slot < SLOTS; slot++) {
      Atomics.store(states, slot, FREE);
      Atomics.notify(states, slot);
    }
  }
}
