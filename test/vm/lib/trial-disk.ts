/**
 * Machines on which an update has just been deployed and never booted, made on this host without a guest: version 1 of
 * the test image is good, and the reference it was deployed from leads to a changed image since, deployed with one try.
 */

import { cp, mkdir, mkdtemp, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { readFile } from 'node:fs/promises';
import { createHash } from 'node:crypto';
import { dirname, join } from 'node:path';
import { run } from '../../../scripts/lib/run.ts';
import { deploy } from '../../../src/ops/deploy.ts';
import { testHost } from '../../helpers/test-host.ts';
import { tar, tarFile, tarSymlink } from '../../helpers/tar-builder.ts';
import { makeExt4 } from './disk.ts';
import { makeOfflineDisk } from './offline-disk.ts';
import type { TestImage } from './test-image.ts';

/** Text of files by path; `-> target` is a link. An executable script begins with `#!`. */
export type Files = Readonly<Record<string, string | Buffer>>;

/** What is wrong with an image. */
export interface Change {
  /** A layer above version 1. */
  readonly files?: Files;
  /** Files in its initramfs, later than all others. */
  readonly initramfs?: Files;
  /** Done to the disks before they are joined; `digest` is the changed image's. */
  readonly damage?: (host: ScratchHost, digest: string) => Promise<void>;
  readonly tries?: number;
}

export interface ScratchHost {
  readonly sysroot: string;
  readonly boot: string;
}

export interface TrialDisk {
  readonly path: string;
  /** A disk with what the reference leads to, without its layers. */
  readonly layout: string;
  /** Where the guest must mount that. */
  readonly layoutPath: string;
  readonly good: string;
  readonly bad: string;
}

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>>;
}

interface Manifest {
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
}

const LABEL = 'root';
const TAG = 'stable';

/** Makes one after the other from the same good deployment. */
export class TrialDisks {
  readonly #image: TestImage;
  readonly #folder: string;
  readonly #layout: string;
  /** The reference is the same text on this host and in the guest. */
  readonly #link: string;

  private constructor(image: TestImage, folder: string, link: string) {
    this.#image = image;
    this.#folder = folder;
    this.#layout = join(folder, 'layout');
    this.#link = link;
  }

