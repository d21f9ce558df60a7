/**
 * A registry that serves one image and does what a test wants to any request: counted, so that a fault can come once or
 * always. In this process, on loopback.
 */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { onTestFinished } from 'vitest';

export interface Call {
  readonly kind: 'tag' | 'manifest' | 'config' | 'layer' | 'token' | 'other';
  /** Of this kind, from 1. */
  readonly nth: number;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** What would be served; of a range the whole. */
  readonly body: Buffer;
  /** Where the range that was asked for begins and ends; without one, all of the body. */
  readonly start: number;
  readonly end: number;
  /** Serves like a good registry, or with these changes. */
  readonly serve: (changed?: {
    readonly status?: number;
    readonly headers?: Record<string, string>;
    readonly body?: Buffer;
  }) => void;
  /** Serves the beginning of what was asked for, then cuts the connection. */
  readonly cut: (bytes: number) => void;
}

/** Returns true when it dealt with the call. */
export type Fault = (call: Call) => boolean | void;

export interface ServedImage {
  readonly manifests: ReadonlyMap<string, Buffer>;
  /** By digest. */
  readonly blobs: ReadonlyMap<string, Buffer>;
  readonly config: string;
}

export interface FaultyRegistry {
  /** `127.0.0.1:PORT` */
  readonly host: string;
  readonly calls: { readonly kind: Call['kind']; readonly headers: IncomingMessage['headers']; readonly url: string }[];
  /** Bytes of layers that were written to the network. */
  layerBytes: number;
  fault: Fault;
}

export async function faultyRegistry(image: ServedImage, isSecure = false): Promise<FaultyRegistry> {
  const counts = new Map<string, number>();
  const registry: FaultyRegistry = { host: '', calls: [], layerBytes: 0, fault: () => false };
  const answer = (request: IncomingMessage, response: ServerResponse): void => {
    const url = request.url ?? '';
    const kind = kindOf(url, image);
    const nth = (counts.get(kind) ?? 0) + 1;
    counts.set(kind, nth);
    registry.calls.push({ kind, headers: request.headers, url });
    const body = bodyOf(url, kind, image);
    const [, from = '0', to = ''] = /^bytes=([0-9]+)-([0-9]*)$/.exec(request.headers.range ?? '') ?? [];
    const [start, end] = [Number(from), to === '' ? body.length : Number(to) + 1];
    const isWhole = start === 0 && end === body.length;
    const head = isWhole ? {} : { 'content-range': `bytes ${start}-${end - 1}/${body.length}` };
    const write = (bytes: Buffer): Buffer => {
      if (kind === 'layer') registry.layerBytes += bytes.length;
      return bytes;
    };
    const call: Call = {
      kind,
      nth,
      request,
      response,
      body,
      start,
      end,
      serve({ status, headers = {}, body: other } = {}) {
        const bytes = other ?? body.subarray(start, end);
        response.writeHead(status ?? (isWhole ? 200 : 206), { 'content-length': bytes.length, ...head, ...headers });
        response.end(write(bytes));
      },
      cut(bytes) {
        const rest = body.subarray(start, end);
        response.writeHead(isWhole ? 200 : 206, { 'content-length': rest.length, ...head });
        // What was written arrives before the end of the connection.
        response.write(write(rest.subarray(0, bytes)), () => response.socket?.end());
        if (bytes === 0) response.flushHeaders();
      },
    };
    if (registry.fault(call) === true) return;
    if (body.length === 0) response.writeHead(404).end();
    else call.serve();
  };
  const server: Server = isSecure ? createSecureServer({ key: KEY, cert: CERTIFICATE }, answer) : createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return Object.assign(registry, { host: `127.0.0.1:${(server.address() as AddressInfo).port}` });
}

function kindOf(url: string, { config }: ServedImage): Call['kind'] {
  if (url.startsWith('/token')) return 'token';
  if (/\/manifests\/sha256:/.test(url)) return 'manifest';
  if (url.includes('/manifests/')) return 'tag';
  if (!url.includes('/blobs/')) return 'other';
  return url.endsWith(config) ? 'config' : 'layer';
}

function bodyOf(url: string, kind: Call['kind'], { manifests, blobs }: ServedImage): Buffer {
  const name = url.slice(url.lastIndexOf('/') + 1).replace(/\?.*/, '');
  if (kind === 'token') return Buffer.from('{"token":"a-token"}');
  return manifests.get(name) ?? blobs.get(name) ?? Buffer.alloc(0);
}

/** For `localhost`, signed by itself; worth nothing to anybody. */
const KEY = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg7UWRZN9UDdfuTMTv
EYN+10U3QdKvZzdJ247KBhdUkZmhRANCAAROWeh3dw34LHAUeYU1SUPyOQI1c5Q4
ac4uDS1dM9U30lYUikS0vHtc72r0C7DEPmHz/tAsboO2ddlYO0Ak8lBF
-----END PRIVATE KEY-----
`;
export const CERTIFICATE = `-----BEGIN CERTIFICATE-----
MIIBgDCCASWgAwIBAgIUWkWUM4Dm+8TicF4MkxswPFOnKT4wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyODA0Mzg0NVoYDzIxMjYxMTA0
MDQzODQ1WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAROWeh3dw34LHAUeYU1SUPyOQI1c5Q4ac4uDS1dM9U30lYUikS0vHtc
72r0C7DEPmHz/tAsboO2ddlYO0Ak8lBFo1MwUTAdBgNVHQ4EFgQUpxseXdR6Olx0
QCJWe2bXIJze2BAwHwYDVR0jBBgwFoAUpxseXdR6Olx0QCJWe2bXIJze2BAwDwYD
VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNJADBGAiEA7i8kMHvRjBKVxiaA8+VZ
j1SK+15xBBbaVPGrS55C6RkCIQChelu8o05oUsSycPgcNgzFH4thzN3h/pE3EwjS
3ih9pw==
-----END CERTIFICATE-----
`;
