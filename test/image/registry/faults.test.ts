/**
 * Registries that misbehave, each in one way: the image comes whole or not at all, with the exit code that is promised,
 * and after whatever happened the same pull from a good registry gives the right image.
 */

import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { exitCodeOf } from '../../../src/cli/exit-codes.ts';
import { HostctlError } from '../../../src/errors.ts';
import type { BasicCredentials } from '../../../src/format/containers/auth-json.ts';
import { parseImageReference } from '../../../src/format/oci/reference.ts';
import { buildTree } from '../../../src/image/build.ts';
import { measuringSink } from '../../../src/image/ingest.ts';
import { openRegistryImage, type RegistryReference } from '../../../src/image/registry-image.ts';
import { RegistryClient, type AccessibleEndpoint } from '../../../src/image/registry/client.ts';
import { NativeReader } from '../../../src/image/registry/reader.ts';
import { openImageSource } from '../../../src/image/source.ts';
import { BlobCache } from '../../../src/store/blob-cache.ts';
import { formatDump } from '../../../src/format/dump/format.ts';
import {
  CERTIFICATE,
  faultyRegistry,
  type Fault,
  type FaultyRegistry,
  type ServedImage,
} from '../../helpers/faulty-registry.ts';
import { ociLayout, sha256 } from '../../helpers/oci-builder.ts';
import { scratchDir } from '../../helpers/scratch-dir.ts';
import { startFilter } from '../../helpers/start-filter.ts';
import { tar, tarDir, tarFile } from '../../helpers/tar-builder.ts';
import { testHost } from '../../helpers/test-host.ts';

const PLATFORM = { os: 'linux', architecture: 'amd64' };
const SIZE = 64 << 10;
const CREDENTIALS = Buffer.from('user:secret').toString('base64') as BasicCredentials;
const CONTENT = Buffer.from(Array.from({ length: SIZE }, (_, i) => (i * 7919) >> 3));

interface Served extends ServedImage {
  readonly directory: string;
  readonly manifestDigest: string;
  readonly layer: string;
}

/** One image of one plain layer, and another under the tag `moved`. */
function served(): Served {
  const build = (content: Buffer) =>
    ociLayout(scratchDir(), {
      layers: [{ compression: 'none', tar: tar([tarDir('usr'), tarFile('usr/file', content)]) }],
    });
  const image = build(CONTENT);
  const other = build(Buffer.from(CONTENT).fill(1, 100));
  const blobs = new Map<string, Buffer>();
  for (const { directory } of [other, image]) {
    for (const name of readdirSync(`${directory}/blobs/sha256`)) {
      blobs.set(`sha256:${name}`, readFileSync(`${directory}/blobs/sha256/${name}`));
    }
  }
  const manifest = blobs.get(image.manifestDigest)!;
  const { layers } = JSON.parse(manifest.toString()) as { layers: { digest: string }[] };
  const manifests = new Map([
    ['1', manifest],
    ['moved', blobs.get(other.manifestDigest)!],
  ]);
  const { directory, manifestDigest } = image;
  return { directory, manifestDigest, layer: layers[0]!.digest, manifests, blobs, config: image.config.digest };
}

interface Run {
  readonly image: Served;
  readonly registry: FaultyRegistry;
  readonly cache: string;
  /** What was waited, in milliseconds. */
  readonly waits: number[];
}

/** The dump of the image as it comes from the registry. */
async function pull({ registry, cache, waits }: Run, options: Partial<AccessibleEndpoint> = {}): Promise<string> {
  const host = testHost();
  const endpoint = {
    host: registry.host,
    repository: 'os',
    insecure: true,
    ca: undefined,
    credentials: undefined,
    ...options,
  };
  const pause = (ms: number): Promise<void> => Promise.resolve(void waits.push(ms));
  const client = new RegistryClient(host, [endpoint], pause);
  const reference = parseImageReference(`docker://${endpoint.host}/os:1`) as RegistryReference;
  const blobs = new BlobCache(host, cache);
  try {
    const reader = new NativeReader(host, client, () => Promise.resolve());
    const source = await openRegistryImage(host, reference, { reader, platform: PLATFORM, cache: blobs });
    await source.blobs.fetch();
    return await dumpOf(source);
  } finally {
    blobs.close();
  }
}

