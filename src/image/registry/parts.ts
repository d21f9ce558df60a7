/** Parts of a blob from a registry, in few requests: what lies between near ones comes along and is dropped. */

import { HostctlError } from '../../errors.ts';
import type { Descriptor } from '../../format/oci/descriptor.ts';
import type { BlobPart } from '../../format/zstd/chunked.ts';
import { HttpBroken, type HttpAnswer } from '../../sys/http.ts';
import { refuseEncoding } from './body.ts';
import { backOff, RETRIES, type RegistryClient } from './client.ts';

/** Less than this takes no longer than another request. */
const FIRST_GAP_BYTES = 4 << 10;
const MAX_REQUESTS = 256;
/** A server that gives a byte for each request is as good as none. */
const MAX_TRIES = 100;

/** The fewest requests that bring all of `parts`, which ascend: a few hundred at most, however many parts there are. */
export function mergeParts(parts: readonly BlobPart[]): BlobPart[] {
  for (let gap = FIRST_GAP_BYTES; ; gap *= 2) {
    const merged: { start: number; end: number }[] = [];
    for (const { start, end } of parts) {
      const last = merged.at(-1);
      if (last !== undefined && start - last.end <= gap) last.end = Math.max(last.end, end);
      else merged.push({ start, end });
    }
    if (merged.length <= MAX_REQUESTS) return merged;
  }
}

/**
 * Fetches parts that ascend and do not overlap, and hands on their bytes in this order, not checked against anything.
 * Throws 'registry' where the server does not answer with exactly the ranges that are asked for.
 */
export async function fetchParts(
  client: RegistryClient,
  blob: Descriptor,
  parts: readonly BlobPart[],
  { onBytes, take }: { onBytes: (bytes: number) => void; take: (part: number, bytes: Uint8Array) => Promise<void> },
): Promise<void> {
  let part = 0;
  for (const range of mergeParts(parts)) {
    for await (const { at, bytes } of fetchRange(client, blob, range)) {
      onBytes(bytes.length);
      const end = at + bytes.length;
      for (; part < parts.length && parts[part]!.start < end; part++) {
        const wanted = parts[part]!;
        await take(part, bytes.subarray(Math.max(0, wanted.start - at), wanted.end - at));
        if (wanted.end > end) break;
      }
    }
  }
}

async function* fetchRange(
  client: RegistryClient,
  { digest, size }: Descriptor,
  { start, end }: BlobPart,
): AsyncGenerator<{ readonly at: number; readonly bytes: Uint8Array }> {
  let failures = 0;
  for (let at = start, tries = 1; at < end; tries++) {
    const before = at;
    try {
      const answer = await client.get(`blobs/${digest}`, { range: `bytes=${at}-${end - 1}` });
      refuseEncoding(answer, `Blob ${digest}`);
      checkRange(answer, { start: at, end }, size);
      for await (const bytes of answer.body) {
        if (at + bytes.length > end) {
          answer.discard();
          throw new HostctlError('registry', `A part of blob ${digest} is longer than what was asked for`);
        }
        yield { at, bytes };
        at += bytes.length;
      }
      if (at < end) throw new HttpBroken(`blob ${digest}`, `a part of it ends ${end - at} bytes early`);
    } catch (error) {
      if (!(error instanceof HttpBroken)) throw error;
      failures = at > before ? 0 : failures + 1;
      if (failures > RETRIES || tries >= MAX_TRIES) throw error;
      await client.pause(backOff(failures));
    }
  }
}

function checkRange(answer: HttpAnswer, { start, end }: BlobPart, size: number): void {
  const stated = answer.headers['content-range'];
  const range = `bytes ${start}-${end - 1}/`;
  if (answer.status === 206 && (stated === `${range}${size}` || stated === `${range}*`)) return;
  answer.discard();
  throw new HostctlError('registry', 'The registry does not give the parts of blobs that it is asked for');
}
