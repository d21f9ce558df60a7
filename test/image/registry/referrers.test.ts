/** Artifacts beside an image in a registry: put there by us, found again, and passed over where they are broken. */

import { describe, expect, test } from 'vitest';
import type { NewArtifact } from '../../../src/format/oci/artifact.ts';
import { parseOciDigest, type OciDigest } from '../../../src/format/oci/digest.ts';
import type { Referrer } from '../../../src/image/referrers.ts';
import { RegistryClient } from '../../../src/image/registry/client.ts';
import { pushArtifact } from '../../../src/image/registry/push-artifact.ts';
import { registryReferrers } from '../../../src/image/registry/referrers.ts';
import { memoryRegistry, type MemoryRegistry } from '../../helpers/memory-registry.ts';
import { sha256 } from '../../helpers/oci-builder.ts';
import { testHost } from '../../helpers/test-host.ts';

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const INDEX = 'application/vnd.oci.image.index.v1+json';
const TYPE = 'application/vnd.example.v1';
const IMAGE = Buffer.from('{"schemaVersion":2}');
const DIGEST = parseOciDigest(sha256(IMAGE), 'Digest');
const HEX = DIGEST.slice('sha256:'.length);
const TAG = `sha256-${HEX}.note`;

function clientOf({ host }: MemoryRegistry, waits: number[] = []): RegistryClient {
  const endpoint = { host, repository: 'os', insecure: true, credentials: undefined, ca: undefined };
  return new RegistryClient(testHost(), [endpoint], (ms) => Promise.resolve(void waits.push(ms)));
}

function artifact(content: string, more: Partial<NewArtifact> = {}): NewArtifact {
  return {
    artifactType: TYPE,
    subject: { mediaType: MANIFEST, digest: DIGEST, size: IMAGE.length },
    parts: [{ mediaType: 'text/plain', bytes: Buffer.from(content), annotations: { of: content } }],
    ...more,
  };
}

const contents = (found: readonly Referrer[]): string[] =>
  found.flatMap(({ parts }) => parts.map(({ bytes }) => Buffer.from(bytes).toString()));
const found = async (registry: MemoryRegistry, digest: OciDigest = DIGEST): Promise<string[]> =>
  contents(await registryReferrers(clientOf(registry), digest).ofType(TYPE));

describe('an artifact that is pushed', () => {
  test('is listed beside its image, by type, and gets no tag', async () => {
    const registry = await memoryRegistry({ hasReferrers: true });
    const client = clientOf(registry);
    const digest = await pushArtifact(client, artifact('one'), TAG);
    await pushArtifact(client, artifact('another type', { artifactType: 'application/other' }), TAG);
    await pushArtifact(client, artifact('two'), TAG);
    expect([...registry.contents.keys()].filter((name) => !name.startsWith('sha256:'))).toEqual([]);
    expect(registry.calls.filter((call) => /PUT .*manifests/.test(call))[0]).toBe(`PUT /v2/os/manifests/${digest}`);
    registry.calls.length = 0;
    expect(await found(registry)).toEqual(['one', 'two']);
    expect(registry.calls[0]).toBe(`GET /v2/os/referrers/${DIGEST}?artifactType=${encodeURIComponent(TYPE)}`);
    expect(await found(registry, parseOciDigest(`sha256:${'0'.repeat(64)}`, 'Digest'))).toEqual([]);
  });

  test('has its tag where the registry lists nothing', async () => {
    const registry = await memoryRegistry({ hasReferrers: false });
    const client = clientOf(registry);
    const digest = await pushArtifact(client, artifact('one'), TAG);
    expect(await found(registry)).toEqual([]);
    const referrers = registryReferrers(client, DIGEST);
    const tagged = await referrers.tagged(TAG);
    expect(tagged?.digest).toBe(digest);
    expect(tagged?.parts).toEqual([
      { mediaType: 'text/plain', annotations: new Map([['of', 'one']]), bytes: Buffer.from('one') },
    ]);
    expect(await referrers.tagged('sha256-other.note')).toBeUndefined();
  });

  test('without a tag of its own is added to the list that stands for the missing API', async () => {
    const registry = await memoryRegistry({ hasReferrers: false });
    const list = `sha256-${HEX}`;
    const foreign = { mediaType: MANIFEST, digest: `sha256:${'ab'.repeat(32)}`, size: 7, 'org.example.kept': 'yes' };
    const before = { schemaVersion: 2, mediaType: INDEX, manifests: [foreign] };
    registry.contents.set(list, Buffer.from(JSON.stringify(before)));
    for (const content of ['one', 'two', 'one']) await pushArtifact(clientOf(registry), artifact(content), undefined);
    expect(await found(registry)).toEqual(['two', 'one']);
    const { manifests } = JSON.parse(registry.contents.get(list)!.toString()) as { manifests: object[] };
    expect(manifests).toHaveLength(3);
    expect(manifests[0]).toEqual(foreign);
    expect(manifests[1]).toMatchObject({ mediaType: MANIFEST, artifactType: TYPE });

    registry.contents.set(list, Buffer.from('{}'));
    await expect(pushArtifact(clientOf(registry), artifact('one'), undefined)).rejects.toMatchObject({
      code: 'image-invalid',
    });
    expect(registry.contents.get(list)!.toString()).toBe('{}');

    const listing = await memoryRegistry({ hasReferrers: true });
    await pushArtifact(clientOf(listing), artifact('one'), undefined);
    expect([...listing.contents.keys()].filter((name) => !name.startsWith('sha256:'))).toEqual([]);
  });

  test('is not named before everything that it names is there', async () => {
    const registry = await memoryRegistry({ hasReferrers: true });
    registry.fault = (request, response) => {
      if (!(request.url ?? '').includes('digest=')) return false;
      response.writeHead(507).end();
      return true;
    };
    await expect(pushArtifact(clientOf(registry), artifact('one'), TAG)).rejects.toMatchObject({
      code: 'registry',
      message: expect.stringMatching(/^Cannot write to .*some-upload.*status 507$/) as string,
    });
    expect(registry.calls.filter((call) => call.includes('manifests'))).toEqual([]);
  });

  test('goes nowhere but to the registry', async () => {
    const registry = await memoryRegistry({ hasReferrers: true });
    registry.fault = (request, response) => {
      if (request.method !== 'POST') return false;
      response.writeHead(202, { location: 'http://127.0.0.1:1/v2/os/blobs/uploads/x' }).end();
      return true;
    };
    await expect(pushArtifact(clientOf(registry), artifact('one'), TAG)).rejects.toMatchObject({
      code: 'registry',
      message: `"${registry.host}" wants what is sent to go elsewhere`,
    });
  });
});

