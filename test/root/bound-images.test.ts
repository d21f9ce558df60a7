/** Bound images: a deployment has all that its image names or is not made, and keeps its own. */

import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { describe, expect, test, vi } from 'vitest';
import type * as sysrootModule from '../../src/deploy/sysroot.ts';
import { deleteDeployment } from '../../src/ops/delete-deployment.ts';
import { digestImage } from '../../src/ops/digest-image.ts';
import { findStored } from '../../src/ops/find-image.ts';
import { fsck } from '../../src/ops/fsck.ts';
import { gc } from '../../src/ops/gc.ts';
import { changeDeploymentKargs } from '../../src/ops/kargs.ts';
import { rollback } from '../../src/ops/rollback.ts';
import { unstage } from '../../src/ops/unstage.ts';
import { planUpgrade, upgrade } from '../../src/ops/upgrade.ts';
import { bless } from '../helpers/bless.ts';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { ociLayout } from '../helpers/oci-builder.ts';
import { hostctl } from '../helpers/run-program.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { scratchSysroot, type ScratchSysroot } from '../helpers/scratch-sysroot.ts';
import { snapshot } from '../helpers/snapshot.ts';
import { tar, tarDir, tarFile, tarSymlink } from '../helpers/tar-builder.ts';
import { testHost } from '../helpers/test-host.ts';
import { upgradeOptions } from '../helpers/upgrade-options.ts';

/** Whether scratch sysroots are what the machine runs from. */
const machine = vi.hoisted(() => ({ runs: false }));
vi.mock('../../src/deploy/sysroot.ts', async (original) => {
  const real = await original<typeof sysrootModule>();
  const openSysroot: typeof real.openSysroot = (host, options) => {
    const sysroot = real.openSysroot(host, options);
    return machine.runs ? { ...sysroot, isRunning: true } : sysroot;
  };
  return { ...real, openSysroot };
});

const QUADLETS = 'usr/share/containers/systemd';
const BOUND = 'usr/lib/bootc/bound-images.d';

/** An application image at one reference, whose content changes in the course of time. */
function app(): {
  readonly reference: string;
  readonly publish: (version: number) => Promise<string>;
  readonly take: () => void;
} {
  const directory = scratchDir();
  const reference = `oci:${directory}`;
  const take = (): void => {
    rmSync(directory, { recursive: true });
    mkdirSync(directory);
  };
  return {
    reference,
    take,
    async publish(version) {
      take();
      const layer = tar([tarDir('usr'), tarFile('usr/app', Buffer.alloc(6000, `${reference} ${version}`))]);
      ociLayout(directory, { layers: [{ tar: layer, compression: 'gzip' }] });
      const options = { image: reference, algorithm: 'sha512', formatVersion: 1, bootable: false } as const;
      return (await digestImage(testHost(), options)).digest;
    },
  };
}

/** A host image that is bound to these. */
function hostImage(version: number, references: readonly string[], directory = scratchDir()): string {
  const more = references.flatMap((reference, index) => {
    const name = index % 2 === 0 ? `app${index}.image` : `app${index}.container`;
    const section = index % 2 === 0 ? 'Image' : 'Container';
    return [
      tarFile(
        `${QUADLETS}/${name}`,
        `# What this host runs, long enough to be an object.\n[${section}]\nImage=${reference}\n`,
      ),
      tarSymlink(
        `${BOUND}/${name}`,
        index % 2 === 0 ? `/${QUADLETS}/${name}` : `../../../share/containers/systemd/${name}`,
      ),
    ];
  });
  return bootableLayout({ version: String(version), directory, more }).reference;
}

/** Who held the lock last, and directories for objects, which gc removes when they are empty. */
function withoutTraces(listing: Record<string, string>): Record<string, string> {
  const isTrace = (name: string): boolean =>
    /^(state\/hostctl(\/lock-holder)?|composefs\/objects\/[0-9a-f]{2})$/.test(name);
  return Object.fromEntries(Object.entries(listing).filter(([name]) => !isTrace(name)));
}

function images(sysroot: ScratchSysroot): string[] {
  return readdirSync(`${sysroot.path}/composefs/images`).filter((name) => name !== 'refs');
}

const collect = (sysroot: ScratchSysroot, keep = 3): ReturnType<typeof gc> =>
  gc(sysroot.host, { sysroot: sysroot.path, keep, dryRun: false });

