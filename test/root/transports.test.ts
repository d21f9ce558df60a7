/** Images by every transport, from a real registry on loopback, and from what skopeo makes of an image. */

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { sha256, writeIndex, writeJson, type BuiltLayout, type Json } from '../helpers/oci-builder.ts';
import {
  startHostctl,
  startRegistry,
  type AsyncResult,
  type Surroundings,
  type TestRegistry,
} from '../helpers/registry.ts';
import { hostctl } from '../helpers/run-program.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { tarFile } from '../helpers/tar-builder.ts';

type Layout = BuiltLayout & { readonly reference: string };

/** Two versions whose last layer alone differs. */
const [CONTENT_1, CONTENT_2] = [1, 2].map((seed) => Buffer.alloc(300_000, `of version ${seed}, `));

let registry: TestRegistry;
let folder: string;
let one: Layout;
let two: Layout;
/** By `image digest` of the layout. */
let digestOfOne: string;

function layoutOf(name: string, content: Buffer | undefined, version: string): Layout {
  const directory = `${folder}/${name}`;
  mkdirSync(directory);
  return bootableLayout({
    directory,
    version: '1',
    more: [tarFile('usr/share/data', content, { mtime: Number(version) })],
  });
}

beforeAll(async () => {
  folder = mkdtempSync(`${os.tmpdir()}/hostctl-transports-`);
  registry = await startRegistry();
  one = layoutOf('one', CONTENT_1, '1');
  two = layoutOf('two', CONTENT_2, '2');
  digestOfOne = hostctl(['image', 'digest', one.reference]).stdout.trim();
  registry.push(one.reference, 'os:1', '--preserve-digests');
  registry.push(two.reference, 'os:2', '--preserve-digests');
}, 60_000);
afterEach(() => {
  registry.intercept(undefined);
  registry.takeRequests();
});
afterAll(async () => {
  await registry.close();
  rmSync(folder, { recursive: true, force: true });
});

function run(args: readonly string[], surroundings: Partial<Surroundings> = {}): Promise<AsyncResult> {
  return startHostctl({ folder, host: registry.host, ...surroundings }, args).result;
}

async function json(args: readonly string[], surroundings: Partial<Surroundings> = {}): Promise<Json> {
  const result = await run([...args, '--json'], surroundings);
  expect({ exitCode: result.exitCode, stderr: result.exitCode === 0 ? '' : result.stderr }).toEqual({
    exitCode: 0,
    stderr: '',
  });
  return JSON.parse(result.stdout) as Json;
}

function layersOf(layout: Layout): readonly { readonly digest: string; readonly size: number }[] {
  const manifest = readFileSync(`${layout.directory}/blobs/${layout.manifestDigest.replace(':', '/')}`, 'utf8');
  return (JSON.parse(manifest) as { layers: { digest: string; size: number }[] }).layers;
}

/** The layers that were asked for since the last call. */
function takeLayerRequests(...layouts: readonly Layout[]): string[] {
  const layers = layouts.flatMap(layersOf).map(({ digest }) => `blobs/${digest}`);
  return registry.takeRequests().filter((path) => layers.includes(path));
}

const reference = (tag: string): string => `docker://${registry.host}/os:${tag}`;

