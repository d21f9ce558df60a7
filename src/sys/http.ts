/**
 * One HTTP request: bounded in time and in headers, without redirects, retries, credentials or decompression of its own.
 * Failures of the connection are 'registry' errors that say so with `HttpBroken`.
 */

import * as http from 'node:http';
import * as https from 'node:https';
import { HostctlError } from '../errors.ts';

export interface HttpRequest {
  readonly url: URL;
  readonly method?: 'GET' | 'POST' | 'PUT';
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | undefined;
  /** Takes certificates that cannot be checked. */
  readonly insecure: boolean;
  /** Certificates to check by, PEM; Node's own list without. */
  readonly ca?: readonly string[] | undefined;
  readonly signal: AbortSignal;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  /** Throws `HttpBroken` where the connection ends early or stands still. */
  readonly body: AsyncIterable<Uint8Array>;
  /** Lets go of the rest. */
  discard(): void;
}

/** The connection failed: another try may do better. */
export class HttpBroken extends HostctlError {
  constructor(name: string, what: string, cause?: unknown) {
    super('registry', `Cannot read "${name}": ${what}`, { cause });
  }
}

const CONNECT_MS = 10_000;
const HEADER_MS = 60_000;
const IDLE_MS = 30_000;
const MAX_HEADER_BYTES = 16 << 10;

/** Without what may be a credential. */
export function shownUrl({ protocol, host, pathname }: URL): string {
  return `${protocol}//${host}${pathname}`.slice(0, 300);
}

/** A URL, or undefined where the text is none. */
export function parseUrl(text: string, base?: string): URL | undefined {
  return URL.canParse(text, base) ? new URL(text, base) : undefined;
}

/** Sends a request and waits for the headers of the answer. */
export function sendHttp(asked: HttpRequest): Promise<HttpAnswer> {
  const { url, method = 'GET', headers, body, insecure, ca, signal } = asked;
  const options = {
    method,
    headers: { 'user-agent': 'hostctl', 'accept-encoding': 'identity', ...headers },
    maxHeaderSize: MAX_HEADER_BYTES,
    agent: false as const,
    signal,
  };
  return new Promise((resolve, reject) => {
    const request =
      url.protocol === 'https:'
        ? https.request(url, {
            ...options,
            rejectUnauthorized: !insecure,
            ...(ca === undefined ? {} : { ca: [...ca] }),
          })
        : http.request(url, options);
    const broken = (what: string, cause?: unknown): HttpBroken => new HttpBroken(shownUrl(url), what, cause);
    const connecting = setTimeout(() => request.destroy(broken('no connection in time')), CONNECT_MS);
    const waiting = setTimeout(() => request.destroy(broken('no answer in time')), HEADER_MS);
    request.on('socket', (socket) => {
      socket.once(url.protocol === 'https:' ? 'secureConnect' : 'connect', () => clearTimeout(connecting));
    });
    request.on('error', (error: NodeJS.ErrnoException) => {
      clearTimeout(connecting);
      clearTimeout(waiting);
      if (signal.aborted) reject(new HostctlError('interrupted', 'Stopped fetching', { cause: signal.reason }));
      else if (error.code === 'HPE_HEADER_OVERFLOW')
        reject(new HostctlError('registry', `Headers of "${shownUrl(url)}" have more than ${MAX_HEADER_BYTES} bytes`));
      else reject(error instanceof HttpBroken ? error : broken(error.code ?? error.message, error));
    });
    request.on('response', (response) => {
      clearTimeout(waiting);
      response.setTimeout(IDLE_MS, () => response.destroy(broken(`nothing came for ${IDLE_MS / 1000} seconds`)));
      resolve({
        status: response.statusCode ?? 0,
        headers: response.headers,
        body: bodyOf(response, url, signal),
        discard: () => response.destroy(),
      });
    });
    request.end(body);
  });
}

async function* bodyOf(response: http.IncomingMessage, url: URL, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  try {
    for await (const chunk of response) yield chunk as Uint8Array;
  } catch (error) {
    if (signal.aborted) throw new HostctlError('interrupted', 'Stopped fetching', { cause: signal.reason });
    if (error instanceof HostctlError) throw error;
    throw new HttpBroken(shownUrl(url), 'the connection ended early', error);
  }
}