async function dumpOf(source: Parameters<typeof buildTree>[0]): Promise<string> {
  const { signal } = testHost();
  const { tree } = await buildTree(source, { sink: measuringSink('sha256'), signal, startFilter });
  return [...formatDump(tree)].join('');
}

/** `0`, or the exit code that the command would end with. */
async function exitOf(run: Run, expected: string, options: Partial<AccessibleEndpoint>): Promise<number> {
  try {
    expect(await pull(run, options)).toBe(expected);
    return 0;
  } catch (error) {
    if (!(error instanceof HostctlError)) throw error;
    expect(error.message).not.toMatch(/secret|a-token|dXNlcj/);
    return exitCodeOf(error.code);
  }
}

/** No blob in the cache is anything but what its name says; a beginning is the beginning of it. */
function expectSoundCache({ cache, image }: Run): void {
  const folder = `${cache}/hostctl/cache/blobs/sha256`;
  for (const name of readdirSync(folder)) {
    const bytes = readFileSync(`${folder}/${name}`);
    if (!name.endsWith('.partial')) expect(sha256(bytes)).toBe(`sha256:${name}`);
    else expect(bytes.length).toBeLessThan(image.blobs.get(`sha256:${name.slice(0, 64)}`)!.length);
  }
}

const always =
  (kind: string, deal: Fault): Fault =>
  (call) =>
    call.kind === kind ? (deal(call), true) : false;
const times =
  (kind: string, count: number, deal: Fault): Fault =>
  (call) =>
    call.kind === kind && call.nth <= count ? (deal(call), true) : false;
const status =
  (code: number, headers: Record<string, string> = {}): Fault =>
  ({ response }) =>
    void response.writeHead(code, headers).end();
const html = Buffer.from('<html>Please accept our terms</html>');
const cutHalf: Fault = ({ cut, body }) => cut(body.length / 2);
/** After a first answer that ends half way, this one. */
const afterCut =
  (deal: Fault): Fault =>
  (call) => {
    if (call.kind !== 'layer') return false;
    if (call.nth === 1) cutHalf(call);
    else if (call.start > 0) deal(call);
    else call.serve();
    return true;
  };
const withRange =
  (range: (start: number, size: number) => string): Fault =>
  ({ serve, start, body }) =>
    serve({ status: 206, headers: { 'content-range': range(start, body.length) } });
/** Wants a token, and takes only what `isGood` says. */
const bearer =
  (isGood: (token: string, nth: number) => boolean, realm = 'http://HOST/token'): Fault =>
  (call) => {
    if (call.kind === 'token' || isGood(call.request.headers.authorization ?? '', call.nth)) return false;
    const challenge = `Bearer realm="${realm.replace('HOST', call.request.headers.host ?? '')}",service="test"`;
    call.response.writeHead(401, { 'www-authenticate': challenge }).end();
    return true;
  };
const both =
  (...faults: Fault[]): Fault =>
  (call) =>
    faults.some((fault) => fault(call) === true);
const redirects =
  (count: number, to?: string): Fault =>
  ({ kind, request, response }) => {
    const done = Number(new URL(request.url ?? '', 'http://x').searchParams.get('hop') ?? 0);
    if (kind !== 'layer' || done >= count) return false;
    const path = (request.url ?? '').replace(/\?.*/, '');
    response.writeHead(307, { location: to ?? `${path}?hop=${done + 1}` }).end();
    return true;
  };

const SIXTEENTHS = Array.from({ length: 16 }, (_, i) => i);

type Named = readonly [name: string, exit: number, fault: Fault, options?: Partial<AccessibleEndpoint>];

