/** Seals in a registry, from the publisher to the host: by Debian's registry, which lists nothing beside an image. */

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { startHostctl, startRegistry, type TestRegistry } from '../helpers/registry.ts';
import { testKey, writeKey } from '../helpers/seal-keys.ts';

let registry: TestRegistry;
let folder: string;
let keys: Record<'ours' | 'next' | 'foreign', string>;
const ours = testKey();

beforeAll(async () => {
  folder = mkdtempSync(`${os.tmpdir()}/hostctl-registry-seals-`);
  registry = await startRegistry();
  for (const version of ['1', '2']) {
    const directory = `${folder}/${version}`;
    mkdirSync(directory);
    registry.push(bootableLayout({ directory, version }).reference, `os:${version}`, '--preserve-digests');
  }
  keys = {
    ours: writeKey(folder, 'ours', ours),
    next: writeKey(folder, 'next', testKey('p256')),
    foreign: writeKey(folder, 'foreign', testKey()),
  };
  for (const name of ['sysroot', 'boot']) mkdirSync(`${folder}/${name}`);
}, 60_000);
afterAll(async () => {
  await registry.close();
  rmSync(folder, { recursive: true, force: true });
});

interface Ran {
  readonly exitCode: number | null;
  readonly stderr: string;
  readonly json: Record<string, unknown>;
}

async function hostctl(...args: readonly string[]): Promise<Ran> {
  const host = ['--sysroot', `${folder}/sysroot`, '--boot', `${folder}/boot`, '--json'];
  const { exitCode, stdout, stderr } = await startHostctl({ folder, host: registry.host }, [...host, ...args]).result;
  return { exitCode, stderr, json: exitCode === 0 ? (JSON.parse(stdout) as Ran['json']) : {} };
}

test('an image is sealed where it is, deployed by its seal, and signed by the next key', async () => {
  const image = (version: string): string => `docker://${registry.host}/os:${version}`;
  const deploy = (version: string): Promise<Ran> => hostctl('deploy', '--allow-missing-verity', image(version));
  const verify = (key: string): Promise<Ran> =>
    hostctl('image', 'verify', image('2'), '--key', key.replace(/key$/, 'pub'));
  const first = await deploy('1');
  expect(first).toMatchObject({ exitCode: 0 });
  const keyFolder = `${folder}/sysroot/state/deploy/${String(first.json['digest'])}/etc/hostctl/keys.d`;
  mkdirSync(keyFolder, { recursive: true });
  writeFileSync(`${keyFolder}/ours.pub`, ours.publicPem);

  const refused = await deploy('2');
  expect(refused.stderr).toContain('has no seal');
  expect(refused.exitCode).toBe(3);
  expect((await verify(keys.ours)).stderr).toContain('has no seal');

  const seal = (key: string, ...more: string[]): Promise<Ran> =>
    hostctl('image', 'seal', image('2'), '--key', key, '--hash', 'sha512', ...more);
  // By the right key, for the same manifest in another repository.
  expect(await seal(keys.ours, '--name', 'registry.example/os')).toMatchObject({ exitCode: 0 });
  for (const refusal of [await deploy('2'), await verify(keys.ours)]) {
    expect(refusal).toMatchObject({
      exitCode: 3,
      stderr: expect.stringMatching(/the seal names .*registry\.example\/os/) as string,
    });
  }

  const sealed = await seal(keys.foreign);
  expect(sealed).toMatchObject({ exitCode: 0 });
  expect(sealed.json['keys']).toHaveLength(1);
  expect((await deploy('2')).stderr).toContain('No seal of');
  const signed = await hostctl('image', 'sign', image('2'), '--key', keys.ours);
  expect(signed.json['keys']).toHaveLength(2);
  const second = await deploy('2');
  expect(second).toMatchObject({ exitCode: 0 });
  expect(signed.json['digests']).toContainEqual(expect.stringContaining(String(second.json['digest'])));

  expect((await verify(keys.next)).stderr).toContain('No seal of');
  expect((await hostctl('image', 'sign', image('2'), '--key', keys.next)).json['keys']).toHaveLength(3);
  for (const key of [keys.next, keys.ours]) expect(await verify(key)).toMatchObject({ exitCode: 0 });
});