  static async open(image: TestImage, folder: string): Promise<TrialDisks> {
    const link = await mkdtemp('/run/hostctl-layout-');
    await rm(link, { recursive: true });
    const disks = new TrialDisks(image, folder, link);
    await run('cp', ['--archive', '--link', image.layout, disks.#layout]);
    await symlink(disks.#layout, link);
    await disks.#setTag(await disks.#manifestOf('v1'));
    await disks.#deploy(disks.#base, 3);
    await disks.#bless();
    return disks;
  }

  async close(): Promise<void> {
    await rm(this.#link, { force: true });
  }

  get #base(): ScratchHost {
    return { sysroot: join(this.#folder, 'base/sysroot'), boot: join(this.#folder, 'base/boot') };
  }

  /** Deploys the changed image beside the good one and makes a disk of it. */
  async make(name: string, change: Change): Promise<TrialDisk> {
    const folder = join(this.#folder, name);
    await run('cp', ['--archive', join(this.#folder, 'base'), folder]);
    const host = { sysroot: join(folder, 'sysroot'), boot: join(folder, 'boot') };
    await this.#setTag(await this.#changedImage(change));
    const bad = await this.#deploy(host, change.tries ?? 1);
    await change.damage?.(host, bad);
    const path = join(folder, 'disk.img');
    const { loader } = this.#image;
    await makeOfflineDisk(
      { ...host, loader, algorithm: 'sha512', label: LABEL, scratch: join(folder, 'scratch') },
      path,
    );
    await rm(host.sysroot, { recursive: true });
    const layout = join(folder, 'layout.ext4');
    await this.#writeSmallLayout(join(folder, 'layout'), layout);
    return { path, layout, layoutPath: this.#link, good: this.#good, bad };
  }

  #good = '';

  async #deploy({ sysroot, boot }: ScratchHost, tries: number): Promise<string> {
    await mkdir(sysroot, { recursive: true });
    await mkdir(boot, { recursive: true });
    const result = await deploy(testHost({ lockWaitMs: 10_000 }), {
      sysroot,
      boot,
      image: `oci:${this.#link}:${TAG}`,
      kargs: [`root=LABEL=${LABEL}`, 'rw'],
      algorithm: undefined,
      tries,
      allowMissingVerity: true,
      stage: false,
    });
    return result.digest;
  }

  async #bless(): Promise<void> {
    const entries = join(this.#base.boot, 'loader/entries');
    await rename(join(entries, 'hostctl-00000001+3-0.conf'), join(entries, 'hostctl-00000001.conf'));
    const [name = ''] = await readdir(join(this.#base.sysroot, 'state/deploy'));
    this.#good = name;
  }

  async #manifestOf(tag: string): Promise<Descriptor> {
    const index = await this.#json<{ manifests: Descriptor[] }>(join(this.#image.layout, 'index.json'));
    const found = index.manifests.find(({ annotations }) => annotations?.['org.opencontainers.image.ref.name'] === tag);
    if (found === undefined) throw new Error(`The layout has no tag "${tag}"`);
    return found;
  }

  async #json<T>(path: string): Promise<T> {
    return JSON.parse(await readFile(path, 'utf8')) as T;
  }

  #blob({ digest }: Descriptor): string {
    return join(this.#layout, 'blobs/sha256', digest.slice('sha256:'.length));
  }

  async #setTag(manifest: Descriptor): Promise<void> {
    const annotations = { 'org.opencontainers.image.ref.name': TAG };
    const path = join(this.#layout, 'index.json');
    await rm(path);
    await writeFile(path, JSON.stringify({ schemaVersion: 2, manifests: [{ ...manifest, annotations }] }));
  }

  /** Version 1 with one more layer. */
  async #changedImage({ files = {}, initramfs }: Change): Promise<Descriptor> {
    const all: Record<string, string | Buffer> = { 'usr/share/hostctl-test/changed': 'changed\n', ...files };
    if (initramfs !== undefined) {
      const [version = ''] = await this.#kernelVersions();
      const extra = await this.#cpio(initramfs);
      all[`usr/lib/modules/${version}/initramfs.img`] = Buffer.concat([
        await readFile(this.#image.installer.initrd),
        extra,
      ]);
    }
    const layer = tar(
      Object.entries(all).map(([name, content]) =>
        typeof content === 'string' && content.startsWith('-> ')
          ? tarSymlink(name, content.slice(3))
          : tarFile(name, content, { mode: isProgram(content) ? 0o755 : 0o644 }),
      ),
    );
    const base = await this.#manifestOf('v1');
    const manifest = await this.#json<Manifest>(this.#blob(base));
    const config = await this.#json<{ rootfs: { diff_ids: string[] } }>(this.#blob(manifest.config));
    const stored = await this.#store('application/vnd.oci.image.layer.v1.tar', layer);
    const changed = await this.#storeJson(manifest.config.mediaType, {
      ...config,
      rootfs: { ...config.rootfs, diff_ids: [...config.rootfs.diff_ids, stored.digest] },
    });
    return this.#storeJson(base.mediaType, { ...manifest, config: changed, layers: [...manifest.layers, stored] });
  }

  async #kernelVersions(): Promise<string[]> {
    const listing = await run('debugfs', ['-R', 'ls -p /usr/lib/modules', this.#image.installer.disk]);
    return [...listing.matchAll(/\/([0-9][^/]*)\/[0-9]*\/$/gm)].map(([, name]) => name ?? '');
  }

  async #cpio(files: Files): Promise<Buffer> {
    const scratch = await mkdtemp(join(this.#folder, 'cpio-'));
    try {
      for (const [name, content] of Object.entries(files)) {
        await mkdir(join(scratch, dirname(name)), { recursive: true });
        if (typeof content === 'string' && content.startsWith('-> ')) {
          await symlink(content.slice(3), join(scratch, name));
        } else await writeFile(join(scratch, name), content, { mode: isProgram(content) ? 0o755 : 0o644 });
      }
      await run('sh', ['-c', 'cd "$1" && find . -mindepth 1 | cpio -o -H newc --quiet -O "$1.cpio"', 'sh', scratch]);
      return await readFile(`${scratch}.cpio`);
    } finally {
      await rm(scratch, { recursive: true });
      await rm(`${scratch}.cpio`, { force: true });
    }
  }

  async #store(mediaType: string, bytes: Buffer): Promise<Descriptor> {
    const descriptor = {
      mediaType,
      digest: `sha256:${createHash('sha256').update(bytes).digest('hex')}`,
      size: bytes.length,
    };
    await writeFile(this.#blob(descriptor), bytes);
    return descriptor;
  }

  #storeJson(mediaType: string, value: unknown): Promise<Descriptor> {
    return this.#store(mediaType, Buffer.from(JSON.stringify(value)));
  }

  /** Index, manifests and configurations: enough to say whether there is something new. */
  async #writeSmallLayout(folder: string, disk: string): Promise<void> {
    await mkdir(join(folder, 'blobs/sha256'), { recursive: true });
    for (const name of ['index.json', 'oci-layout']) await cp(join(this.#layout, name), join(folder, name));
    const index = await this.#json<{ manifests: Descriptor[] }>(join(folder, 'index.json'));
    for (const descriptor of index.manifests) {
      const { config } = await this.#json<Manifest>(this.#blob(descriptor));
      for (const each of [descriptor, config]) {
        await cp(this.#blob(each), join(folder, 'blobs/sha256', each.digest.slice('sha256:'.length)));
      }
    }
    await makeExt4(folder, disk, { label: 'layout' });
  }
}

const ELF = Buffer.from('\x7fELF', 'latin1');

function isProgram(content: string | Buffer): boolean {
  return typeof content === 'string' ? content.startsWith('#!') : content.subarray(0, 4).equals(ELF);
}
