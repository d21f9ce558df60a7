/**
 * The model's machine: a sysroot in memory, a boot loader of one of four kinds, and what the machine runs. The program
 * under test sees it through a `Host` whose command line is what the loader chose, and whose `syncfs` can be made to
 * fail at one call.
 */

import { mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { statusDocument, type StatusDocument } from '../../src/cli/view/status-json.ts';
import { status } from '../../src/ops/status.ts';
import type { Host } from '../../src/sys/host.ts';
import {
  defaultOfFedoraGrub,
  defaultOfSystemdBoot,
  defaultOfUpstreamGrub,
  defaultOfVersionKeyGrub,
  type OracleEntry,
} from '../helpers/loader-oracles.ts';
import { memoryDir } from '../helpers/memory-dir.ts';
import { testHost } from '../helpers/test-host.ts';
import { readEntries, type DiskEntry } from './disk.ts';
import type { ModelImage } from './images.ts';

export const LOADERS = {
  'systemd-boot': defaultOfSystemdBoot,
  'Fedora GRUB': defaultOfFedoraGrub,
  'GRUB 2.14': defaultOfUpstreamGrub,
  'version-key GRUB': defaultOfVersionKeyGrub,
} satisfies Record<string, (entries: readonly OracleEntry[]) => string | undefined>;

export type Loader = keyof typeof LOADERS;

const realHost = testHost();

export class World {
  readonly path = memoryDir();
  readonly host: Host;
  readonly loader: Loader;
  readonly images: readonly ModelImage[];
  /** Command line of what runs; undefined while nothing came up. */
  running: { readonly cmdline: string; readonly stateName: string | undefined } | undefined;
  /** What others put on the boot partition, by path. */
  readonly foreign = new Map<string, string>();
  /** The verity digest of each image that was deployed, for all time: STABLE-DIGEST. */
  readonly digests: Map<ModelImage, string>;
  /** Numbers of what the administrator pinned. */
  readonly pinned = new Set<number>();
  /** What the moving reference leads to now. */
  moving: ModelImage | undefined;
  /** Calls of `syncfs` until one fails. */
  failAfter = Infinity;
  readonly warnings: string[] = [];
  /** How often it was started. */
  boots = 0;
  /** State directories of what was rolled back by itself. */
  readonly rolledBack = new Set<string>();

  constructor(loader: Loader, images: readonly ModelImage[], digests: Map<ModelImage, string>) {
    this.loader = loader;
    this.images = images;
    this.digests = digests;
    mkdirSync(`${this.path}/boot`);
    this.host = {
      ...realHost,
      log: { ...realHost.log, warn: (message) => this.warnings.push(message) },
      bootId: () => `boot-${this.boots}`,
      // systemd has nothing to tell.
      exec: {
        ...realHost.exec,
        run: (program, args, options) =>
          program === 'systemctl'
            ? Promise.resolve({ exitCode: 0, stdout: '', stderr: '' })
            : realHost.exec.run(program, args, options),
      },
      kernelCmdline: () => this.running?.cmdline ?? 'root=/dev/elsewhere',
      syscalls: {
        ...realHost.syscalls,
        syncfs: (fd, path) => {
          this.failAfter -= 1;
          if (this.failAfter === 0) throw Object.assign(new Error('EIO: injected'), { code: 'EIO' });
          realHost.syscalls.syncfs(fd, path);
        },
      },
    };
  }

  get options(): { readonly sysroot: string } {
    return { sysroot: this.path };
  }

  /** A reference that leads to one image today and to another tomorrow, as a tag does. */
  get movingReference(): string {
    return `oci:${this.path}.tag`;
  }

  moveReference(image: ModelImage): void {
    rmSync(`${this.path}.tag`, { force: true });
    symlinkSync(image.directory, `${this.path}.tag`);
    this.moving = image;
  }

  status(): StatusDocument {
    return statusDocument(status(this.host, this.options), false);
  }

  /** What the machine's own loader would start now. */
  defaultEntry(loader: Loader = this.loader): DiskEntry | undefined {
    const entries = readEntries(this.path);
    const chosen = LOADERS[loader](entries);
    return entries.find(({ fileName }) => fileName === chosen);
  }

  imageOf(digest: string): ModelImage | undefined {
    return [...this.digests].find(([, known]) => known === digest)?.[0];
  }

  remove(): void {
    rmSync(this.path, { recursive: true, force: true });
    rmSync(`${this.path}.tag`, { force: true });
  }
}
