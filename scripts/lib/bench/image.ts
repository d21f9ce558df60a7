/**
 * The image that `npm run bench` measures with where no other is given: bootable, made from a seed, of the sizes that
 * operating systems are made of. Six files of ten are below 4 KiB, and one in two hundred holds most of the bytes; some
 * do not compress. The layers replace, hide and link files of each other.
 */

import { createCipheriv } from 'node:crypto';
import { paxHeader, tarDir, tarEntry, tarFile, tarHardlink, tarSymlink } from '../../../test/helpers/tar-builder.ts';
import { finishLayout, LayerWriter, type LayerCompression, type WrittenLayer } from './oci-writer.ts';

export interface BenchImageOptions {
  /** 1 is an image of 45,000 files and 1.7 GB. */
  readonly scale: number;
  readonly compression: LayerCompression;
  /** Into how many layers the files go, beside one of whiteouts. */
  readonly layers: number;
  /** How many files of a hundred differ between images of other versions. */
  readonly version?: number;
  readonly changedPercent?: number;
}

const SMALL_FILES = 26_500;
const MIDDLE_FILES = 17_800;
const LARGE_FILES = 240;
const FILES_PER_DIRECTORY = 40;
const KERNEL = 'usr/lib/modules/6.12.0-bench';
const DIRECTORIES = [
  ...['boot', 'dev', 'etc', 'proc', 'root', 'run', 'sys', 'sysroot', 'tmp', 'var'],
  ...['usr', 'usr/lib', 'usr/lib/modules', KERNEL, 'usr/share'],
];
const MiB = 1 << 20;

/** Numbers that are the same for the same seed, everywhere (xorshift). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = (seed * 2654435761 + 1) >>> 0 || 1;
  }

  /** 0 ≤ x < 1 */
  next(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x >>> 0;
    return this.#state / 2 ** 32;
  }

  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }

  /** Small ones as often as large ones, each by its order of magnitude. */
  size(least: number, most: number): number {
    return Math.floor(least * (most / least) ** this.next());
  }
}

/** Contents that pack as programs and texts do, or not at all. */
class Contents {
  readonly #text = Buffer.alloc(4 * MiB);
  readonly #binary = Buffer.alloc(4 * MiB);
  readonly #noise: Buffer;

  constructor() {
    const random = new Random(1);
    const words = Array.from({ length: 4000 }, () =>
      String.fromCharCode(...Array.from({ length: 2 + random.below(9) }, () => 97 + random.below(26))),
    );
    for (let at = 0; at < this.#text.length;) {
      const word = words[Math.floor(words.length * random.next() ** 3)] ?? '';
      at += this.#text.write(random.below(9) === 0 ? `${word}\n` : `${word} `, at);
    }
    for (let at = 0; at < this.#binary.length; at += 4) {
      const kind = random.below(4);
      this.#binary.writeUInt32LE(kind === 0 ? random.below(2 ** 32) : kind === 1 ? 0 : random.below(4096), at);
    }
    this.#noise = createCipheriv('aes-256-ctr', Buffer.alloc(32, 7), Buffer.alloc(16)).update(Buffer.alloc(16 * MiB));
  }

  /** `size` bytes that depend on `random` alone. */
  make(random: Random, size: number): Buffer {
    const kind = random.below(10);
    const pool = kind === 0 ? this.#noise : kind < 6 ? this.#text : this.#binary;
    const content = Buffer.allocUnsafe(size);
    for (let at = 0; at < size;) {
      const length = Math.min(size - at, 200 + random.below(3000));
      const from = random.below(pool.length - length);
      at += pool.copy(content, at, from, from + length);
    }
    content.write(random.below(2 ** 32).toString(36));
    return content;
  }
}

/** Writes the image as an OCI layout into `directory`. */
export async function writeBenchImage(directory: string, options: BenchImageOptions): Promise<void> {
  const contents = new Contents();
  const layers: WrittenLayer[] = [];
  const write = async (entries: Iterable<Uint8Array>): Promise<void> => {
    const layer = new LayerWriter(directory, options.compression);
    for (const entry of entries) await layer.write(entry);
    await layer.write(Buffer.alloc(1024));
    layers.push(await layer.finish());
  };
  for (let number = 0; number < options.layers; number++) await write(layerEntries(contents, options, number));
  await write(whiteouts(options));
  finishLayout(directory, 'bench', options.compression, layers);
}

function* layerEntries(contents: Contents, options: BenchImageOptions, number: number): Generator<Buffer> {
  const { scale, layers, changedPercent = 0, version = 0 } = options;
  const share = (count: number): number => Math.max(1, Math.round((count * scale) / layers));
  const counts = [share(SMALL_FILES), share(MIDDLE_FILES), share(LARGE_FILES)] as const;
  const total = counts[0] + counts[1] + counts[2];
  if (number === 0) yield* baseEntries(contents);
  let folder = '';
  for (let i = 0; i < total; i++) {
    // The kinds are mixed, as in any archive.
    const random = new Random(number * 1_000_003 + i);
    const place = random.next() * total;
    if (i % FILES_PER_DIRECTORY === 0) {
      folder = `usr/share/layer-${number}/package-${Math.floor(i / FILES_PER_DIRECTORY)}`;
      if (i === 0) yield tarDir(`usr/share/layer-${number}`);
      yield tarDir(folder);
    }
    const size =
      place < counts[0]
        ? random.size(30, 4096)
        : place < counts[0] + counts[1]
          ? random.size(4096, 150_000)
          : random.size(MiB, 12 * MiB);
    const name = `${folder}/file-${i}`;
    if (i % 500 === 7) yield paxHeader({ 'SCHILY.xattr.security.capability': Buffer.from('0100000200040000000000000000000000000000', 'hex') }); // prettier-ignore
    const isChanged = random.next() * 100 < changedPercent;
    yield tarFile(name, contents.make(new Random(i + (isChanged ? version * 7919 : 0) + number * 999_983), size), {
      mode: i % 9 === 0 ? 0o755 : 0o644,
      mtime: 1_700_000_000 + i,
    });
    if (i % 50 === 0) yield tarHardlink(`${name}-link`, name);
    if (i % 8 === 0) yield tarSymlink(`${name}-symlink`, `file-${i}`);
  }
  // What a lower layer has, once more.
  if (number > 0)
    yield tarFile(`usr/share/layer-0/package-0/file-${number}`, `replaced by layer ${number}\n`.repeat(20));
}

function* baseEntries(contents: Contents): Generator<Buffer> {
  for (const name of DIRECTORIES) yield tarDir(name);
  yield tarFile('usr/lib/os-release', 'ID=bench\nVERSION_ID=1\nPRETTY_NAME="Bench"\n');
  yield tarFile(`${KERNEL}/vmlinuz`, contents.make(new Random(11), 12 * MiB));
  // As dracut makes them: what hostctl looks for is the module's name.
  yield tarFile(`${KERNEL}/initramfs.img`, contents.make(new Random(12), 40 * MiB));
}

function* whiteouts({ scale, layers }: BenchImageOptions): Generator<Buffer> {
  for (let i = 0; i < Math.ceil(20 * scale); i++) {
    yield tarEntry(`usr/share/layer-${layers - 1}/package-0/.wh.file-${i + 1}`);
  }
}
