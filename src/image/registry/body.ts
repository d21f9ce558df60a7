/** Bodies of answers as they are: not encoded, and not longer than expected. */

import { HostctlError, type ErrorCode } from '../../errors.ts';
import type { HttpAnswer } from '../../sys/http.ts';

/** Refuses an answer that is not the plain bytes. */
export function refuseEncoding(answer: HttpAnswer, what: string): void {
  const encoding = answer.headers['content-encoding'];
  if (encoding === undefined || encoding === 'identity') return;
  answer.discard();
  throw new HostctlError('registry', `${what} comes encoded (content-encoding), which was not asked for`);
}

/** The whole body of a small answer, at most `maxBytes`. */
export async function readBody(
  answer: HttpAnswer,
  name: string,
  maxBytes: number,
  tooLong: ErrorCode = 'image-unsupported',
): Promise<Uint8Array> {
  refuseEncoding(answer, `"${name}"`);
  const pieces: Uint8Array[] = [];
  let length = 0;
  for await (const piece of answer.body) {
    length += piece.length;
    if (length > maxBytes) {
      throw new HostctlError(tooLong, `"${name}" has more than ${maxBytes} bytes`);
    }
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}
