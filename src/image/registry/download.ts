/**
 * One blob from a registry into a file. What has come stays, named by the digest, when the connection ends, and the next
 * try, of this command or another, goes on behind it; the whole is compared with the digest in any case, and what is
 * wrong is removed.
 */

import * as fs from 'node:fs';
import { HostctlError, isHostctlError } from '../../errors.ts';
import type { Descriptor } from '../../format/oci/descriptor.ts';
import { algorithmOf, OciHasher } from '../../format/oci/digest.ts';
import { HttpBroken } from '../../sys/http.ts';
import type { HttpAnswer } from '../../sys/http.ts';
import { fileChunks, removeQuietly, writeAll } from '../../sys/files.ts';
import { refuseEncoding } from './body.ts';
import { backOff, RETRIES, type RegistryClient } from './client.ts';

const { O_RDWR, O_CREAT, O_APPEND, O_NOFOLLOW } = fs.constants;
/** A server that gives a byte for each request is as good as none. */
const MAX_REQUESTS = 1000;

/**
 * Fetches a blob into `file`, which nobody else writes to and which may hold the beginning of it.
 * @param onBytes - called with how many bytes of the blob are there now
 * @throws HostctlError 'digest-mismatch' or 'size-mismatch' for wrong content, 'registry' where none comes
 */
export async function downloadBlob(
  client: RegistryClient,
  descriptor: Descriptor,
  file: string,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const resumed = await new Download(client, descriptor, file, onBytes).run();
  if (resumed === 'right') return;
  // The beginning was there before, or came in pieces: perhaps of two blobs. Once more, in one go.
  if (resumed === 'wrong' && (await new Download(client, descriptor, file, onBytes).run()) === 'right') return;
  throw new HostctlError('digest-mismatch', `Blob ${descriptor.digest} comes with other content`);
}

class Download {
  readonly #client: RegistryClient;
  readonly #descriptor: Descriptor;
  readonly #file: string;
  readonly #onBytes: (bytes: number) => void;
  #hasher: OciHasher;
  #length = 0;
  /** Names the content that the beginning came from, for `If-Range`. */
  #etag: string | undefined;

  constructor(client: RegistryClient, descriptor: Descriptor, file: string, onBytes: (bytes: number) => void) {
    this.#client = client;
    this.#descriptor = descriptor;
    this.#file = file;
    this.#onBytes = onBytes;
    this.#hasher = new OciHasher(algorithmOf(descriptor.digest));
  }

  /** Whether what came is the blob. If it is not, the file is gone. */
  async run(): Promise<'right' | 'wrong'> {
    const fd = fs.openSync(this.#file, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW, 0o600);
    try {
      this.#takeBeginning(fd);
      await this.#fill(fd);
    } catch (error) {
      // The beginning is good for another try only if nothing was wrong with it.
      if (isHostctlError(error, 'size-mismatch')) removeQuietly(this.#file);
      throw error;
    } finally {
      fs.closeSync(fd);
    }
    if (this.#hasher.digest() === this.#descriptor.digest) return 'right';
    removeQuietly(this.#file);
    return 'wrong';
  }

  #takeBeginning(fd: number): void {
    const { size } = fs.fstatSync(fd);
    if (size > this.#descriptor.size) {
      this.#startAgain(fd);
      return;
    }
    for (const chunk of fileChunks(this.#file)) this.#hasher.update(chunk);
    this.#length = size;
  }

  #startAgain(fd: number): void {
    fs.ftruncateSync(fd, 0);
    this.#hasher = new OciHasher(algorithmOf(this.#descriptor.digest));
    this.#length = 0;
    this.#etag = undefined;
  }

  async #fill(fd: number): Promise<void> {
    let failures = 0;
    for (let requests = 0; this.#length < this.#descriptor.size; requests++) {
      const before = this.#length;
      try {
        await this.#request(fd);
      } catch (error) {
        if (!(error instanceof HttpBroken)) throw error;
        failures = this.#length > before ? 0 : failures + 1;
        if (failures > RETRIES || requests >= MAX_REQUESTS) throw error;
        await this.#client.pause(backOff(failures));
      }
    }
  }

  async #request(fd: number): Promise<void> {
    const { digest, size } = this.#descriptor;
    const range: Record<string, string> =
      this.#length === 0
        ? {}
        : { range: `bytes=${this.#length}-`, ...(this.#etag === undefined ? {} : { 'if-range': this.#etag }) };
    const answer = await this.#client.get(`blobs/${digest}`, range);
    refuseEncoding(answer, `Blob ${digest}`);
    // Whatever is not exactly the rest is taken from the start.
    if (this.#length > 0 && !isRest(answer, this.#length, size)) {
      this.#startAgain(fd);
      if (answer.status !== 200) {
        answer.discard();
        return this.#request(fd);
      }
    }
    checkAnswer(answer, this.#descriptor, this.#length);
    this.#etag = strongEtag(answer);
    for await (const chunk of answer.body) {
      if (this.#length + chunk.length > size) {
        answer.discard();
        throw new HostctlError('size-mismatch', `Blob ${digest} is longer than its ${size} bytes`);
      }
      writeAll(fd, chunk);
      this.#hasher.update(chunk);
      this.#length += chunk.length;
      this.#onBytes(this.#length);
    }
    if (this.#length < size) {
      throw new HttpBroken(`blob ${digest}`, `it ends after ${this.#length} of ${size} bytes`);
    }
  }
}

/** Whether the answer is the part from `start` to the end. */
function isRest(answer: HttpAnswer, start: number, size: number): boolean {
  const match = /^bytes ([0-9]+)-([0-9]+)\/([0-9]+|\*)$/.exec(answer.headers['content-range'] ?? '');
  return (
    answer.status === 206 &&
    match !== null &&
    lengthOf(answer, size - start) === size - start &&
    Number(match[1]) === start &&
    Number(match[2]) === size - 1 &&
    (match[3] === '*' || Number(match[3]) === size)
  );
}

/** Refuses what cannot be the blob by its headers. */
function checkAnswer(answer: HttpAnswer, { digest, size }: Descriptor, start: number): void {
  if (start > 0) return;
  const length = lengthOf(answer, size);
  if (answer.status === 200 && length === size) return;
  answer.discard();
  if (answer.status === 200) {
    throw new HostctlError('size-mismatch', `Blob ${digest} comes with ${length} bytes instead of ${size}`);
  }
  throw new HostctlError('registry', `Blob ${digest} is answered as a part that was not asked for`);
}

/** As stated, or else `otherwise`. */
function lengthOf({ headers }: HttpAnswer, otherwise: number): number {
  const stated = headers['content-length'];
  return stated === undefined ? otherwise : Number(stated);
}

function strongEtag({ headers }: HttpAnswer): string | undefined {
  return headers.etag?.startsWith('"') === true ? headers.etag : undefined;
}
