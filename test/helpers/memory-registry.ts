/** A registry in this process that can be written to: with the referrers API of distribution-spec 1.1, or without. */

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { onTestFinished } from 'vitest';
import { sha256 } from './oci-builder.ts';

export interface MemoryRegistry {
  /** `127.0.0.1:PORT` */
  readonly host: string;
  /** By digest, and manifests by tag as well. */
  readonly contents: Map<string, Buffer>;
  /** `METHOD /path` in order. */
  readonly calls: string[];
  /** Answers a call in place of the registry by returning true. */
  fault: (request: IncomingMessage, response: ServerResponse) => boolean;
}

interface Stored {
  readonly artifactType?: string;
  readonly subject?: { readonly digest: string };
}

export async function memoryRegistry({ hasReferrers }: { readonly hasReferrers: boolean }): Promise<MemoryRegistry> {
  const contents = new Map<string, Buffer>();
  const calls: string[] = [];
  const registry: MemoryRegistry = { host: '', contents, calls, fault: () => false };
  const referrersOf = (digest: string, artifactType: string | null): object[] =>
    [...contents].flatMap(([name, bytes]) => {
      const stored = name.startsWith('sha256:') && bytes[0] === 0x7b ? (JSON.parse(bytes.toString()) as Stored) : {};
      const isWanted = artifactType === null || stored.artifactType === artifactType;
      if (stored.subject?.digest !== digest || !isWanted) return [];
      return [{ mediaType: MANIFEST, digest: name, size: bytes.length, artifactType: stored.artifactType }];
    });
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const url = new URL(request.url ?? '', 'http://registry');
    calls.push(`${request.method} ${request.url}`);
    if (registry.fault(request, response)) return;
    const body = Buffer.concat((await request.toArray()) as Buffer[]);
    const name = url.pathname.slice(url.pathname.lastIndexOf('/') + 1);
    if (request.method === 'POST') {
      response.writeHead(202, { location: `${url.pathname}some-upload?state=1` }).end();
    } else if (request.method === 'PUT' && url.pathname.includes('/uploads/')) {
      const digest = url.searchParams.get('digest') ?? '';
      if (digest === sha256(body)) contents.set(digest, body);
      response.writeHead(digest === sha256(body) ? 201 : 400).end();
    } else if (request.method === 'PUT') {
      contents.set(name, body).set(sha256(body), body);
      const { subject } = JSON.parse(body.toString()) as Stored;
      const linked = hasReferrers && subject !== undefined ? { 'oci-subject': subject.digest } : {};
      response.writeHead(201, linked).end();
    } else if (url.pathname.includes('/referrers/') && hasReferrers) {
      const manifests = referrersOf(name, url.searchParams.get('artifactType'));
      response.end(JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests }));
    } else {
      const found = url.pathname.includes('/referrers/') ? undefined : contents.get(name);
      response.writeHead(found === undefined ? 404 : 200).end(found);
    }
  };
  const server = createServer((request, response) => void answer(request, response));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return Object.assign(registry, { host: `127.0.0.1:${(server.address() as AddressInfo).port}` });
}

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const INDEX = 'application/vnd.oci.image.index.v1+json';