describe('a deployment', () => {
  test('has every image that its own is bound to, as "image pull" would store it', async () => {
    const [first, second] = [app(), app()];
    const digests = [await first.publish(1), await second.publish(1)];
    const sysroot = scratchSysroot();
    const { digest } = await sysroot.deploy(hostImage(1, [first.reference, second.reference]));
    expect(images(sysroot).sort()).toEqual([digest, ...digests].sort());
    const listed = hostctl(['image', 'list', '--sysroot', sysroot.path, '--json']);
    expect(JSON.parse(listed.stdout)).toEqual(
      expect.arrayContaining(
        digests.map((of) => expect.objectContaining({ digest: of, names: [], deployments: [], bound: [1] }) as unknown),
      ),
    );
    expect(sysroot.status().deployments[0]?.problems).toEqual([]);
    const before = snapshot(`${sysroot.path}/composefs`);
    await collect(sysroot);
    expect(snapshot(`${sysroot.path}/composefs`)).toEqual(before);
  });

  test.each<[string, (third: ReturnType<typeof app>) => unknown]>([
    ['is not there', (third) => third.take()],
    [
      'lacks a layer',
      async (third) => {
        await third.publish(1);
        const blobs = `${third.reference.slice('oci:'.length)}/blobs/sha256`;
        for (const name of readdirSync(blobs)) {
          if (!readFileSync(`${blobs}/${name}`, 'utf8').startsWith('{')) rmSync(`${blobs}/${name}`);
        }
      },
    ],
  ])('is not staged, and nothing of it stays, when one of three images %s', async (_, spoil) => {
    const apps = [app(), app(), app()];
    for (const one of apps) await one.publish(1);
    const sysroot = scratchSysroot();
    await sysroot.deploy(hostImage(1, []));
    bless(sysroot, 1);
    await spoil(apps[2]!);
    const before = snapshot(sysroot.path);
    const image = hostImage(
      2,
      apps.map(({ reference }) => reference),
    );
    const stage = ['deploy', '--stage', '--allow-missing-verity', '--sysroot', sysroot.path, image];
    const refused = hostctl(stage);
    expect(refused).toMatchObject({ exitCode: 7, stdout: '' });
    expect(refused.stderr).toContain(`hostctl: Cannot get the bound image "${apps[2]!.reference}": `);
    expect(withoutTraces(snapshot(sysroot.path))).toEqual(withoutTraces(before));
    await apps[2]!.publish(1);
    expect(hostctl(stage)).toMatchObject({ exitCode: 0 });
    expect(sysroot.status()).toMatchObject({ staged: 2, next: 1 });
    expect(images(sysroot)).toHaveLength(5);
    await unstage(sysroot.host, { sysroot: sysroot.path });
    await collect(sysroot);
    expect(images(sysroot)).toHaveLength(1);
  });

  test('keeps its own when a later one has others, also as what a name means once it runs again', async () => {
    const one = app();
    const old = await one.publish(1);
    const directory = scratchDir();
    const sysroot = scratchSysroot();
    const first = await sysroot.deploy(hostImage(1, [one.reference], directory));
    bless(sysroot, 1);
    const newer = await one.publish(2);
    hostImage(2, [one.reference], directory);
    const plan = await planUpgrade(sysroot.host, upgradeOptions(sysroot));
    expect(plan.change?.bound).toEqual([one.reference]);
    expect(images(sysroot)).not.toContain(newer);
    const second = await upgrade(sysroot.host, upgradeOptions(sysroot));
    bless(sysroot, 2);
    await rollback(sysroot.host, { sysroot: sysroot.path });
    await collect(sysroot);
    expect(images(sysroot).sort()).toEqual([first.digest, second.digest, old, newer].sort());
    hostctl(['image', 'pull', one.reference, '--sysroot', sysroot.path]);
    machine.runs = true;
    try {
      const meantIn = (digest: string): string | undefined => {
        const host = testHost({ kernelCmdline: () => `composefs.digest=?v1-sha512-12:${digest}` });
        return findStored(host, { sysroot: sysroot.path, image: one.reference })?.digest;
      };
      expect([meantIn(first.digest), meantIn(second.digest)]).toEqual([old, newer]);
    } finally {
      machine.runs = false;
    }
  });

  test('takes its bound images along when its arguments change, and they go when it goes', async () => {
    const one = app();
    const digest = await one.publish(1);
    const sysroot = scratchSysroot();
    await sysroot.deploy(hostImage(1, [one.reference]));
    bless(sysroot, 1);
    one.take();
    const changes = { append: ['quiet'], delete: [], replace: [] };
    await changeDeploymentKargs(sysroot.host, { sysroot: sysroot.path, changes, plan: false, tries: 0, etcPolicy: {} });
    await deleteDeployment(sysroot.host, { sysroot: sysroot.path, id: '1' });
    expect(images(sysroot)).toContain(digest);
    expect(sysroot.status().deployments).toMatchObject([{ id: 2, problems: [] }]);
    await sysroot.deploy(hostImage(3, []));
    bless(sysroot, 3);
    await deleteDeployment(sysroot.host, { sysroot: sysroot.path, id: '2' });
    expect(images(sysroot)).not.toContain(digest);
    expect(readdirSync(`${sysroot.path}/composefs/images/refs/hostctl-bound`)).toEqual([]);
  });
});