describe('a registry', () => {
  test('is pulled from whole, then not at all, then only for the layer that changed', async () => {
    const repo = `${scratchDir()}/repo`;
    const all = layersOf(one);
    const bytes = all.reduce((sum, { size }) => sum + size, 0);
    registry.intercept((path) => Promise.resolve(path.replace('/moving', '/1')));
    const pull = ['image', 'pull', reference('moving'), '--repo', repo];
    expect(await json(pull)).toMatchObject({
      digest: digestOfOne,
      manifestDigest: one.manifestDigest,
      layers: { fetchedLayers: 3, fetchedBytes: bytes, reusedLayers: 0, reusedBytes: 0 },
    });
    expect(takeLayerRequests(one).sort()).toEqual(all.map(({ digest }) => `blobs/${digest}`).sort());
    expect(await json(pull)).toMatchObject({
      digest: digestOfOne,
      layers: { fetchedLayers: 0, fetchedBytes: 0, reusedLayers: 3, reusedBytes: bytes },
    });
    expect(takeLayerRequests(one)).toEqual([]);
    registry.intercept((path) => Promise.resolve(path.replace('/moving', '/2')));
    const changed = layersOf(two).at(-1)!;
    expect(await json(pull)).toMatchObject({
      digest: hostctl(['image', 'digest', two.reference]).stdout.trim(),
      layers: { fetchedLayers: 1, fetchedBytes: changed.size, reusedLayers: 2 },
    });
    expect(takeLayerRequests(one, two)).toEqual([`blobs/${changed.digest}`]);
  });

  test('whose tag moves during the pull gives the image it was resolved to, asked for once', async () => {
    let asked = 0;
    registry.intercept((path) =>
      Promise.resolve(path.replace('manifests/moving', () => `manifests/${++asked === 1 ? 1 : 2}`)),
    );
    const repo = `${scratchDir()}/repo`;
    expect(await json(['image', 'pull', reference('moving'), '--repo', repo])).toMatchObject({
      manifestDigest: one.manifestDigest,
    });
    expect(asked).toBe(1);
  });

  test('is read by every command that takes an image, without a repository', async () => {
    const local = one.reference;
    const bare = `${registry.host}/os:1`;
    for (const [verb, ...rest] of [['dump'], ['cat', '/usr/lib/os-release']] as const) {
      const args = (image: string): string[] => ['image', verb, image, ...rest];
      expect({ verb, stdout: (await run(args(bare))).stdout }).toEqual({ verb, stdout: hostctl(args(local)).stdout });
    }
    expect((await json(['diff', bare, local]))['files']).toEqual([]);
    expect((await run(['image', 'lint', bare])).stdout).toBe(hostctl(['image', 'lint', local]).stdout);
    expect(readdirSync('/var/tmp').filter((name) => name.startsWith('.hostctl.'))).toEqual([]);
  });

  test('is asked for manifest and config alone by "image inspect", which says what was chosen of an index', async () => {
    const index = `${folder}/index`;
    mkdirSync(index);
    execFileSync('cp', ['-r', `${one.directory}/.`, index]);
    const arm = { ...bootableLayout({ directory: index, layout: { architecture: 'arm64' } }).manifest };
    const type = 'application/vnd.oci.image.index.v1+json';
    const platform = (architecture: string, system = 'linux'): Json => ({ platform: { os: system, architecture } });
    const manifests = [
      { ...arm, ...platform('arm64') },
      { ...one.manifest, ...platform('amd64') },
    ];
    const written = writeJson(index, { mediaType: type, value: { schemaVersion: 2, mediaType: type, manifests } });
    writeIndex(index, { schemaVersion: 2, manifests: [written] });
    registry.push(`oci:${index}`, 'os:multi', '--all', '--preserve-digests');
    const inspected = await json(['image', 'inspect', reference('multi')]);
    expect(inspected).toMatchObject({
      manifestDigest: one.manifestDigest,
      platform: 'linux/amd64',
      index: [
        { digest: arm.digest, platform: 'linux/arm64', verdict: 'other-platform' },
        { digest: one.manifestDigest, platform: 'linux/amd64', verdict: 'chosen' },
      ],
    });
    expect(registry.takeRequests()).toEqual([
      'manifests/multi',
      `manifests/${one.manifestDigest}`,
      `blobs/${one.config.digest}`,
    ]);
    const archive = `${folder}/multi.tar`;
    // As they are: the last one is plain.
    const asIs = '--dest-oci-accept-uncompressed-layers';
    execFileSync('skopeo', ['copy', '-q', '--all', asIs, `oci:${index}`, `oci-archive:${archive}`]);
    expect(await json(['image', 'inspect', `oci-archive:${archive}`])).toMatchObject({ index: inspected['index'] });
  });

  test('that fails half way leaves finished layers in the cache, and they are not fetched again', async () => {
    const repo = `${scratchDir()}/repo`;
    const [first, ...others] = layersOf(one).map(({ digest }) => digest);
    const cached = `${repo}/hostctl/cache/blobs/${first!.replace(':', '/')}`;
    registry.intercept(async (path, answer) => {
      if (!others.some((digest) => path.endsWith(digest))) return path;
      while (!existsSync(cached)) await sleep(20);
      answer.writeHead(404).end();
      return undefined;
    });
    const failed = await run(['image', 'pull', reference('1'), '--repo', repo]);
    expect({ exitCode: failed.exitCode, stdout: failed.stdout }).toEqual({ exitCode: 4, stdout: '' });
    registry.intercept(undefined);
    registry.takeRequests();
    expect(await json(['image', 'pull', reference('1'), '--repo', repo])).toMatchObject({
      layers: { fetchedLayers: 2, reusedLayers: 1 },
    });
    expect(takeLayerRequests(one)).not.toContain(`blobs/${first}`);
  });

  test('gives a cached layer again that was damaged since', async () => {
    const repo = `${scratchDir()}/repo`;
    await json(['image', 'pull', reference('1'), '--repo', repo]);
    const { digest, size } = layersOf(one)[2]!;
    const file = `${repo}/hostctl/cache/blobs/${digest.replace(':', '/')}`;
    const bytes = readFileSync(file);
    bytes[Math.floor(size / 2)]! ^= 1;
    writeFileSync(file, bytes);
    registry.takeRequests();
    // With their records nobody would ask for them.
    rmSync(`${repo}/hostctl/layers`, { recursive: true });
    expect(await json(['image', 'pull', reference('1'), '--repo', repo])).toMatchObject({
      layers: { fetchedLayers: 1, fetchedBytes: size },
    });
    expect(takeLayerRequests(one)).toEqual([`blobs/${digest}`]);
    expect(sha256(readFileSync(file))).toBe(digest);
  });

  test('is pulled from by several processes at once into one repository', async () => {
    const repo = `${scratchDir()}/repo`;
    const pulls = ['1', '1', '2'].map((tag) => json(['image', 'pull', reference(tag), '--repo', repo]));
    expect((await Promise.all(pulls)).map(({ manifestDigest }) => manifestDigest)).toEqual([
      one.manifestDigest,
      one.manifestDigest,
      two.manifestDigest,
    ]);
  });

  test('reports progress as JSON Lines on the descriptor that is given', async () => {
    const args = ['image', 'digest', reference('1'), '--progress-fd', '3'];
    const { progress } = (await run(args)) as AsyncResult & { readonly progress: string };
    const events = progress
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Json);
    const total = layersOf(one).reduce((sum, { size }) => sum + size, 0);
    expect(events.filter(({ step }) => step === 'Fetching layers').at(-1)).toEqual({
      step: 'Fetching layers',
      done: total,
      total,
      unit: 'bytes',
    });
  });
});