const FAULTS: readonly Named[] = [
  ['nothing at all', 0, () => false],
  // Connections
  ...SIXTEENTHS.map((part) => [`a layer cut at ${part} sixteenths`, 0, times('layer', 1, ({ cut, body }) => cut(Math.floor((body.length * part) / 16)))] as const),
  ['a layer cut after each sixteenth', 0, always('layer', ({ cut, body, start, serve }) => (body.length - start > body.length / 16 ? cut(body.length / 16) : serve()))],
  ['a layer that is cut before its first byte, for ever', 4, always('layer', ({ cut }) => cut(0))],
  ['a manifest cut in the middle, once', 0, times('tag', 1, cutHalf)],
  ['a manifest cut in the middle, for ever', 4, always('tag', cutHalf)],
  ['a config cut in the middle, once', 0, times('config', 1, cutHalf)],
  ['a connection reset before the answer, twice', 0, times('layer', 2, ({ request }) => void request.socket.destroy())],
  ['a connection reset before the answer, for ever', 4, always('tag', ({ request }) => void request.socket.destroy())],
  ['an answer of something else than HTTP', 4, always('tag', ({ request }) => void request.socket.end('SSH-2.0-OpenSSH_9.2\r\n'))],
  ['headers of 40 KiB', 4, always('tag', status(200, { 'x-long': 'x'.repeat(40_000) }))],
  // Status
  ['429 without a word how long, three times', 0, times('layer', 3, status(429))],
  ['429 with Retry-After', 0, times('tag', 1, status(429, { 'retry-after': '7' }))],
  ['429 for ever', 4, always('tag', status(429))],
  ['a burst of 500, 502, 503 and 504', 0, times('layer', 4, ({ nth, response }) => void response.writeHead([500, 502, 503, 504][nth - 1]!).end())],
  ['503 for ever', 4, always('layer', status(503))],
  ['408, once', 0, times('config', 1, status(408))],
  ['400', 4, always('tag', status(400))],
  ['403', 4, always('layer', status(403))],
  ['404', 4, always('layer', status(404))],
  ['204 without content', 4, always('layer', status(204))],
  // Redirects
  ['five redirects', 0, redirects(5)],
  ['six redirects', 4, redirects(6)],
  ['a redirect loop', 4, always('layer', ({ request, response }) => void response.writeHead(302, { location: request.url }).end())],
  ['a redirect without a place', 4, always('layer', status(302))],
  ['a redirect to a file', 4, redirects(1, 'file:///etc/passwd')],
  ['a redirect to what is no URL', 4, redirects(1, 'http://[')],
  // Credentials
  ['Basic without credentials', 4, always('tag', status(401, { 'www-authenticate': 'Basic realm="x"' }))],
  ['Basic that refuses the credentials, for ever', 4, always('tag', status(401, { 'www-authenticate': 'Basic realm="x"' })), { credentials: CREDENTIALS }],
  ['401 without a challenge', 4, always('tag', status(401))],
  ['a token', 0, bearer((token) => token === 'Bearer a-token')],
  ['a token that expires in the middle of a blob', 0, both(bearer((token, nth) => token === 'Bearer a-token' && nth !== 3), times('layer', 2, cutHalf))],
  ['a token that is never good enough', 4, bearer(() => false)],
  ['a token server that refuses', 4, both(bearer(() => false), always('token', status(403)))],
  ['a token server without a token', 4, both(bearer(() => false), always('token', ({ serve }) => serve({ body: Buffer.from('{}') })))],
  ['a token that breaks the header', 4, both(bearer(() => false), always('token', ({ serve }) => serve({ body: Buffer.from('{"token":"a\\r\\nx: y"}') })))],
  ['a token of 100 KiB', 4, both(bearer(() => false), always('token', ({ serve }) => serve({ body: Buffer.from(`{"token":"${'x'.repeat(100_000)}"}`) })))],
  ['a token server that is a file', 4, bearer(() => false, 'file:///etc/passwd')],
  // Lengths and content
  ['a layer with other bytes of the same length', 3, always('layer', ({ serve, body }) => serve({ body: Buffer.alloc(body.length) }))],
  ['a layer with other bytes, once', 0, times('layer', 1, ({ serve, body }) => serve({ body: Buffer.alloc(body.length) }))],
  ['a layer that says it is longer', 3, always('layer', ({ serve, body }) => serve({ body: Buffer.concat([body, Buffer.alloc(9)]) }))],
  ['a layer that says it is shorter', 3, always('layer', ({ serve, body }) => serve({ body: body.subarray(9) }))],
  ['a layer that is longer without saying so', 3, always('layer', ({ response, body }) => void response.writeHead(200).end(Buffer.concat([body, Buffer.alloc(9)])))],
  ['a layer that is shorter without saying so', 4, always('layer', ({ response, body, start }) => void response.writeHead(start === 0 ? 200 : 404).end(body.subarray(9)))],
  ['HTML instead of a layer', 3, always('layer', ({ serve }) => serve({ body: html, headers: { 'content-type': 'text/html' } }))],
  ['HTML instead of a config', 3, always('config', ({ serve }) => serve({ body: html }))],
  ['HTML instead of a manifest', 7, always('tag', ({ serve }) => serve({ body: html }))],
  ['a config with other bytes of the same length', 3, always('config', ({ serve, body }) => serve({ body: Buffer.alloc(body.length, ' ') }))],
  ['a layer in a content encoding', 4, always('layer', ({ serve }) => serve({ headers: { 'content-encoding': 'gzip' } }))],
  ['a manifest in a content encoding', 4, always('tag', ({ serve }) => serve({ headers: { 'content-encoding': 'br' } }))],
  // Ranges
  ['a range that is ignored', 0, afterCut(({ serve, body }) => serve({ status: 200, headers: {}, body }))],
  ['a range that is refused (416)', 0, afterCut(status(416))],
  ['a range that begins elsewhere', 0, afterCut(withRange((start, size) => `bytes ${start - 5}-${size - 1}/${size}`))],
  ['a range of another whole', 0, afterCut(withRange((start, size) => `bytes ${start}-${size - 1}/${size + 1}`))],
  ['a range that ends early', 0, afterCut(withRange((start, size) => `bytes ${start}-${size - 2}/${size}`))],
  ['a range that says nothing', 0, afterCut(({ response, body, start }) => void response.writeHead(206).end(body.subarray(start)))],
  ['a range with other bytes than it says', 0, afterCut(({ serve, body, start }) => serve({ body: body.subarray(0, body.length - start) }))],
  ['a part that was not asked for', 4, always('layer', ({ serve, body }) => serve({ status: 206, headers: { 'content-range': `bytes 0-${body.length - 1}/${body.length}` } }))],
  // Documents
  ['a manifest of 5 MiB', 7, always('tag', ({ serve }) => serve({ body: Buffer.alloc(5 << 20, ' ') }))],
  ['a manifest of 5 MiB that does not say so', 7, always('tag', ({ response }) => void response.writeHead(200).end(Buffer.alloc(5 << 20, ' ')))],
  ['a manifest of another type', 7, always('tag', ({ serve }) => serve({ body: Buffer.from('{"schemaVersion":2,"mediaType":"text/plain"}') }))],
  ['a manifest that is an index too', 7, always('tag', ({ serve, body }) => serve({ body: Buffer.from(body.toString().replace('{', '{"manifests":[],')) }))],
  ['a manifest with a name twice', 7, always('tag', ({ serve, body }) => serve({ body: Buffer.from(body.toString().replace('{', '{"schemaVersion":2,')) }))],
  ['Docker schema 1', 7, always('tag', ({ serve }) => serve({ body: Buffer.from('{"schemaVersion":1,"fsLayers":[]}') }))],
  ['an error document with 200', 7, always('tag', ({ serve }) => serve({ body: Buffer.from('{"errors":[{"code":"UNKNOWN"}]}') }))],
]; // prettier-ignore

