/**
 * Each file of the state, damaged in each way: `status` lives and shows the others as before, and the next deployment
 * succeeds or says why not. What must happen follows from what was damaged and how, not from a list of cases.
 */

import * as fs from 'node:fs';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { DeploymentDocument } from '../../src/cli/view/status-json.ts';
import { withChecksum } from '../../src/format/checksum.ts';
import { fsverityDigest } from '../../src/format/fsverity/digest.ts';
import { deploy, type DeployResult } from '../../src/ops/deploy.ts';
import { exitCodeOf } from '../../src/cli/exit-codes.ts';
import { gc } from '../../src/ops/gc.ts';
import { revokeImages } from '../../src/ops/revoke-image.ts';
import { sealImage } from '../../src/ops/seal-image.ts';
import { upgrade, type UpgradeResult } from '../../src/ops/upgrade.ts';
import { explainSystemError } from '../../src/sys/files.ts';
import { memoryDir } from '../helpers/memory-dir.ts';
import { knownKey, writeKey } from '../helpers/seal-keys.ts';
import { testHost } from '../helpers/test-host.ts';
import { entriesPath, readEntries, readFacts, type DiskEntry } from './disk.ts';
import { modelImages, type ModelImage } from './images.ts';
import { choose } from './verbs.ts';
import { World } from './world.ts';

vi.mock('../../src/deploy/sysroot.ts', async (original) => (await import('./running.ts')).asRunning(await original()));

const DAMAGES: Readonly<Record<string, (path: string) => void>> = {
  deleted: (path) => fs.rmSync(path, { recursive: true, force: true }),
  'truncated to nothing': (path) => rewrite(path, () => Buffer.alloc(0)),
  'cut in half': (path) => rewrite(path, (bytes) => bytes.subarray(0, bytes.length >> 1)),
  garbled: (path) => rewrite(path, (bytes) => Buffer.alloc(bytes.length, '\0\xff=[', 'latin1')),
  'replaced by a directory': (path) => replace(path, () => fs.mkdirSync(path)),
  'replaced by a dangling symlink': (path) => replace(path, () => fs.symlinkSync('nowhere', path)),
};
/** What leaves nothing to read at the name. */
const IS_GONE = ['deleted', 'replaced by a directory', 'replaced by a dangling symlink'];

interface Target {
  /** Below the sysroot; of the newest deployment, which boots next. */
  readonly path: (damaged: DiskEntry) => string;
  /**
   * `gone`: shown when it is missing; `always`: also when its content is not what it was; `broken`: only then, since
   * without it there is nothing to tell. The rest is for `fsck`, or for nobody.
   */
  readonly shown: 'gone' | 'always' | 'broken' | 'not by status';
  /** Its content is a problem of its own already, which the damage takes the place of. */
  readonly isProblem?: true;
}

const TARGETS: Readonly<Record<string, Target>> = {
  origin: { path: ({ digest, stateName }) => `state/deploy/${stateName}/${digest}.origin`, shown: 'always' },
  'etc directory': { path: ({ stateName }) => `state/deploy/${stateName}/etc`, shown: 'gone' },
  'var link': { path: ({ stateName }) => `state/deploy/${stateName}/var`, shown: 'always' },
  'staged record': { path: () => 'state/hostctl/staged', shown: 'always' },
  'finalize failure': { path: () => 'state/hostctl/finalize-failure', shown: 'broken', isProblem: true },
  'left record': { path: () => 'state/hostctl/left', shown: 'broken' },
  'history record': { path: () => 'state/hostctl/history/00000002', shown: 'broken' },
  'boot failure': { path: ({ digest }) => `state/hostctl/boot-failure-${digest}`, shown: 'broken', isProblem: true },
  floor: { path: () => 'state/hostctl/floor', shown: 'broken' },
  'copy of the floor': { path: () => 'state/hostctl/floor-copy', shown: 'broken' },
  seal: { path: ({ digest }) => `composefs/seals/${digest}`, shown: 'always' },
  'signatures of the seal': { path: ({ digest }) => `composefs/seals/${digest}.sig`, shown: 'always' },
  'list of revoked images': {
    path: ({ stateName }) => `state/deploy/${stateName}/etc/hostctl/revoked`,
    shown: 'broken',
  },
  'list for the initramfs': { path: () => 'composefs/seals/revoked', shown: 'broken' },
  'lock holder': { path: () => 'state/hostctl/lock-holder', shown: 'not by status' },
  'meta.json': { path: () => 'composefs/meta.json', shown: 'always' },
  'image link': { path: ({ digest }) => `composefs/images/${digest}`, shown: 'always' },
  ref: { path: () => 'composefs/images/refs/hostctl/2', shown: 'not by status' },
  'image object': {
    path: ({ digest }) => `composefs/objects/${digest?.slice(0, 2)}/${digest?.slice(2)}`,
    shown: 'gone',
  },
  kernel: { path: ({ keys }) => keys.get('linux')!.slice(1), shown: 'gone' },
  initrd: { path: ({ keys }) => keys.get('initrd')!.slice(1), shown: 'gone' },
  entry: { path: ({ fileName }) => `boot/loader/entries/${fileName}`, shown: 'always' },
};

