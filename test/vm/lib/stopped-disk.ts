/**
 * Looks at and damages the disk of a machine that is off, without mounting anything: debugfs for the root file system,
 * mtools for the boot partition.
 */

import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { run } from '../../../scripts/lib/run.ts';
import { hostPartitions, mtools } from './disk.ts';

const BLOCK = 4096;

export class StoppedDisk {
  readonly path: string;
  readonly #espOffset: number;
  readonly #rootOffset: number;

  private constructor(path: string, espOffset: number, rootOffset: number) {
    this.path = path;
    this.#espOffset = espOffset;
    this.#rootOffset = rootOffset;
  }

  /** Opens the disk of a host with an ext4 root. */
  static async open(path: string): Promise<StoppedDisk> {
    const { boot, root } = await hostPartitions(path);
    const disk = new StoppedDisk(path, boot.start, root.start);
    // Replays the journal: edits before that would be undone by it. 1: something was corrected, as this is.
    await disk.#fsck('-p');
    return disk;
  }

  /** By a loop device: e2fsck knows offsets, but loses them when it opens the image again to replay the journal. */
  async #fsck(mode: '-p' | '-fy'): Promise<void> {
    const offset = String(this.#rootOffset);
    const loop = (await run('losetup', ['--find', '--show', '--offset', offset, this.path])).trim();
    try {
      await run('e2fsck', [mode, loop], { accept: [0, 1] });
    } finally {
      await run('losetup', ['--detach', loop]);
    }
  }

  /** debugfs leaves link counts as they were; a file without a name goes to lost+found and keeps its inode number. */
  async #edit(...commands: string[]): Promise<void> {
    await this.#debugfs(...commands);
    await this.#fsck('-fy');
  }

  get #root(): string {
    return `${this.path}?offset=${this.#rootOffset}`;
  }

  async #debugfs(...commands: string[]): Promise<string> {
    const folder = await mkdtemp(join(tmpdir(), 'hostctl-debugfs-'));
    try {
      const script = join(folder, 'commands');
      await writeFile(script, `${commands.join('\n')}\n`);
      return await run('debugfs', ['-w', '-f', script, this.#root]);
    } finally {
      await rm(folder, { recursive: true });
    }
  }

  /** Content of a file of the root file system. */
  async read(path: string): Promise<string> {
    const folder = await mkdtemp(join(tmpdir(), 'hostctl-debugfs-'));
    try {
      const copy = join(folder, 'copy');
      await this.#debugfs(`dump ${path} ${copy}`);
      return await readFile(copy, 'utf8');
    } finally {
      await rm(folder, { recursive: true });
    }
  }

  /** Inode number of a file. */
  async inode(path: string): Promise<number> {
    const found = /^Inode: (\d+)/m.exec(await this.#debugfs(`stat ${path}`))?.[1];
    if (found === undefined) throw new Error(`No file "${path}" on the disk`);
    return Number(found);
  }

  /** Changes one byte of a file's data where it lies on the disk; its metadata, fs-verity's included, stay. */
  async flipByte(path: string, offset: number): Promise<void> {
    const answer = await this.#debugfs(`bmap ${path} ${Math.floor(offset / BLOCK)}`);
    const block = Number(/^(\d+)$/m.exec(answer)?.[1] ?? 0);
    if (block === 0) throw new Error(`"${path}" has no block at ${offset}`);
    const at = this.#rootOffset + block * BLOCK + (offset % BLOCK);
    const file = await open(this.path, 'r+');
    try {
      const byte = Buffer.alloc(1);
      await file.read(byte, 0, 1, at);
      byte[0] = (byte[0] ?? 0) ^ 0x01;
      await file.write(byte, 0, 1, at);
    } finally {
      await file.close();
    }
  }

  /** Makes `path` a name of the inode `inode`, in place of what it named. */
  async relink(path: string, inode: number): Promise<void> {
    await this.#edit(`unlink ${path}`, `ln <${inode}> ${path}`);
  }

  /** Puts a new file with this content, without fs-verity, in place of `path`. */
  async replace(path: string, content: string): Promise<void> {
    const folder = await mkdtemp(join(tmpdir(), 'hostctl-debugfs-'));
    try {
      const source = join(folder, 'content');
      await writeFile(source, content);
      await this.#edit(`unlink ${path}`, `write ${source} ${path}`);
    } finally {
      await rm(folder, { recursive: true });
    }
  }

  /** Adds files: text by path, `-> target` for a link, nothing for a folder. */
  async add(files: Readonly<Record<string, string>>): Promise<void> {
    const folder = await mkdtemp(join(tmpdir(), 'hostctl-debugfs-'));
    try {
      const commands: string[] = [];
      for (const [at, [path, text]] of Object.entries(files).entries()) {
        const source = join(folder, String(at));
        await writeFile(source, text);
        if (text === '') commands.push(`mkdir ${path}`);
        else if (text.startsWith('-> ')) commands.push(`symlink ${path} ${text.slice(3)}`);
        else commands.push(`write ${source} ${path}`);
      }
      await this.#edit(...commands);
    } finally {
      await rm(folder, { recursive: true });
    }
  }

  async unlink(path: string): Promise<void> {
    await this.#edit(`unlink ${path}`);
  }

  /** Names in a folder of the boot partition, sorted. */
  async bootFiles(folder: string): Promise<string[]> {
    const listing = await mtools('mdir', ['-b', '-i', `${this.path}@@${this.#espOffset}`, `::${folder}`]);
    return listing
      .split('\n')
      .filter(Boolean)
      .map((line) => line.replace(/^.*\//, ''))
      .sort();
  }

  /** Changes the text of a file of the boot partition. */
  async editBootFile(path: string, edit: (text: string) => string): Promise<void> {
    await this.editBootBytes(path, (bytes) => Buffer.from(edit(bytes.toString())));
  }

  /** Changes a file of the boot partition. */
  async editBootBytes(path: string, edit: (bytes: Buffer) => Uint8Array): Promise<void> {
    const folder = await mkdtemp(join(tmpdir(), 'hostctl-boot-file-'));
    try {
      const [copy, image] = [join(folder, 'copy'), `${this.path}@@${this.#espOffset}`];
      await mtools('mcopy', ['-i', image, `::${path}`, copy]);
      await writeFile(copy, edit(await readFile(copy)));
      await mtools('mcopy', ['-o', '-i', image, copy, `::${path}`]);
    } finally {
      await rm(folder, { recursive: true });
    }
  }

  /** Gives a file of the boot partition another name in its folder. */
  async renameBootFile(path: string, name: string): Promise<void> {
    await mtools('mren', ['-i', `${this.path}@@${this.#espOffset}`, `::${path}`, name]);
  }

  /** Gives the root file system another label, by which nobody finds it. */
  async relabelRoot(label: string): Promise<void> {
    await run('e2label', [this.#root, label]);
  }

  /** Content of a file of the boot partition. */
  bootFile(path: string): Promise<string> {
    return mtools('mtype', ['-i', `${this.path}@@${this.#espOffset}`, `::${path}`]);
  }
}
