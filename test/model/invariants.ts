/** What must be true of the machine after every act, whoever did it. */

import * as fs from 'node:fs';
import type { StatusDocument } from '../../src/cli/view/status-json.ts';
import { fsverityDigest } from '../../src/format/fsverity/digest.ts';
import { fsck } from '../../src/ops/fsck.ts';
import { goodStates, idOf, readEntries, type DiskEntry } from './disk.ts';
import { demand, Violation } from './violation.ts';
import { LOADERS, type Loader, type World } from './world.ts';

export async function checkWorld(world: World): Promise<void> {
  const entries = readEntries(world.path);
  for (const entry of entries) checkWhole(world, entry);
  for (const [path, text] of world.foreign) {
    const file = `${world.path}/boot/${path}`;
    demand(fs.existsSync(file) && fs.readFileSync(file, 'utf8') === text, 'FOREIGN', `"${path}" was touched`);
  }
  const document = truthful(world);
  checkNext(world, entries, document);
  checkRoles(world, entries, document);
  await checkSound(world);
}

/** TRUTH: fsck finds nothing corrupt where nobody damaged anything. */
async function checkSound(world: World): Promise<void> {
  const { findings } = await fsck(world.host, { ...world.options, deep: false, repair: false });
  const [corrupt] = findings.filter(({ isCorrupt }) => isCorrupt);
  demand(corrupt === undefined, 'TRUTH', `fsck: ${corrupt?.message}`);
}

function truthful(world: World): StatusDocument {
  try {
    return world.status();
  } catch (error) {
    throw new Violation(`TRUTH: status fails: ${String(error)}`);
  }
}

/** GC-SAFE: whatever an entry pins can be mounted and booted. */
function checkWhole(world: World, entry: DiskEntry): void {
  const { digest, stateName, fileName, keys } = entry;
  if (digest === undefined || stateName === undefined) return;
  const broken = (what: string): Violation => new Violation(`GC-SAFE: "${fileName}" lacks ${what}`);
  const image = world.imageOf(digest);
  if (image === undefined) throw broken('an image that was ever deployed');
  const object = `objects/${digest.slice(0, 2)}/${digest.slice(2)}`;
  if (linkOf(`${world.path}/composefs/images/${digest}`) !== `../${object}`) throw broken('the link of its image');
  const bytes = read(`${world.path}/composefs/${object}`);
  if (bytes === undefined || fsverityDigest('sha256', bytes) !== digest) throw broken('its image');
  for (const content of image.objects) {
    const name = fsverityDigest('sha256', content);
    const stored = read(`${world.path}/composefs/objects/${name.slice(0, 2)}/${name.slice(2)}`);
    if (stored?.equals(content) !== true) throw broken(`object ${name}`);
  }
  if (read(world.path + (keys.get('linux') ?? ''))?.equals(image.kernelBytes) !== true) throw broken('its kernel');
  if (read(world.path + (keys.get('initrd') ?? ''))?.equals(image.initrdBytes) !== true) throw broken('its initrd');
  const state = `${world.path}/state/deploy/${stateName}`;
  if (!fs.existsSync(`${state}/etc`)) throw broken('its /etc');
  if (linkOf(`${state}/var`) !== '../../os/default/var' || !fs.existsSync(`${state}/var`)) throw broken('its /var');
  if (!fs.existsSync(`${state}/${digest}.origin`)) throw broken('its origin');
}

function read(path: string): Buffer | undefined {
  return fs.existsSync(path) ? fs.readFileSync(path) : undefined;
}

function linkOf(path: string): string | undefined {
  return fs.lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true ? fs.readlinkSync(path) : undefined;
}

/** TRUTH: `next` is what systemd-boot starts; where some GRUB would start another, status says so. */
function checkNext(world: World, entries: readonly DiskEntry[], { next, warnings, deployments }: StatusDocument): void {
  const codes = warnings.map(({ code }) => code);
  const byUapi = world.defaultEntry('systemd-boot');
  const expected = byUapi === undefined ? null : idOf(world.path, byUapi);
  demand(next === expected, 'TRUTH', `next is ${next}, systemd-boot starts ${byUapi?.fileName ?? 'nothing'}`);
  if (deployments.length === 0) return;
  const foreign = byUapi !== undefined && byUapi.digest === undefined;
  demand(
    codes.includes('foreign-default') === foreign,
    'TRUTH',
    `foreign default: ${foreign}, warned: ${codes.join()}`,
  );
  // GRUB counts nothing down, so a used-up entry is only ever found beside systemd-boot.
  if (entries.some(({ fileName }) => /\+0(-\d+)?\.conf$/.test(fileName))) return;
  const others = (Object.keys(LOADERS) as Loader[]).filter(
    (loader) => world.defaultEntry(loader)?.fileName !== byUapi?.fileName,
  );
  const warned = codes.includes('loader-dependent') || foreign;
  demand(
    others.length === 0 || warned,
    'TRUTH',
    `${others.join()} would not start "${byUapi?.fileName}", and no warning`,
  );
  demand(!codes.includes('loader-dependent') || others.length > 0, 'TRUTH', 'a warning of loaders that all agree');
}

function checkRoles(world: World, entries: readonly DiskEntry[], document: StatusDocument): void {
  const { booted, rollback, next, deployments } = document;
  const stateName = world.running?.stateName;
  const expected = stateName === undefined ? null : idOf(world.path, { stateName, digest: stateName.slice(0, 64) });
  demand(booted === expected, 'TRUTH', `booted is ${booted}, in truth ${expected}`);
  const good = [...goodStates(entries)].map((name) => idOf(world.path, { stateName: name, digest: name.slice(0, 64) }));
  demand(
    rollback === null || (good.includes(rollback) && rollback !== next),
    'TRUTH',
    `rollback would go to ${rollback}`,
  );
  demand(
    rollback !== null || good.every((id) => id === next),
    'FALLBACK',
    `no rollback, though ${good.join()} are good and ${next} is next`,
  );
  for (const { id, state, problems, pinned } of deployments) {
    demand(pinned === (id !== null && world.pinned.has(id)), 'TRUTH', `${id} is shown as pinned: ${pinned}`);
    demand((state === 'good') === good.includes(id), 'TRUTH', `${id} is shown as ${state}`);
    const broken = problems.filter(({ code }) => !['entry-missing', 'boot-failed'].includes(code));
    demand(broken.length === 0, 'TRUTH', `${id} is whole, status says ${broken.map(({ code }) => code).join()}`);
  }
}