const cases = Object.keys(TARGETS).flatMap((target) => Object.keys(DAMAGES).map((damage) => [target, damage] as const));

describe('a state in which one thing is damaged', () => {
  let images: readonly ModelImage[];
  const digests = new Map<ModelImage, string>();
  const directory = memoryDir();
  let template: World;

  const run = (world: World, image: string, stage = false): Promise<DeployResult> =>
    deploy(world.host, {
      ...world.options,
      image,
      kargs: [],
      algorithm: 'sha256',
      tries: 0,
      allowMissingVerity: true,
      stage,
    });

  beforeAll(async () => {
    images = modelImages(directory);
    const key = knownKey('model');
    const keys = [writeKey(directory, 'model', key)];
    for (const { reference } of images) {
      await sealImage(testHost(), {
        ...{ image: reference, keys, name: undefined, securityVersion: 0, expires: undefined, algorithms: ['sha256'] },
      });
    }
    template = new World('systemd-boot', images, digests);
    const runMoved = (image: number, stage = false): Promise<DeployResult> => {
      template.moveReference(choose(images, image));
      return run(template, template.movingReference, stage);
    };
    const first = (await runMoved(0)).digest;
    digests.set(images[0]!, first);
    // From here on the host takes sealed images only.
    const etc = `${template.path}/state/deploy/${first}/etc/hostctl`;
    fs.mkdirSync(`${etc}/keys.d`, { recursive: true });
    fs.writeFileSync(`${etc}/keys.d/model.pub`, key.publicPem);
    const list = { file: `${etc}/revoked`, digests: [`v1-sha256-12:${'0'.repeat(64)}`], keys };
    revokeImages(list);
    const { digest } = await runMoved(3);
    digests.set(images[3]!, digest);
    await runMoved(1, true);
    template.moveReference(choose(images, 4));
    const state = `${template.path}/state/hostctl`;
    revokeImages({ ...list, file: `${template.path}/composefs/seals/revoked` });
    const floor = withChecksum('[floor]\nversion = 0\n', ';');
    for (const copy of ['floor', 'floor-copy']) fs.writeFileSync(`${state}/${copy}`, floor);
    fs.writeFileSync(`${state}/finalize-failure`, '[failure]\nid = 3\ncode = io\nmessage = The disk\n');
    fs.writeFileSync(`${state}/left`, '[left]\nid = 9\nmanifest-digest = sha256:00\n');
    fs.writeFileSync(`${state}/boot-failure-${digest}`, 'version=1\nreason=mount-failed\nmessage=No\n');
  });

  /** What the first deployment, the one that runs, needs: its entry, kernel, image, every object and its state. */
  const partsOf = (world: World, entry: DiskEntry): readonly string[] => {
    const { digest = '', stateName, keys, fileName } = entry;
    const image = world.imageOf(digest);
    const objects = [digest, ...(image?.objects ?? []).map((content) => fsverityDigest('sha256', content))];
    return [
      `boot/loader/entries/${fileName}`,
      keys.get('linux')!.slice(1),
      keys.get('initrd')!.slice(1),
      `composefs/images/${digest}`,
      ...objects.map((name) => `composefs/objects/${name.slice(0, 2)}/${name.slice(2)}`),
      ...['', '/etc', '/var', `/${digest}.origin`].map((name) => `state/deploy/${stateName}${name}`),
    ];
  };

  test.each(cases)('%s %s: gc takes nothing from what runs, and an upgrade succeeds', async (name, damage) => {
    const target = TARGETS[name]!;
    const world = new World('systemd-boot', images, digests);
    try {
      fs.cpSync(template.path, world.path, { recursive: true, verbatimSymlinks: true });
      const entry = readEntries(world.path).find(({ fileName }) => fileName === 'hostctl-00000002.conf')!;
      world.running = { cmdline: entry.keys.get('options') ?? '', stateName: entry.stateName };
      const damaged = target.path(entry);
      DAMAGES[damage]!(`${world.path}/${damaged}`);
      const before = readFacts(world.path);
      const parts = partsOf(world, entry).filter((path) => before.has(path));

      const outcome = await gc(world.host, { ...world.options, keep: 1, dryRun: false }).then(
        () => undefined,
        (error: unknown) => explainSystemError(error, 'gc').code,
      );
      const after = readFacts(world.path);
      expect(parts.filter((path) => before.get(path) !== after.get(path))).toEqual([]);
      if (outcome !== undefined) {
        expect([7, 9]).toContain(exitCodeOf(outcome));
        expect([...before.keys()].filter((path) => !after.has(path))).toEqual([]);
      }
      // Without its description nobody can tell what is in a repository.
      if (name === 'meta.json') return;
      const { changed, id } = await upgradeTo(world, undefined);
      const { staged, deployments } = world.status();
      expect({ changed, staged }).toEqual({ changed: true, staged: id });
      const made = deployments.find((deployment) => deployment.id === id);
      expect(made?.image?.manifestDigest).toBe(choose(images, 4).manifestDigest);
      expect(parts.filter((path) => readFacts(world.path).get(path) !== before.get(path))).toEqual([]);
    } finally {
      world.remove();
    }
  });

  test.each(Object.keys(DAMAGES))('the only origin %s: an upgrade asks for the image, and takes it', async (damage) => {
    const world = new World('systemd-boot', images, digests);
    try {
      const { digest } = await run(world, choose(images, 0).reference);
      const [entry] = readEntries(world.path);
      world.running = { cmdline: entry?.keys.get('options') ?? '', stateName: entry?.stateName };
      DAMAGES[damage]!(`${world.path}/state/deploy/${digest}/${digest}.origin`);
      await expect(upgradeTo(world, undefined)).rejects.toMatchObject({
        code: 'deployment-not-found',
        hint: expect.stringContaining('hostctl switch IMAGE') as string,
      });
      const { changed, id } = await upgradeTo(world, choose(images, 4).reference);
      expect({ changed, staged: world.status().staged }).toEqual({ changed: true, staged: id });
    } finally {
      world.remove();
    }
  });

  /** Of what is tracked when no image is given. */
  const upgradeTo = (world: World, image: string | undefined): Promise<UpgradeResult> =>
    upgrade(world.host, {
      ...world.options,
      image,
      kargs: [],
      algorithm: 'sha256',
      tries: 3,
      allowMissingVerity: true,
      allowDowngrade: true,
      etcPolicy: {},
      keep: 2,
      downloadOnly: false,
    });

  afterAll(() => {
    template.remove();
    fs.rmSync(directory, { recursive: true });
  });

  test.each(cases)('%s %s: the others are seen, and a deployment is made or refused', async (name, damage) => {
    const target = TARGETS[name]!;
    const world = new World('systemd-boot', images, digests);
    try {
      fs.cpSync(template.path, world.path, { recursive: true, verbatimSymlinks: true });
      const entry = readEntries(world.path).find(({ fileName }) => fileName === 'hostctl-00000002.conf')!;
      const path = `${world.path}/${target.path(entry)}`;
      const wasDirectory = fs.lstatSync(path).isDirectory();
      const before = world.status();
      DAMAGES[damage]!(path);

      const after = world.status();
      const isDirectory = fs.lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
      const isGone = IS_GONE.includes(damage) && !(wasDirectory && isDirectory);
      const isShown =
        target.shown === 'always' ||
        (target.shown === 'gone' && isGone) ||
        (target.shown === 'broken' && damage !== 'deleted');
      const added = problemCount(after) - problemCount(before);
      if (isShown) expect(added).toBeGreaterThanOrEqual(target.isProblem === true ? 0 : 1);
      // The description of the repository is everybody's.
      if (name !== 'meta.json') expect(deploymentOf(after, 1)).toEqual(deploymentOf(before, 1));

      const outcome = await run(world, choose(images, 4).reference).catch(
        (error: unknown) => explainSystemError(error, 'deploy').code,
      );
      if (typeof outcome === 'string') {
        expect(outcome).not.toBe('internal');
        expect(fs.readdirSync(entriesPath(world.path)).filter((file) => file.includes('00000004'))).toEqual([]);
      } else expect(world.status().next).toBe(outcome.id);
      // Without its description nobody can tell what is in a repository; everything else is made anew.
      if (name !== 'meta.json') expect(outcome).toMatchObject({ changed: true });
      if (name !== 'meta.json') expect(deploymentOf(world.status(), 1)).toEqual(deploymentOf(before, 1));
    } finally {
      world.remove();
    }
  });
});

/** But for its roles, which depend on what became of the others. */
function deploymentOf(
  document: { readonly deployments: readonly DeploymentDocument[] },
  id: number,
): DeploymentDocument | undefined {
  const found = document.deployments.find((deployment) => deployment.id === id);
  return found === undefined ? undefined : { ...found, roles: [] };
}

function problemCount({ deployments, warnings }: ReturnType<World['status']>): number {
  return deployments.reduce((sum, { problems }) => sum + problems.length, warnings.length);
}

function rewrite(path: string, edit: (bytes: Buffer) => Buffer): void {
  const stat = fs.lstatSync(path);
  if (stat.isDirectory()) return replace(path, () => fs.writeFileSync(path, edit(Buffer.from('a directory'))));
  const bytes = stat.isSymbolicLink() ? Buffer.from(fs.readlinkSync(path)) : fs.readFileSync(path);
  replace(path, () => fs.writeFileSync(path, edit(bytes)));
}

function replace(path: string, make: () => void): void {
  fs.rmSync(path, { recursive: true, force: true });
  make();
}