describe('what skopeo is configured with', () => {
  test('counts: a mirror of registries.conf', async () => {
    const registries = `[[registry]]\nlocation = "registry.example"\n[[registry.mirror]]\nlocation = "${registry.host}"\ninsecure = true\n`;
    const result = await json(['image', 'inspect', 'docker://registry.example/os:1'], { registries });
    expect(result).toMatchObject({
      reference: 'docker://registry.example/os:1',
      manifestDigest: one.manifestDigest,
    });
  });

  test('that hostctl does not know leaves everything to skopeo', async () => {
    const registries = `[[registry]]\nlocation = "${registry.host}"\ninsecure = true\n[[registry]]\nprefix = "*.example"\n`;
    const repo = `${scratchDir()}/repo`;
    const pull = ['image', 'pull', reference('1'), '--repo', repo];
    expect(await json(pull, { registries })).toMatchObject({ digest: digestOfOne, layers: { fetchedLayers: 3 } });
    // Beside the manifest, skopeo asks for "/v2/" each time it starts.
    expect(registry.takeRequests().filter((path) => path === '').length).toBeGreaterThan(1);
    expect(await json(pull, { registries })).toMatchObject({ digest: digestOfOne, layers: { reusedLayers: 3 } });
    expect(takeLayerRequests(one)).toEqual([]);
  });

  test.each(['hostctl/auth.json', 'containers/0/auth.json'])(
    'counts: credentials in /run/%s, which nothing repeats',
    async (file) => {
      const secret = Buffer.from('user:a-secret').toString('base64');
      registry.intercept((path, answer, asked) => {
        if (asked.headers.authorization === `Basic ${secret}`) return Promise.resolve(path);
        answer.writeHead(401, { 'www-authenticate': 'Basic realm="test"' }).end();
        return Promise.resolve(undefined);
      });
      const auth = (word: string): string => JSON.stringify({ auths: { [registry.host]: { auth: word } } });
      const args = ['image', 'inspect', reference('1'), '--debug'];
      const good = await run(args, { run: { [file]: auth(secret) } });
      expect(good).toMatchObject({ exitCode: 0 });
      const bad = await run(args, { run: { [file]: auth(Buffer.from('user:wrong-secret').toString('base64')) } });
      const none = await run(args);
      expect([bad.exitCode, none.exitCode]).toEqual([4, 4]);
      for (const { stdout, stderr } of [good, bad, none]) expect(stdout + stderr).not.toMatch(/secret|dXNlcj/);
    },
  );

  test('counts: policy.json, for what was fetched before too, with exit code 3 and nothing fetched', async () => {
    const policy = { default: [{ type: 'reject' }] };
    const repo = `${scratchDir()}/repo`;
    const pull = ['image', 'pull', reference('1'), '--repo', repo];
    const rejected = await run([...pull, '--json'], { policy });
    expect(rejected.exitCode).toBe(3);
    expect(JSON.parse(rejected.stderr.split('\n').find((line) => line.startsWith('{'))!)).toMatchObject({
      error: { code: 'policy-rejected' },
    });
    expect(takeLayerRequests(one)).toEqual([]);
    await json(pull);
    expect((await run(pull, { policy })).exitCode).toBe(3);
  });

  test.each(['oci-archive', 'dir'] as const)('counts: policy.json for %s: too', async (transport) => {
    const target = `${scratchDir()}/image`;
    execFileSync('skopeo', ['copy', '-q', one.reference, `${transport}:${target}`]);
    const result = await run(['image', 'digest', `${transport}:${target}`], {
      policy: { default: [{ type: 'reject' }] },
    });
    expect({ exitCode: result.exitCode, stdout: result.stdout }).toEqual({ exitCode: 3, stdout: '' });
  });
});

