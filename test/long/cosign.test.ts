/**
 * Signatures in the form of cosign 2 that skopeo of Debian 13 makes as it pushes: hostctl and skopeo, each by the same
 * policy, take the same images and refuse the same.
 */

import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { setup } from '../helpers/build-program.ts';
import { startHostctl, startRegistry, type TestRegistry } from '../helpers/registry.ts';
import { inSidRoot, trixieRoot } from '../helpers/sid-root.ts';

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const SIGNERS = ['ours', 'foreign'] as const;
/** What each image is signed by; the last is unsigned at first, and then has the first one's signature beside it. */
const IMAGES = { ours: 'ours', foreign: 'foreign', none: undefined } as const;
type Image = keyof typeof IMAGES;

let registry: TestRegistry;
let folder: string;
let root: string;
const manifests = new Map<Image, string>();

const nameOf = (image: Image): string => `${registry.host}/os:${image}`;

beforeAll(async () => {
  setup();
  folder = mkdtempSync(`${os.tmpdir()}/hostctl-cosign-`);
  for (const name of ['sysroot', 'boot', 'keys']) mkdirSync(`${folder}/${name}`);
  registry = await startRegistry();
  root = await trixieRoot();
  const sign = Object.entries(IMAGES).map(([image, key]) => {
    const options =
      key === undefined ? '' : `--sign-by-sigstore-private-key ${key}.private --sign-passphrase-file word`;
    return `${SKOPEO} --insecure-policy copy -q --preserve-digests --dest-tls-verify=false ${options} oci:${image} docker://${nameOf(image as Image)}`;
  });
  const make = SIGNERS.map((name) => `skopeo generate-sigstore-key --passphrase-file word --output-prefix ${name}`);
  await inSidRoot(
    root,
    [...make, ...sign].join(' && '),
    (batch) => {
      writeSkopeoFiles(batch);
      for (const image of Object.keys(IMAGES)) {
        const directory = `${batch}/${image}`;
        mkdirSync(directory);
        manifests.set(image as Image, bootableLayout({ directory, version: image }).manifestDigest);
      }
      return Promise.resolve();
    },
    (batch) => {
      for (const name of SIGNERS) cpSync(`${batch}/${name}.pub`, `${folder}/keys/${name}.pub`);
      return Promise.resolve();
    },
  );
});
afterAll(async () => {
  await registry.close();
  rmSync(folder, { recursive: true, force: true });
});

const SKOPEO = 'skopeo --registries.d registries.d';

function writeSkopeoFiles(batch: string): void {
  writeFileSync(`${batch}/word`, 'a passphrase\n');
  mkdirSync(`${batch}/registries.d`);
  writeFileSync(`${batch}/registries.d/all.yaml`, 'default-docker:\n  use-sigstore-attachments: true\n');
}

function policy(keyPath: string): string {
  const requirement = { type: 'sigstoreSigned', keyPath };
  return JSON.stringify({
    default: [{ type: 'reject' }],
    transports: { docker: { [`${registry.host}/os`]: [requirement] } },
  });
}

/** Whether skopeo copies the image by a policy that asks for this key. */
async function isTakenBySkopeo(image: Image, signer: (typeof SIGNERS)[number]): Promise<boolean> {
  const copy = `${SKOPEO} --policy policy.json copy -q --src-tls-verify=false docker://${nameOf(image)} dir:out`;
  return inSidRoot(
    root,
    `{ ${copy} && echo taken || echo refused; } >answer`,
    (batch) => {
      writeSkopeoFiles(batch);
      cpSync(`${folder}/keys/${signer}.pub`, `${batch}/signer.pub`);
      writeFileSync(`${batch}/policy.json`, policy(`${batch.slice(root.length)}/signer.pub`));
      return Promise.resolve();
    },
    (batch) => Promise.resolve(readFileSync(`${batch}/answer`, 'utf8').trim() === 'taken'),
  );
}

async function deploy(
  image: Image,
): Promise<{ readonly exitCode: number | null; readonly stderr: string; digest: string }> {
  const host = ['--sysroot', `${folder}/sysroot`, '--boot', `${folder}/boot`, '--json', '--allow-missing-verity'];
  const { exitCode, stdout, stderr } = await startHostctl({ folder, host: registry.host }, [
    ...['deploy', ...host, `docker://${nameOf(image)}`],
  ]).result;
  return { exitCode, stderr, digest: exitCode === 0 ? (JSON.parse(stdout) as { digest: string }).digest : '' };
}

/** Puts the signature of one image beside another. */
async function moveSignature(from: Image, to: Image): Promise<void> {
  const url = (image: Image): string =>
    `http://${registry.host}/v2/os/manifests/${manifests.get(image)!.replace(':', '-')}.sig`;
  const answer = await fetch(url(from), { headers: { accept: MANIFEST } });
  expect(answer.status).toBe(200);
  const put = await fetch(url(to), {
    method: 'PUT',
    headers: { 'content-type': MANIFEST },
    body: await answer.arrayBuffer(),
  });
  expect(put.status).toBe(201);
}

test('hostctl takes what skopeo signed by a key of the policy, and what skopeo refuses it refuses too', async () => {
  const first = await deploy('none');
  expect(first).toMatchObject({ exitCode: 0 });
  const etc = `${folder}/sysroot/state/deploy/${first.digest}/etc/hostctl`;
  mkdirSync(etc, { recursive: true });
  cpSync(`${folder}/keys/ours.pub`, `${etc}/cosign.pub`);
  writeFileSync(`${etc}/policy.json`, policy('/etc/hostctl/cosign.pub'));

  for (const [image, why] of [
    ['none', 'has no signature of cosign'],
    ['foreign', 'no key of the policy made it'],
  ] as const) {
    expect(await isTakenBySkopeo(image, 'ours')).toBe(false);
    const { exitCode, stderr } = await deploy(image);
    expect(stderr).toContain(why);
    expect(exitCode).toBe(3);
  }
  await moveSignature('ours', 'none');
  expect(await isTakenBySkopeo('none', 'ours')).toBe(false);
  const moved = await deploy('none');
  expect(moved.stderr).toContain(`it is for ${manifests.get('ours')}`);
  expect(moved.exitCode).toBe(3);

  expect(await isTakenBySkopeo('ours', 'ours')).toBe(true);
  expect(await deploy('ours')).toMatchObject({ exitCode: 0 });
  expect(await isTakenBySkopeo('ours', 'foreign')).toBe(false);
});