test('there are at least forty of them, each with a name of its own', () => {
  expect(new Set(FAULTS.map(([name]) => name)).size).toBe(FAULTS.length);
  expect(FAULTS.length).toBeGreaterThan(40);
});

test.each(FAULTS.map(([name, exit, fault, options = {}]) => ({ name, exit, fault, options })))(
  '$name: exit $exit',
  async ({ exit, fault, options }) => {
    const image = served();
    const expected = await dumpOf(openImageSource(parseImageReference(`oci:${image.directory}`), PLATFORM));
    const registry = await faultyRegistry(image);
    registry.fault = fault;
    const run: Run = { image, registry, cache: scratchDir(), waits: [] };
    expect(await exitOf(run, expected, options)).toBe(exit);
    if (exit === 0) expect(registry.layerBytes).toBeLessThan(3 * SIZE);
    registry.fault = () => false;
    expect(await pull(run)).toBe(expected);
    expectSoundCache(run);
  },
);

async function brokenRun(fault: Fault, isSecure = false): Promise<Run> {
  const image = served();
  const registry = await faultyRegistry(image, isSecure);
  registry.fault = fault;
  return { image, registry, cache: scratchDir(), waits: [] };
}

test('what has come is not fetched again, by the same command or by the next', async () => {
  const layerSize = (run: Run): number => run.image.blobs.get(run.image.layer)!.length;
  const once = await brokenRun(times('layer', 1, cutHalf));
  await pull(once);
  expect(once.registry.layerBytes).toBe(layerSize(once));

  const stopped = await brokenRun((call) => (call.kind === 'layer' ? (call.nth === 1 ? cutHalf(call) : status(403)(call), true) : false)); // prettier-ignore
  await expect(pull(stopped)).rejects.toThrow('status 403');
  expect(stopped.registry.layerBytes).toBe(layerSize(stopped) / 2);
  stopped.registry.fault = () => false;
  await pull(stopped);
  expect(stopped.registry.layerBytes).toBe(layerSize(stopped));
});