describe('fsck', () => {
  test.each<[string, string[], (repo: string, digest: string) => void]>([
    ['an image that is gone', ['bound-image-missing'], (repo, digest) => rmSync(`${repo}/images/${digest}`)],
    [
      'a ref that is gone',
      ['ref-missing'],
      (repo) => {
        for (const name of readdirSync(`${repo}/images/refs/hostctl-bound`)) {
          rmSync(`${repo}/images/refs/hostctl-bound/${name}`);
        }
      },
    ],
    [
      'a file that is damaged',
      ['object-corrupt'],
      (repo, digest) => {
        const object = readdirSync(`${repo}/objects`, { recursive: true, encoding: 'utf8' })
          .map((name) => `${repo}/objects/${name}`)
          .find((path) => !path.endsWith(digest.slice(2)) && isAppFile(path));
        rmSync(object!);
        writeFileSync(object!, Buffer.alloc(6000));
      },
    ],
  ])('finds and repairs %s', async (_, codes, damage) => {
    const one = app();
    const digest = await one.publish(1);
    const sysroot = scratchSysroot();
    await sysroot.deploy(hostImage(1, [one.reference]));
    bless(sysroot, 1);
    const before = snapshot(`${sysroot.path}/composefs`);
    damage(`${sysroot.path}/composefs`, digest);
    const check = (repair: boolean): ReturnType<typeof fsck> =>
      fsck(sysroot.host, { sysroot: sysroot.path, deep: true, repair });
    const found = (await check(false)).findings;
    expect(found.map(({ code }) => code)).toEqual(codes);
    expect(found[0]?.deployments).toEqual([1]);
    const repaired = await check(true);
    expect(repaired).toMatchObject({ failures: [], findings: [{ repaired: true }] });
    expect(snapshot(`${sysroot.path}/composefs`)).toEqual(before);
  });

  test('does not take what a reference leads to by now for what was lost', async () => {
    const one = app();
    const digest = await one.publish(1);
    const sysroot = scratchSysroot();
    await sysroot.deploy(hostImage(1, [one.reference]));
    rmSync(`${sysroot.path}/composefs/images/${digest}`);
    await expect(collect(sysroot)).rejects.toMatchObject({ code: 'corrupt' });
    await one.publish(2);
    const { failures, findings } = await fsck(sysroot.host, { sysroot: sysroot.path, deep: false, repair: true });
    expect(failures).toEqual([expect.stringMatching(/Cannot repair "oci:.*" of deployment 1: The image built again/)]);
    expect(findings.map(({ code, repaired }) => [code, repaired])).toContainEqual(['bound-image-missing', false]);
  });
});

/** The one file of an application image; nothing else has this size. */
function isAppFile(path: string): boolean {
  return statSync(path).size === 6000;
}

describe('a host image is refused by lint and deploy when a bound image', () => {
  test.each<[string, Uint8Array[], RegExp]>([
    ['is no symlink', [tarFile(`${BOUND}/a.image`, '[Image]\nImage=x\n')], /a\.image" is no symlink/],
    ['leads nowhere', [tarSymlink(`${BOUND}/a.image`, '/nowhere')], /leads to no small file: "\/nowhere"/],
    [
      'names nothing',
      [
        tarFile(`${QUADLETS}/a.image`, `[Image]\n${'# long\n'.repeat(20)}`),
        tarSymlink(`${BOUND}/a.image`, `/${QUADLETS}/a.image`),
      ],
      /"a\.image" has no "Image="/,
    ],
  ])('%s', async (_, more, message) => {
    const { reference } = bootableLayout({ more });
    const lint = hostctl(['image', 'lint', reference]);
    expect(lint.exitCode).toBe(7);
    expect(lint.stdout).toMatch(message);
    const sysroot = scratchSysroot();
    await expect(sysroot.deploy(reference)).rejects.toMatchObject({
      code: 'image-not-bootable',
      message: expect.stringMatching(message) as string,
    });
    expect(images(sysroot)).toEqual([]);
  });
});
