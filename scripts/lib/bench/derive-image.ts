/** The next version of an image: one layer more, in which files that hold a share of the bytes have other contents. */

import { createHash } from 'node:crypto';
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../run.ts';
import { Random } from './image.ts';
import { finishLayout, packLayer, type WrittenLayer } from './oci-writer.ts';
import type { Image } from './setting.ts';
import { onTarget } from './target.ts';

const CHANGED_BYTES = 64;
/** Looked into by hostctl, which must still find an image that boots. */
const KEPT = /^(boot|etc)\/|(^|\/)(vmlinuz|initramfs\.img|os-release|\.wh\.[^/]*)$/;

export interface SizedFile {
  readonly path: string;
  readonly size: number;
}

/** Files drawn from a seed that have `percent` of the bytes of all, or as little less as the draw allows. */
export function drawFiles(files: readonly SizedFile[], percent: number): SizedFile[] {
  const random = new Random(5);
  const drawn = files
    .map((file) => ({ file, at: random.next() }))
    .sort((a, b) => a.at - b.at)
    .map(({ file }) => file);
  let rest = (files.reduce((sum, { size }) => sum + size, 0) * percent) / 100;
  return drawn.filter(({ size }) => {
    if (size > rest) return false;
    rest -= size;
    return true;
  });
}

/** Writes it as a layout into `directory`; `scratch` is for a file system of its own. */
export async function deriveImage(image: Image, percent: number, directory: string, scratch: string): Promise<void> {
  mkdirSync(scratch, { recursive: true });
  mkdirSync(join(directory, 'blobs/sha256'), { recursive: true });
  await onTarget(scratch, async (target) => {
    const tree = join(target.path, 'tree');
    mkdirSync(tree);
    for (const layer of image.layers) {
      await run('tar', ['--xattrs', '--xattrs-include=security.capability', '-xpf', layer, '-C', tree]);
    }
    const changed = drawFiles(await filesOf(tree), percent);
    for (const file of changed) change(tree, file);
    const list = join(scratch, 'changed');
    writeFileSync(list, changed.map(({ path }) => `${path}\0`).join(''), 'latin1');
    const only = ['--no-recursion', '--null', '--verbatim-files-from', `--files-from=${list}`];
    const layer = await packLayer(directory, image.compression, tree, only);
    await run('cp', [...image.layers, join(directory, 'blobs/sha256')]);
    finishLayout(directory, image.tag ?? 'bench', image.compression, [...layersOf(image), layer]);
  });
}

/** Those with one name whose content may be another. */
async function filesOf(tree: string): Promise<SizedFile[]> {
  const list = join(tree, '..', 'list');
  const find = 'cd "$1" && find . -type f -links 1 -size +0 -printf "%s %P\\0" >"$2"';
  await run('sh', ['-c', find, 'sh', tree, list]);
  return readFileSync(list, 'latin1')
    .split('\0')
    .filter(Boolean)
    .map((line) => ({ size: Number(line.slice(0, line.indexOf(' '))), path: line.slice(line.indexOf(' ') + 1) }))
    .filter(({ path }) => !KEPT.test(path))
    .sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** Another end. */
function change(tree: string, { path, size }: SizedFile): void {
  const text = createHash('sha256').update(path, 'latin1').digest('hex').slice(0, Math.min(size, CHANGED_BYTES));
  const fd = openSync(Buffer.from(`${tree}/${path}`, 'latin1'), 'r+');
  writeSync(fd, text, Math.max(0, size - CHANGED_BYTES));
  closeSync(fd);
}

function layersOf(image: Image): WrittenLayer[] {
  interface Documents {
    readonly manifests?: readonly { readonly digest: string }[];
    readonly config?: { readonly digest: string };
    readonly layers?: readonly Omit<WrittenLayer, 'diffId'>[];
    readonly rootfs?: { readonly diff_ids: readonly string[] };
  }
  const parse = (name: string): Documents => JSON.parse(readFileSync(join(image.directory, name), 'utf8')) as Documents;
  const blob = (digest: string): Documents => parse(`blobs/${digest.replace(':', '/')}`);
  const manifest = blob(parse('index.json').manifests![0]!.digest);
  const diffIds = blob(manifest.config!.digest).rootfs!.diff_ids;
  return manifest.layers!.map((layer, i) => ({ ...layer, diffId: diffIds[i]! }));
}
