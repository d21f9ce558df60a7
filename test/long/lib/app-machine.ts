/**
 * A disk with a host image that is bound to three applications, deployed on this host without a guest, and a second
 * disk with what the same references lead to in each of two versions. Units and quadlet files are those that
 * docs/app-images.md shows, with other names.
 */

import { mkdir, mkdtemp, readFile, rename, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { projectPath } from '../../../scripts/lib/project.ts';
import { run } from '../../../scripts/lib/run.ts';
import { deploy } from '../../../src/ops/deploy.ts';
import { digestImage } from '../../../src/ops/digest-image.ts';
import { type LayerSpec, ociLayout } from '../../helpers/oci-builder.ts';
import { tar, tarDir, tarFile } from '../../helpers/tar-builder.ts';
import { testHost } from '../../helpers/test-host.ts';
import { makeExt4 } from '../../vm/lib/disk.ts';
import { readExt4File } from '../../vm/lib/ext4-file.ts';
import { type Files, filesTar, setOnlyTag, taggedManifest, withLayer } from '../../vm/lib/layered-image.ts';
import { makeOfflineDisk } from '../../vm/lib/offline-disk.ts';
import { SYSTEM } from '../../vm/lib/required-unit.ts';
import type { TestImage } from '../../vm/lib/test-image.ts';

/** In the order in which they are fetched. */
export const APPS = ['one', 'three', 'two'] as const;
export type App = (typeof APPS)[number];
export const VERSIONS = [1, 2] as const;
export type Version = (typeof VERSIONS)[number];

const PAGE = 'docs/app-images.md';
const LABEL = 'root';
const ALGORITHM = 'sha512';
const LIBRARIES = 'usr/lib/x86_64-linux-gnu';
/** So many that each application after the first is stored as what it has more than their common base. */
const BASE_FILES = 4000;

/** What an application prints as soon as it runs; a file of its image, and an object. */
export function greeting(app: App, version: Version): string {
  return `${app} of version ${version},`.repeat(20);
}

export class AppMachine {
  readonly #folder: string;
  readonly #image: TestImage;
  /** What the references begin with, on this host and in the guest: a link to the folder of a version. */
  readonly #link: string;
  /** Composefs digests of the applications. */
  readonly digests = new Map<string, string>();

  private constructor(image: TestImage, folder: string, link: string) {
    this.#image = image;
    this.#folder = folder;
    this.#link = link;
  }

  static async make(image: TestImage, folder: string): Promise<AppMachine> {
    const links = await mkdtemp('/run/hostctl-apps-');
    const machine = new AppMachine(image, folder, join(links, 'now'));
    try {
      await machine.#writeLayouts();
      await symlink(join(machine.#layouts, '1'), machine.#link);
      await machine.#writeDisk();
    } finally {
      await rm(links, { recursive: true });
    }
    return machine;
  }

  /** The system disk, on which version 1 is deployed and good. */
  get disk(): string {
    return join(this.#folder, 'disk.img');
  }

  /** For a disk beside it. */
  get layoutDisk(): string {
    return join(this.#folder, 'layouts.ext4');
  }

  /** Command that makes the references lead to a version on the second disk, mounted on `/run/layouts`. */
  publish(version: Version): string {
    return `mkdir -p ${join(this.#link, '..')} && ln -sfn /run/layouts/${version} ${this.#link}`;
  }

  reference(app: App): string {
    return `oci:${this.#link}/${app}:stable`;
  }

  digest(app: App, version: Version): string {
    return this.digests.get(`${app} ${version}`) ?? '';
  }

  get #layouts(): string {
    return join(this.#folder, 'layouts');
  }

  async #writeLayouts(): Promise<void> {
    const base = await this.#baseLayer();
    for (const version of VERSIONS) {
      const folder = join(this.#layouts, String(version));
      await mkdir(folder, { recursive: true });
      for (const app of APPS) {
        const layout = join(folder, app);
        ociLayout(layout, { tag: 'stable', layers: [base, appLayer(app, version)] });
        const what = { algorithm: ALGORITHM, formatVersion: 1, bootable: false } as const;
        const { digest } = await digestImage(testHost(), { ...what, image: `oci:${layout}:stable` });
        this.digests.set(`${app} ${version}`, digest);
      }
      const os = join(folder, 'os');
      await run('cp', ['--archive', '--link', this.#image.layout, os]);
      const manifest = await withLayer(os, await taggedManifest(os, `v${version}`), this.#hostFiles());
      await setOnlyTag(os, 'stable', manifest);
    }
    await makeExt4(this.#layouts, this.layoutDisk, { label: 'layouts' });
  }

  /** A shell, what it needs, and places for what systemd mounts over them. */
  async #baseLayer(): Promise<LayerSpec> {
    const copied = async (from: string, to = from): Promise<Buffer> =>
      tarFile(to, await readExt4File(this.#image.installer.disk, from), { mode: 0o755 });
    return {
      tar: tar([
        ...['dev', 'proc', 'run', 'sys', 'tmp', 'usr', 'usr/share'].map((name) => tarDir(name)),
        await copied('usr/bin/dash'),
        await copied('usr/bin/sleep'),
        await copied(`${LIBRARIES}/libc.so.6`),
        await copied(`${LIBRARIES}/ld-linux-x86-64.so.2`, 'lib64/ld-linux-x86-64.so.2'),
        ...Array.from({ length: BASE_FILES }, (_, i) =>
          tarFile(`usr/share/base/${i}`, `file ${i} of the base that they have in common\n`),
        ),
      ]),
    };
  }

  /** The same in both versions: only what the references lead to changes. */
  #hostFiles(): Files {
    const files: Record<string, string> = {};
    for (const app of APPS) {
      const file = (heading: string): string =>
        documentedFile(heading)
          .replaceAll(/\bapp\b/g, app)
          .replaceAll(`quay.io/example/${app}:1`, this.reference(app));
      files[`${SYSTEM}/${app}-root.service`] = file('app-root.service');
      files[`${SYSTEM}/${app}.service`] = file('app.service');
      files[`${SYSTEM}/multi-user.target.wants/${app}.service`] = `-> ../${app}.service`;
      files[`usr/share/containers/systemd/${app}.image`] = file('/usr/share/containers/systemd/app.image');
      files[`usr/lib/bootc/bound-images.d/${app}.image`] = `-> /usr/share/containers/systemd/${app}.image`;
    }
    return files;
  }

  async #writeDisk(): Promise<void> {
    const sysroot = join(this.#folder, 'sysroot');
    const boot = join(this.#folder, 'boot');
    for (const folder of [sysroot, boot]) await mkdir(folder);
    await deploy(testHost(), {
      ...{ sysroot, boot, image: `oci:${this.#link}/os:stable`, kargs: [`root=LABEL=${LABEL}`, 'rw'] },
      ...{ algorithm: ALGORITHM, tries: 3, allowMissingVerity: true, stage: false },
    });
    const entries = join(boot, 'loader/entries');
    await rename(join(entries, 'hostctl-00000001+3-0.conf'), join(entries, 'hostctl-00000001.conf'));
    const kind = { loader: this.#image.loader, algorithm: ALGORITHM, label: LABEL } as const;
    await makeOfflineDisk({ ...kind, sysroot, boot, scratch: join(this.#folder, 'scratch') }, this.disk);
  }
}

function appLayer(app: App, version: Version): LayerSpec {
  const program = `#!/usr/bin/dash\nread -r line </usr/share/${app}\necho "$line"\nexec sleep infinity\n`;
  return { tar: filesTar({ [`usr/bin/${app}`]: program, [`usr/share/${app}`]: `${greeting(app, version)}\n` }) };
}

/** What the page shows below a comment with this name. */
function documentedFile(name: string): string {
  const lines = page.split('\n').map((line) => /^ {4}(.*)$/.exec(line)?.[1]);
  const start = lines.indexOf(`# ${name}`) + 1;
  if (start === 0) throw new Error(`"${PAGE}" shows no "${name}"`);
  const end = lines.findIndex((line, at) => at >= start && (line === undefined || line.startsWith('#')));
  return `${lines.slice(start, end).join('\n')}\n`;
}

const page = await readFile(projectPath(PAGE), 'utf8');