test('the server is left in peace for as long as it asks, and never for hours', async () => {
  const asked = await brokenRun(times('tag', 2, ({ nth, response }) => void response.writeHead(429, { 'retry-after': nth === 1 ? '7' : '99999' }).end())); // prettier-ignore
  await pull(asked);
  expect(asked.waits).toEqual([7000, 600_000]);
  const silent = await brokenRun(always('tag', status(503)));
  await expect(pull(silent)).rejects.toThrow('status 503');
  expect(silent.waits.length).toBe(6);
  expect(silent.waits.every((ms, i) => ms >= 500 && ms <= 500 * 2 ** (i + 1))).toBe(true);
  expect(silent.registry.calls.filter(({ kind }) => kind === 'tag').length).toBe(7);
});

test('a digest that is wrong is asked for twice, no more', async () => {
  const run = await brokenRun(always('layer', ({ serve, body }) => serve({ body: Buffer.alloc(body.length) })));
  await expect(pull(run)).rejects.toThrow(expect.objectContaining({ code: 'digest-mismatch' }) as Error);
  expect(run.registry.calls.filter(({ kind }) => kind === 'layer').length).toBe(2);
  expect(readdirSync(`${run.cache}/hostctl/cache/blobs/sha256`).some((name) => name.includes('partial'))).toBe(false);
});

test('a tag that moves between requests gives what it was first', async () => {
  const run = await brokenRun(({ kind, nth, serve, body }) => {
    if (kind !== 'tag' || nth === 1) return false;
    serve({ body: Buffer.alloc(body.length) });
    return true;
  });
  await pull(run);
  expect(run.registry.calls.filter(({ kind }) => kind === 'tag').length).toBe(1);
});

test('credentials are not sent to the host that a redirect leads to', async () => {
  const image = served();
  const [registry, store] = [await faultyRegistry(image), await faultyRegistry(image)];
  registry.fault = (call) => {
    if (call.request.headers.authorization !== `Basic ${CREDENTIALS}`) {
      call.response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end();
      return true;
    }
    if (call.kind !== 'layer') return false;
    call.response.writeHead(307, { location: `http://${store.host}${call.request.url}` }).end();
    return true;
  };
  await pull({ image, registry, cache: scratchDir(), waits: [] }, { credentials: CREDENTIALS });
  expect(store.calls.map(({ kind, headers }) => [kind, headers.authorization])).toEqual([['layer', undefined]]);
});

test('https is never left for http, by a redirect or for a token', async () => {
  const plain = await brokenRun(() => false);
  const run = await brokenRun(redirects(1, `http://${plain.registry.host}/v2/os/blobs/${plain.image.layer}`), true);
  await expect(pull(run)).rejects.toThrow('is redirected to http');
  const token = await brokenRun(
    bearer(() => false, `http://${plain.registry.host}/token`),
    true,
  );
  await expect(pull(token)).rejects.toThrow('no https URL');
  expect(plain.registry.calls).toEqual([]);
  run.registry.fault = () => false;
  await pull(run);
});

test('a certificate is checked, by those that the administrator trusts', async () => {
  const run = await brokenRun(() => false, true);
  const host = run.registry.host.replace('127.0.0.1', 'localhost');
  await expect(pull(run, { host, insecure: false })).rejects.toThrow(
    expect.objectContaining({ code: 'registry' }) as Error,
  );
  await pull(run, { host, insecure: false, ca: [CERTIFICATE] });
});

test('a server that sends a byte at a time is waited for', async () => {
  const run = await brokenRun(
    always('config', ({ response, body }) => {
      response.writeHead(200, { 'content-length': body.length });
      const send = (at: number): void =>
        void (at < body.length ? response.write(body.subarray(at, at + 1), () => setTimeout(send, 1, at + 1)) : response.end());
      send(0);
    }),
  );
  await pull(run);
}); // prettier-ignore
