/** Layers that are recorded are not read again, and whatever is wrong with a record or an object, the image is the same. */

import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { gc } from '../../src/ops/gc.ts';
import { planUpgrade } from '../../src/ops/upgrade.ts';
import { bless } from '../helpers/bless.ts';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import type { BuiltLayout } from '../helpers/oci-builder.ts';
import { scratchSysroot, type ScratchSysroot } from '../helpers/scratch-sysroot.ts';
import { snapshot } from '../helpers/snapshot.ts';
import { tarFile } from '../helpers/tar-builder.ts';
import { upgradeOptions } from '../helpers/upgrade-options.ts';

type Layout = BuiltLayout & { readonly reference: string };

/** Two layers that all versions have in common, and one of its own, which hides a file of the lowest. */
function image(version: number, hidden = true): Layout {
  const more = [
    tarFile('usr/bin/version', Buffer.alloc(4000, `version ${version}`)),
    ...(hidden ? [tarFile('etc/motd', Buffer.alloc(300, `motd ${version}`))] : []),
  ];
  return bootableLayout({ version: '1', more });
}

interface Manifest {
  readonly layers: readonly { readonly digest: string }[];
}

function blobs({ directory, manifestDigest }: Layout): string[] {
  const manifest = readFileSync(`${directory}/blobs/${manifestDigest.replace(':', '/')}`, 'utf8');
  return (JSON.parse(manifest) as Manifest).layers.map(
    ({ digest }) => `${directory}/blobs/${digest.replace(':', '/')}`,
  );
}

/** Leaves of an image the blob of its last layer alone. */
function withoutLower(layout: Layout): string {
  for (const blob of blobs(layout).slice(0, 2)) rmSync(blob);
  return layout.reference;
}

const recordsOf = ({ path }: ScratchSysroot): string => `${path}/composefs/hostctl/layers`;
const records = (sysroot: ScratchSysroot): string[] => readdirSync(recordsOf(sysroot));
const unfinished = ({ path }: ScratchSysroot): string[] =>
  readdirSync(`${path}/composefs`).filter((name) => name.endsWith('.tmp'));
const collect = (sysroot: ScratchSysroot, keep = 3) => gc(sysroot.host, { sysroot: sysroot.path, keep, dryRun: false });

/** The digest that an image has where nothing is known. */
async function digestOf(layout: Layout): Promise<string> {
  return (await scratchSysroot().deploy(layout.reference)).digest;
}

function objectOf(sysroot: ScratchSysroot, start: string): string {
  const objects = `${sysroot.path}/composefs/objects`;
  const found = readdirSync(objects, { recursive: true, encoding: 'utf8' })
    .map((name) => `${objects}/${name}`)
    .filter((file) => statSync(file).isFile() && readFileSync(file, 'latin1').startsWith(start));
  expect(found).toHaveLength(1);
  return found[0]!;
}