test.each<readonly [string, string, number]>([
  ['a tag that is not there', 'HOST/os:missing', 4],
  ['a digest that is not there', `HOST/os@sha256:${'0'.repeat(64)}`, 4],
  ['an archive that is not there', 'oci-archive:/nothing/there.tar', 7],
  ['an archive that is none', 'oci-archive:/etc/passwd', 7],
  ['a directory that is no image', 'dir:/etc', 7],
  ['a name that storage does not know', 'containers-storage:[vfs@SCRATCH/a+SCRATCH/b]localhost/nothing:1', 7],
])('%s is an error with its exit code', async (_title, image, exitCode) => {
  const result = await run([
    'image',
    'digest',
    image.replace('HOST', registry.host).replaceAll('SCRATCH', scratchDir()),
  ]);
  expect({ exitCode: result.exitCode, stdout: result.stdout }).toEqual({ exitCode, stdout: '' });
  expect(result.stderr).toMatch(/^hostctl: cannot use "/im);
  expect(result.stderr).not.toMatch(/internal error|at .*\.js:/);
});

describe('copies of an image', () => {
  test.each<readonly [string, (scratch: string) => string]>([
    ['oci-archive', (scratch) => `oci-archive:${scratch}/image.tar:latest`],
    ['docker-archive', (scratch) => `docker-archive:${scratch}/image.tar:localhost/os:1`],
    ['dir', (scratch) => `dir:${scratch}/image`],
    ['containers-storage', (scratch) => `containers-storage:[vfs@${scratch}/root+${scratch}/run]localhost/os:1`],
  ])('%s: has the digest of the layout it was made from', async (transport, nameIn) => {
    const name = nameIn(scratchDir());
    // A docker-archive cannot hold zstd.
    execFileSync('skopeo', ['copy', '-q', transport === 'docker-archive' ? gzipped(one) : one.reference, name]);
    const pulled = await run(['image', 'pull', name, '--repo', `${scratchDir()}/repo`]);
    expect({ exitCode: pulled.exitCode, digest: pulled.stdout.trim() }).toEqual({ exitCode: 0, digest: digestOfOne });
    expect(readdirSync('/var/tmp').filter((entry) => entry.startsWith('.hostctl.'))).toEqual([]);
  });
});

/** The same image with every layer in gzip. */
function gzipped({ reference: from }: Layout): string {
  const target = `oci:${scratchDir()}:latest`;
  execFileSync('skopeo', ['copy', '-q', '--dest-compress-format', 'gzip', '--dest-decompress', from, target]);
  return target;
}

describe('a host', () => {
  test('is deployed, upgraded by what changed, and asks for one manifest when nothing is new', async () => {
    const sysroot = scratchDir();
    mkdirSync(`${sysroot}/boot`);
    const host = ['--sysroot', sysroot];
    registry.intercept((path) => Promise.resolve(path.replace('/stable', '/1')));
    await json(['deploy', reference('stable'), '--allow-missing-verity', ...host]);
    registry.takeRequests();
    const upgrade = (...more: string[]): Promise<AsyncResult> => run(['upgrade', ...more, ...host, '--json']);
    expect((await upgrade('--unchanged-exit-77')).exitCode).toBe(77);
    expect((await upgrade('--check')).exitCode).toBe(77);
    expect(registry.takeRequests()).toEqual(['manifests/stable', 'manifests/stable']);

    registry.intercept((path) => Promise.resolve(path.replace('/stable', '/2')));
    expect((await upgrade('--check')).exitCode).toBe(0);
    const changed = layersOf(two).at(-1)!;
    expect(takeLayerRequests(one, two)).toEqual([]);
    const plan = JSON.parse((await upgrade('--plan')).stdout) as { change: Json };
    expect(plan.change).toMatchObject({ fetchBytes: changed.size });
    expect(takeLayerRequests(one, two)).toEqual([`blobs/${changed.digest}`]);
    // What the plan fetched is there.
    expect((await upgrade()).exitCode).toBe(0);
    expect(takeLayerRequests(one, two)).toEqual([]);
    const status = JSON.parse((await run(['status', ...host, '--json'])).stdout) as {
      next: number;
      deployments: Json[];
    };
    expect(status.deployments.find(({ id }) => id === status.next)).toMatchObject({
      image: { reference: reference('stable'), manifestDigest: two.manifestDigest },
    });
    // A blob that no deployment came from went with the upgrade; with gc all go.
    const cache = `${sysroot}/composefs/hostctl/cache/blobs/sha256`;
    expect(readdirSync(cache).length).toBe(8);
    expect((await run(['gc', ...host])).exitCode).toBe(0);
    expect(readdirSync(cache)).toEqual([]);
  });

  test('whose pull was killed has nothing left but cache, which gc removes', async () => {
    const sysroot = scratchDir();
    mkdirSync(`${sysroot}/boot`);
    const last = layersOf(one).at(-1)!.digest;
    let isHeld = false;
    registry.intercept((path) => {
      if (!path.endsWith(last)) return Promise.resolve(path);
      isHeld = true;
      return Promise.resolve(undefined);
    });
    const args = ['deploy', reference('1'), '--allow-missing-verity', '--sysroot', sysroot];
    const { child, result } = startHostctl({ folder, host: registry.host }, args);
    const cache = `${sysroot}/composefs/hostctl/cache`;
    const [first] = layersOf(one);
    while (!isHeld || !existsSync(`${cache}/blobs/${first!.digest.replace(':', '/')}`)) await sleep(20);
    // While it runs, gc leaves the cache alone.
    expect((await run(['gc', '--sysroot', sysroot])).exitCode).toBe(0);
    expect(existsSync(`${cache}/blobs/${first!.digest.replace(':', '/')}`)).toBe(true);
    process.kill(-child.pid!, 'SIGKILL');
    await result;
    expect(readdirSync(`${cache}/blobs/sha256`).filter((name) => name.endsWith('.partial')).length).toBe(1);
    expect((await run(['gc', '--sysroot', sysroot])).exitCode).toBe(0);
    expect(readdirSync(`${cache}/blobs/sha256`)).toEqual([]);
    expect(readdirSync(`${sysroot}/composefs/objects`)).toEqual([]);
  });

  test('that is interrupted while it fetches ends at once with nothing changed', async () => {
    const sysroot = scratchDir();
    mkdirSync(`${sysroot}/boot`);
    const last = layersOf(one).at(-1)!.digest;
    let isHeld = false;
    registry.intercept((path) => {
      isHeld ||= path.endsWith(last);
      return Promise.resolve(path.endsWith(last) ? undefined : path);
    });
    const args = ['deploy', reference('1'), '--allow-missing-verity', '--sysroot', sysroot];
    const { child, result } = startHostctl({ folder, host: registry.host }, args);
    while (!isHeld) await sleep(20);
    process.kill(-child.pid!, 'SIGTERM');
    expect((await result).exitCode).toBe(143);
    expect(readdirSync(`${sysroot}/composefs/hostctl/cache`)).toEqual(['blobs']);
    expect(existsSync(`${sysroot}/boot/loader`)).toBe(false);
  });
});
