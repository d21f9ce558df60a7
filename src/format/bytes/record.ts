/**
 * Record tables: one table gives a fixed-size binary record its types, size, offsets, encoder, decoder and text form.
 * Fields stand in disk order without gaps, all integers are little-endian, and reserved bytes are written as zero and
 * not seen by callers.
 */

import { HostctlError } from '../../errors.ts';

/** How one field is stored. `T` is `undefined` for reserved bytes. */
export interface Field<T> {
  /** Bytes. */
  readonly size: number;
  get(view: DataView, offset: number): T;
  set(view: DataView, offset: number, value: T): void;
  /** For people: annotated dumps. */
  show(view: DataView, offset: number): string;
}

type Fields = Readonly<Record<string, { readonly size: number; get(view: DataView, offset: number): unknown }>>;
type ValueOf<F> = F extends { get(view: DataView, offset: number): infer T } ? T : never;
type StoredKeys<F extends Fields> = { [K in keyof F]: ValueOf<F[K]> extends undefined ? never : K }[keyof F];

/** The values of a record: every field but the reserved ones. */
export type RecordValues<F extends Fields> = { readonly [K in StoredKeys<F>]: ValueOf<F[K]> };

/** One field of a record found in a file; `offset` counts from the start of the record. */
export interface FieldText {
  readonly name: string;
  readonly offset: number;
  readonly size: number;
  readonly text: string;
}

export interface RecordType<V> {
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** Offset of each field from the start of the record, reserved fields included. */
  readonly offsets: Readonly<Record<string, number>>;
  /** Writes the whole record. The caller has made the room. */
  encode(view: DataView, offset: number, values: V): void;
  /** Throws `format-invalid` naming record and offset when the bytes end too early. */
  decode(view: DataView, offset: number): V;
  /** One entry per field in disk order. Throws like `decode`. */
  describe(view: DataView, offset: number): FieldText[];
}

/** The values type of a record made by `record()`. */
export type Decoded<R> = R extends RecordType<infer V> ? V : never;

/** Makes a record type from its fields in disk order. */
export function record<F extends Fields>(name: string, fields: F): RecordType<RecordValues<F>> {
  const layout = Object.entries(fields).map(([key, field]) => ({ key, offset: 0, field: field as Field<unknown> }));
  let size = 0;
  for (const slot of layout) {
    slot.offset = size;
    size += slot.field.size;
  }
  const check = (view: DataView, offset: number): void => {
    if (offset < 0 || offset + size > view.byteLength) {
      throw new HostctlError(
        'format-invalid',
        `Cannot read ${name} at offset ${offset}: it takes ${size} bytes and the data ends at ${view.byteLength}`,
      );
    }
  };
  return {
    name,
    size,
    offsets: Object.fromEntries(layout.map((slot) => [slot.key, slot.offset])),
    encode(view, offset, values) {
      const source = values as Readonly<Record<string, unknown>>;
      for (const slot of layout) slot.field.set(view, offset + slot.offset, source[slot.key]);
    },
    decode(view, offset) {
      check(view, offset);
      const values: Record<string, unknown> = {};
      for (const slot of layout) values[slot.key] = slot.field.get(view, offset + slot.offset);
      return values as RecordValues<F>;
    },
    describe(view, offset) {
      check(view, offset);
      return layout.map(({ key, offset: at, field }) => ({
        name: key,
        offset: at,
        size: field.size,
        text: field.show(view, offset + at),
      }));
    },
  };
}

export const u8: Field<number> = {
  size: 1,
  get: (view, offset) => view.getUint8(offset),
  set: (view, offset, value) => view.setUint8(offset, value),
  show: (view, offset) => view.getUint8(offset).toString(),
};

export const u16: Field<number> = {
  size: 2,
  get: (view, offset) => view.getUint16(offset, true),
  set: (view, offset, value) => view.setUint16(offset, value, true),
  show: (view, offset) => view.getUint16(offset, true).toString(),
};

export const u32: Field<number> = {
  size: 4,
  get: (view, offset) => view.getUint32(offset, true),
  set: (view, offset, value) => view.setUint32(offset, value, true),
  show: (view, offset) => view.getUint32(offset, true).toString(),
};

export const u64: Field<bigint> = {
  size: 8,
  get: (view, offset) => view.getBigUint64(offset, true),
  set: (view, offset, value) => view.setBigUint64(offset, value, true),
  show: (view, offset) => view.getBigUint64(offset, true).toString(),
};

export const i64: Field<bigint> = {
  size: 8,
  get: (view, offset) => view.getBigInt64(offset, true),
  set: (view, offset, value) => view.setBigInt64(offset, value, true),
  show: (view, offset) => view.getBigInt64(offset, true).toString(),
};

/** The same field, shown in hexadecimal. */
export function asHex<T extends number | bigint>(field: Field<T>): Field<T> {
  return { ...field, show: (view, offset) => `0x${field.get(view, offset).toString(16)}` };
}

/** The same field, shown in octal. */
export function asOctal(field: Field<number>): Field<number> {
  return { ...field, show: (view, offset) => `0${field.get(view, offset).toString(8)}` };
}

/** `size` bytes. A shorter value is zero-padded on writing; a longer one is a programming error. */
export function fixedBytes(size: number): Field<Uint8Array> {
  const slice = (view: DataView, offset: number): Uint8Array =>
    new Uint8Array(view.buffer, view.byteOffset + offset, size);
  return {
    size,
    get: (view, offset) => slice(view, offset).slice(),
    set(view, offset, value) {
      if (value.length > size) throw new HostctlError('internal', `Cannot store ${value.length} bytes in ${size}`);
      const target = slice(view, offset);
      target.fill(0);
      target.set(value);
    },
    show: (view, offset) => Buffer.from(slice(view, offset)).toString('hex'),
  };
}

/** `size` reserved bytes: written as zero, ignored on reading, shown when they are not zero. */
export function zero(size: number): Field<undefined> {
  return {
    size,
    get: () => undefined,
    set(view, offset) {
      let at = offset;
      for (; at + 4 <= offset + size; at += 4) view.setUint32(at, 0);
      for (; at < offset + size; at++) view.setUint8(at, 0);
    },
    show(view, offset) {
      const bytes = Buffer.from(view.buffer, view.byteOffset + offset, size);
      return bytes.some((byte) => byte !== 0) ? `reserved, but ${bytes.toString('hex')}` : '0';
    },
  };
}

/** A view of exactly these bytes. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