describe('layers that are recorded', () => {
  test('are not read again, also where gc took what upper layers hide', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(image(1).reference);
    expect(records(sysroot)).toHaveLength(3);
    await collect(sysroot);
    const second = image(2);
    const digest = await digestOf(second);
    const result = await sysroot.deploy(withoutLower(second));
    expect(result).toMatchObject({ changed: true, id: 2, digest });
    expect(result.objects).toMatchObject({ writtenObjects: 3 });
    expect(result.objects.reusedObjects).toBeGreaterThan(3);
    expect(records(sysroot)).toHaveLength(4);
  });

  test('make the same image when all of them are', async () => {
    const sysroot = scratchSysroot();
    const layout = image(1);
    const { digest } = await sysroot.deploy(layout.reference);
    await sysroot.deploy(image(2).reference);
    for (const blob of blobs(layout)) rmSync(blob);
    expect(await sysroot.deploy(layout.reference)).toMatchObject({ changed: true, id: 3, digest });
  });

  test('are read where an object that the image needs is missing', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(image(1).reference);
    await collect(sysroot);
    const second = image(2, false);
    const digest = await digestOf(second);
    // The default message, which the first version hides, is in none of its images.
    expect((await sysroot.deploy(second.reference)).digest).toBe(digest);
    expect(readFileSync(objectOf(sysroot, 'The default message'), 'latin1')).toMatch(/in the store\.\n$/);
  });

  test('are read where an object has lost bytes, and that is whole again', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(image(1).reference);
    const object = objectOf(sysroot, 'true');
    rmSync(object);
    writeFileSync(object, 'true');
    const second = image(2);
    const digest = await digestOf(second);
    expect((await sysroot.deploy(second.reference)).digest).toBe(digest);
    expect(statSync(object).size).toBe(3000);
  });

  test('cannot do without a blob that is gone when an object is missing', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(image(1).reference);
    rmSync(objectOf(sysroot, 'true'));
    const before = snapshot(sysroot.path);
    await expect(sysroot.deploy(withoutLower(image(2)))).rejects.toMatchObject({ code: 'image-not-found' });
    // Directories of objects stay, as with any command that fails.
    const isKept = (name: string): boolean => !/composefs\/objects\/..$/.test(name);
    const names = (of: object): string[] => Object.keys(of).filter(isKept).sort();
    expect(names(snapshot(sysroot.path))).toEqual(names(before));
  });

  test.each<[string, (file: string) => void]>([
    ['a flipped bit', (file) => edit(file, (bytes) => (bytes[bytes.length >> 1]! ^= 1))],
    ['another version', (file) => edit(file, (bytes) => bytes.write('2', 14))],
    ['a lost end', (file) => writeFileSync(file, readFileSync(file).subarray(0, 100))],
    ['nothing in it', (file) => writeFileSync(file, '')],
  ])('are read and recorded again where the record has %s', async (_, damage) => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(image(1).reference);
    const whole = snapshot(recordsOf(sysroot));
    for (const name of records(sysroot)) damage(`${recordsOf(sysroot)}/${name}`);
    const second = image(2);
    const digest = await digestOf(second);
    expect((await sysroot.deploy(second.reference)).digest).toBe(digest);
    const lower = blobs(second).length - 1;
    const after = snapshot(recordsOf(sysroot));
    expect(Object.keys(whole).filter((name) => JSON.stringify(after[name]) === JSON.stringify(whole[name])).length).toBe(lower); // prettier-ignore
    await expect(sysroot.deploy(withoutLower(image(3)))).resolves.toMatchObject({ id: 3 });
  });

  test('are read where a directory has the name of the record', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(image(1).reference);
    for (const name of records(sysroot)) {
      rmSync(`${recordsOf(sysroot)}/${name}`);
      mkdirSync(`${recordsOf(sysroot)}/${name}/x`, { recursive: true });
    }
    expect(await sysroot.deploy(image(2).reference)).toMatchObject({ changed: true });
    expect(unfinished(sysroot)).toEqual([]);
  });

  test('stay as long as an image that was made of them, and no longer', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(image(1).reference);
    bless(sysroot, 1);
    const one = records(sysroot);
    await sysroot.deploy(image(2).reference);
    bless(sysroot, 2);
    const both = records(sysroot);
    expect(both).toHaveLength(4);
    await collect(sysroot, 2);
    expect(records(sysroot)).toEqual(both);
    writeFileSync(`${sysroot.path}/composefs/.layer.0123456789abcdef.tmp`, 'left');
    await sysroot.deploy(image(3).reference);
    bless(sysroot, 3);
    const { items } = await collect(sysroot, 2);
    expect(items.filter(({ kind }) => kind === 'layer-record')).toHaveLength(1);
    expect(unfinished(sysroot)).toEqual([]);
    expect(records(sysroot).filter((name) => one.includes(name))).toHaveLength(2);
    expect(records(sysroot)).toHaveLength(4);
  });

  test('leave no record of an image that was refused, or only planned', async () => {
    const sysroot = scratchSysroot();
    const refused = bootableLayout({ kernels: [], more: [tarFile('usr/bin/x', Buffer.alloc(100))] });
    await expect(sysroot.deploy(refused.reference)).rejects.toMatchObject({ code: 'image-not-bootable' });
    expect(existsSync(recordsOf(sysroot))).toBe(false);
    expect(unfinished(sysroot)).toEqual([]);
    const { reference, directory } = image(1);
    await sysroot.deploy(reference);
    const before = records(sysroot);
    rmSync(directory, { recursive: true });
    mkdirSync(directory);
    const more = [tarFile('usr/bin/version', Buffer.alloc(4000, 'version 2'))];
    bootableLayout({ directory, version: '1', more });
    const plan = await planUpgrade(sysroot.host, upgradeOptions(sysroot));
    expect(plan.change).not.toBeNull();
    expect(records(sysroot)).toEqual(before);
  });
});

function edit(file: string, change: (bytes: Buffer) => void): void {
  const bytes = readFileSync(file);
  change(bytes);
  writeFileSync(file, bytes);
}