describe('what speaks of an image in a registry', () => {
  test('is found by the tag of the specification where there is no API', async () => {
    const registry = await memoryRegistry({ hasReferrers: false });
    const digest = await pushArtifact(clientOf(registry), artifact('one'), TAG);
    const entry = { mediaType: MANIFEST, digest, size: registry.contents.get(digest)!.length, artifactType: TYPE };
    registry.contents.set(`sha256-${HEX}`, Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [entry] })));
    expect(await found(registry)).toEqual(['one']);
  });

  test.each<[string, (registry: MemoryRegistry) => void]>([
    ['whose manifest is gone', ({ contents: all }) => all.delete(manifestOf(all, 'bad'))],
    ['whose part is gone', ({ contents: all }) => all.delete(sha256(Buffer.from('bad')))],
    ['with another part than it says', ({ contents: all }) => all.set(sha256(Buffer.from('bad')), Buffer.from('dab'))],
    ['with a longer part', ({ contents: all }) => all.set(sha256(Buffer.from('bad')), Buffer.alloc(70_000))],
  ])('one %s does not stand in the way of another', async (_, damage) => {
    const registry = await memoryRegistry({ hasReferrers: true });
    const client = clientOf(registry);
    await pushArtifact(client, artifact('bad'), TAG);
    await pushArtifact(client, artifact('good'), TAG);
    // It is still listed.
    const list = await (await fetch(`http://${registry.host}/v2/os/referrers/${DIGEST}`)).text();
    damage(registry);
    registry.fault = (request, response) => {
      if (!(request.url ?? '').includes('/referrers/')) return false;
      response.end(list);
      return true;
    };
    expect(await found(registry)).toEqual(['good']);
  });

  test('what says that it is larger than 64 KiB is not asked for', async () => {
    const registry = await memoryRegistry({ hasReferrers: true });
    const large = 'x'.repeat(65_537);
    const parts = ['small', large].map((text) => ({ mediaType: 'text/plain', bytes: Buffer.from(text) }));
    await pushArtifact(clientOf(registry), artifact('', { parts }), TAG);
    await pushArtifact(clientOf(registry), artifact('good'), TAG);
    registry.calls.length = 0;
    expect(await found(registry)).toEqual(['good']);
    const asked = (content: string): boolean =>
      registry.calls.includes(`GET /v2/os/blobs/${sha256(Buffer.from(content))}`);
    expect(['small', large, 'good'].map(asked)).toEqual([true, false, true]);
  });

  test('a list that is none is as good as empty', async () => {
    const registry = await memoryRegistry({ hasReferrers: false });
    registry.contents.set(`sha256-${HEX}`, Buffer.from('[]'));
    expect(await found(registry)).toEqual([]);
  });

  test('a registry that is out of order is asked again, and not taken for an empty one', async () => {
    const registry = await memoryRegistry({ hasReferrers: true });
    await pushArtifact(clientOf(registry), artifact('one'), TAG);
    let failures = 2;
    registry.fault = (request, response) => {
      if (!(request.url ?? '').includes('/referrers/') || failures-- <= 0) return false;
      response.writeHead(503).end();
      return true;
    };
    const waits: number[] = [];
    const ask = () => registryReferrers(clientOf(registry, waits), DIGEST).ofType(TYPE);
    expect(contents(await ask())).toEqual(['one']);
    expect(waits).toHaveLength(2);
    failures = Infinity;
    await expect(ask()).rejects.toMatchObject({ code: 'registry', message: expect.stringContaining('503') as string });
  });
});

function manifestOf(all: ReadonlyMap<string, Buffer>, content: string): string {
  const part = sha256(Buffer.from(content));
  const found = [...all].find(([, bytes]) => bytes.includes(part));
  return found?.[0] ?? expect.fail(`No manifest names ${content}`);
}
