/**
 * Machines on which an update has just been deployed and never booted, made on this host without a guest: version 1 of
 * the test image is good, and the reference it was deployed from leads to a changed image since, deployed with one try.
 */

import { cp, mkdir, mkdtemp, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { run } from '../../../scripts/lib/run.ts';
import { blessForGrub } from '../../../src/deploy/grub.ts';
import { changeEnvironment, emptyEnvironment } from '../../../src/format/grub/environment-block.ts';
import { MENU_SCRIPT } from '../../../src/format/grub/menu-script.ts';
import { deploy } from '../../../src/ops/deploy.ts';
import { testHost } from '../../helpers/test-host.ts';
import type { Descriptor } from '../../helpers/oci-builder.ts';
import type { Loader } from './debian.ts';
import { makeExt4 } from './disk.ts';
import { readExt4File } from './ext4-file.ts';
import { QUIET } from './guest.ts';
import {
  blobIn,
  type Files,
  isProgram,
  type Manifest,
  readDocument,
  setOnlyTag,
  taggedManifest,
  withLayer,
} from './layered-image.ts';
import { makeOfflineDisk } from './offline-disk.ts';
import { verityTail } from './offline-verity.ts';
import type { TestImage } from './test-image.ts';

/** What is wrong with an image. */
export interface Change {
  /** A layer above version 1. */
  readonly files?: Files;
  /** Programs of version 1, one byte longer: objects that no other image has. */
  readonly own?: readonly string[];
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
  /** Digests of the objects that only the bad one has, in the order of `own`. */
  readonly own: readonly string[];
}

const ALGORITHM = 'sha512';
const LABEL = 'root';
const TAG = 'stable';
/** As `install` mounts the boot partition; systemd-boot tells systemd itself, and takes the others from the machine. */
const GRUB_KARGS = ['systemd.mount-extra=/dev/vda1:/boot:vfat:umask=0077', ...QUIET];
const GRUB_MODULES =
  'part_gpt fat search_fs_file normal configfile loadenv test regexp true echo linux boot reboot all_video'.split(' ');

/** Makes one after the other from the same good deployment. */
export class TrialDisks {
  readonly #image: TestImage;
  readonly #folder: string;
  readonly #layout: string;
  /** The reference is the same text on this host and in the guest. */
  readonly #link: string;
  readonly #isGrub: boolean;
  readonly #v1: Descriptor;
  /** The EFI program of the boot loader. */
  #program: string;

  private constructor(image: TestImage, folder: string, link: string, kind: { loader: Loader; v1: Descriptor }) {
    this.#image = image;
    this.#folder = folder;
    this.#isGrub = kind.loader === 'grub';
    this.#v1 = kind.v1;
    this.#program = image.loader;
    this.#layout = join(folder, 'layout');
    this.#link = link;
  }

  /** @param kind.loader what starts them; `image` is one for it */
  static async open(image: TestImage, folder: string, kind: { loader: Loader }): Promise<TrialDisks> {
    const link = await mkdtemp('/run/hostctl-layout-');
    await rm(link, { recursive: true });
    const v1 = await taggedManifest(image.layout, 'v1');
    const disks = new TrialDisks(image, folder, link, { ...kind, v1 });
    await run('cp', ['--archive', '--link', image.layout, disks.#layout]);
    await symlink(disks.#layout, link);
    if (kind.loader === 'grub') await disks.#addGrub();
    await setOnlyTag(disks.#layout, TAG, disks.#v1);
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
    const programs = await this.#ownPrograms(change.own ?? []);
    const files = { ...Object.fromEntries(programs), ...change.files };
    await setOnlyTag(this.#layout, TAG, await this.#changedImage({ ...change, files }));
    const bad = await this.#deploy(host, change.tries ?? 1);
    await change.damage?.(host, bad);
    const path = join(folder, 'disk.img');
    await makeOfflineDisk(
      { ...host, loader: this.#program, algorithm: ALGORITHM, label: LABEL, scratch: join(folder, 'scratch') },
      path,
    );
    await rm(host.sysroot, { recursive: true });
    const layout = join(folder, 'layout.ext4');
    await this.#writeSmallLayout(join(folder, 'layout'), layout);
    const own = programs.map(([, content]) => verityTail(content, ALGORITHM).digest);
    return { path, layout, layoutPath: this.#link, good: this.#good, bad, own };
  }

  #good = '';

  async #deploy({ sysroot, boot }: ScratchHost, tries: number): Promise<string> {
    await mkdir(sysroot, { recursive: true });
    await mkdir(boot, { recursive: true });
    const result = await deploy(testHost({ lockWaitMs: 10_000 }), {
      sysroot,
      boot,
      image: `oci:${this.#link}:${TAG}`,
      kargs: [`root=LABEL=${LABEL}`, 'rw', ...(this.#isGrub ? GRUB_KARGS : [])],
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
    if (this.#isGrub) blessForGrub(this.#base.boot, 1);
    const [name = ''] = await readdir(join(this.#base.sysroot, 'state/deploy'));
    this.#good = name;
  }

  /** As `install` leaves it, and GRUB after its first boot: it has shown that it can count. */
  async #addGrub(): Promise<void> {
    const grub = join(this.#base.boot, 'grub');
    await mkdir(grub, { recursive: true });
    await writeFile(join(grub, 'grub.cfg'), 'set timeout=0\nsource "$prefix/hostctl.cfg"\n');
    await writeFile(join(grub, 'hostctl.cfg'), MENU_SCRIPT);
    await writeFile(join(grub, 'grubenv'), changeEnvironment(emptyEnvironment(), { hostctl_check: '1' }));
    const early = join(this.#folder, 'early.cfg');
    await writeFile(early, 'search.file /grub/hostctl.cfg root\nset prefix=($root)/grub\n');
    this.#program = join(this.#folder, 'grub.efi');
    const options = ['-O', 'x86_64-efi', '-p', '/grub', '-c', early, '-o', this.#program];
    await run('grub-mkimage', [...options, ...GRUB_MODULES]);
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
    return withLayer(this.#layout, this.#v1, all);
  }

  async #ownPrograms(paths: readonly string[]): Promise<[string, Buffer][]> {
    const programs: [string, Buffer][] = [];
    for (const path of paths) {
      const program = await readExt4File(this.#image.installer.disk, path);
      programs.push([path, Buffer.concat([program, Buffer.alloc(1)])]);
    }
    return programs;
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

  /** Index, manifests and configurations: enough to say whether there is something new. */
  async #writeSmallLayout(folder: string, disk: string): Promise<void> {
    await mkdir(join(folder, 'blobs/sha256'), { recursive: true });
    for (const name of ['index.json', 'oci-layout']) await cp(join(this.#layout, name), join(folder, name));
    const index = await readDocument<{ manifests: Descriptor[] }>(join(folder, 'index.json'));
    for (const descriptor of index.manifests) {
      const { config } = await readDocument<Manifest>(blobIn(this.#layout, descriptor));
      for (const each of [descriptor, config]) {
        await cp(blobIn(this.#layout, each), join(folder, 'blobs/sha256', each.digest.slice('sha256:'.length)));
      }
    }
    await makeExt4(folder, disk, { label: 'layout' });
  }
}
