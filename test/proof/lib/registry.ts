/** A registry on loopback that serves an OCI layout, and the settings by which a command trusts it. */

import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** Where programs look for them. */
export const REGISTRY_SETTINGS = '/etc/containers';

export interface ProofRegistry {
  /** Host and repository. */
  readonly name: string;
  /** Directory that is to be at `REGISTRY_SETTINGS`. */
  readonly settings: string;
  close(): void;
}

const REPOSITORY = 'proof';

interface Index {
  readonly manifests: readonly {
    readonly mediaType: string;
    readonly digest: string;
    readonly annotations: Readonly<Record<string, string>>;
  }[];
}

/** Serves the layout `images`; writes the settings to `settings`. */
export async function serveImages(images: string, settings: string): Promise<ProofRegistry> {
  const server = createServer((request, response) => serve(images, request, response));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  mkdirSync(REGISTRY_SETTINGS, { recursive: true });
  mkdirSync(settings);
  writeFileSync(`${settings}/registries.conf`, `[[registry]]\nlocation = "${host}"\ninsecure = true\n`);
  writeFileSync(`${settings}/policy.json`, '{ "default": [{ "type": "insecureAcceptAnything" }] }\n');
  return {
    name: `${host}/${REPOSITORY}`,
    settings,
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}

function serve(images: string, { url = '', headers }: IncomingMessage, response: ServerResponse): void {
  if (url === '/v2/') return void response.end();
  const [, kind, name = ''] = new RegExp(`^/v2/${REPOSITORY}/(manifests|blobs)/([\\w:]+)$`).exec(url) ?? [];
  const { manifests } = JSON.parse(readFileSync(`${images}/index.json`, 'utf8')) as Index;
  const manifest = manifests.find(
    ({ digest, annotations }) => digest === name || annotations['org.opencontainers.image.ref.name'] === name,
  );
  const path = `${images}/blobs/${(manifest?.digest ?? name).replace(':', '/')}`;
  if (kind === undefined || !existsSync(path)) return void response.writeHead(404).end();
  if (kind === 'manifests') response.setHeader('content-type', manifest?.mediaType ?? '');
  const bytes = readFileSync(path);
  const from = Number(/^bytes=(\d+)-$/.exec(headers.range ?? '')?.[1] ?? 0);
  if (from === 0) return void response.end(bytes);
  response.writeHead(206, { 'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` });
  response.end(bytes.subarray(from));
}
