/**
 * Application layers on a real base. Each does to it everything that a layer can do to what is below, every one to
 * other files, and brings between 20 and 200 files of its own, some of which others bring too.
 */

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { paxHeader, tar, tarDir, tarEntry, tarFile, tarHardlink, tarSymlink, type TarSpec } from './tar-builder.ts';

/** Paths of an unpacked base that layers can do something to, relative to it. */
export interface BasePaths {
  readonly root: string;
  /** Files with one name that are objects. */
  readonly files: readonly string[];
  /** Directories with nothing but files in them. */
  readonly folders: readonly string[];
  /** The names of a file with several. */
  readonly linked: readonly string[];
}

/** A layer, and by paths what stands in its tar, for those who unpack it by other means. */
export interface AppLayer {
  readonly tar: Uint8Array;
  /** What whiteouts hide. */
  readonly hidden: readonly string[];
  /** Where opaque markers stand. */
  readonly emptied: readonly string[];
  readonly directories: readonly string[];
  /** Everything else. */
  readonly others: readonly string[];
}

export function basePaths(root: string): BasePaths {
  const find = (...words: string[]): string[] =>
    execFileSync('find', [root, ...words, '-path', `${root}/usr/*`, '-printf', '%P\\0'], { encoding: 'latin1' })
      .split('\0')
      .filter((path) => /^[ -~]{1,80}$/.test(path))
      .sort();
  const files = find('-type', 'f', '-links', '1', '-size', '+64c', '-size', '-256k');
  const inner = new Set(find('-not', '-type', 'f').map((path) => path.slice(0, path.lastIndexOf('/'))));
  const folders = new Set(files.map((path) => path.slice(0, path.lastIndexOf('/'))));
  return {
    root,
    files,
    folders: [...folders].filter((path) => !inner.has(path)),
    linked: find('-type', 'f', '-links', '+1'),
  };
}

/** Gives up to a dozen members of a list, others for each index, none twice. */
function picker(list: readonly string[], index: number): () => string {
  const step = Math.floor(list.length / 12);
  let at = index * 37;
  return () => list[(at += step) % list.length]!;
}

const CAPABILITY = { 'SCHILY.xattr.security.capability': Buffer.from(`0100000200200000${'0'.repeat(24)}`, 'hex') };

/** The layer of the application with this number. */
export function appLayer(index: number, { root, files, folders, linked }: BasePaths): AppLayer {
  const entries: Uint8Array[] = [];
  const [hidden, emptied, directories, others]: [string[], string[], string[], string[]] = [[], [], [], []];
  const directory = (path: string, spec?: TarSpec): void => {
    directories.push(path);
    entries.push(tarDir(path, spec));
  };
  const other = (path: string, ...bytes: Uint8Array[]): void => {
    others.push(path);
    entries.push(...bytes);
  };
  const file = (path: string, content: string, spec?: TarSpec): void => other(path, tarFile(path, content, spec));
  const symlink = (path: string, target: string): void =>
    other(path, tarSymlink(path, target, { uid: 3, mtime: 1_600_000_001 }));
  const hardlink = (path: string, target: string): void => other(path, tarHardlink(path, target));
  const marker = (path: string): void => void entries.push(tarFile(path));
  const hide = (path: string): void => {
    hidden.push(path);
    marker(path.replace(/[^/]*$/, '.wh.$&'));
  };
  const makeOpaque = (path: string): void => {
    emptied.push(path);
    marker(`${path}/.wh..wh..opq`);
  };
  const text = (what: string): string => `${what} by application ${index}\n`.repeat(5 + (index % 90));
  const folder = picker(folders, index);
  const [removed, opaque, opaqueAlone, toFile, toLink] = [folder(), folder(), folder(), folder(), folder()];
  const [restated, thinned] = [folder(), folder()];
  const used = [removed, opaque, opaqueAlone, toFile, toLink, thinned];
  const free = picker(
    files.filter((path) => !used.some((parent) => path.startsWith(`${parent}/`))),
    index,
  );
  const own = `opt/app-${index}`;

  if (index % 2 === 1) directory('opt', { mode: 0o751, mtime: 1_500_000_000 + index });
  // What the root and /run are like depends on it.
  if (index % 3 === 1) directory('usr', { mode: 0o755, mtime: 1_510_000_000 + index });
  directory(own, { mode: 0o1770, uid: index, gid: 100_000 + index, mtime: 1_600_000_000 });
  const count = 20 + ((index * 53) % 181);
  for (let k = 0; k < count; k++) {
    const part = `${own}/part-${k % 6}`;
    if (k < 6) directory(part, { mode: k === 3 ? 0o2755 : 0o755, mtime: 1_600_000_000 + k });
    // Those of a fifth of the files are the same in many applications, and some are so short that they are no objects.
    const line = k % 5 === 0 ? `file ${k} of all\n` : `file ${k} of ${index}\n`;
    const spec = { mode: k % 7 === 0 ? 0o4711 : 0o640, uid: k, gid: index, mtime: 1_600_000_000 - k };
    other(
      `${part}/file-${k}`,
      paxHeader({ mtime: `${spec.mtime}.${String(k * 1_000_003).padStart(9, '0')}`, 'SCHILY.xattr.user.kept': 'no' }),
      tarFile(`${part}/file-${k}`, line.repeat(1 + ((k * k * 7 + index) % 200)), spec),
    );
  }
  hardlink(`${own}/second-name`, `${own}/part-1/file-1`);
  symlink(`${own}/link`, `part-0/file-${index}`);
  other(`${own}/fifo`, tarEntry(`${own}/fifo`, { type: '6', mode: 0o600 }));
  other(`${own}/null`, tarEntry(`${own}/null`, { type: '3', devmajor: 1, devminor: 3, mode: 0o666 }));
  file(`${own}/na\xefve name`, text('named'));

  for (const path of [free(), free(), free()]) file(path, text('replaced'), { mode: 0o600 + (index % 8), gid: 5 });
  const capable = free();
  other(capable, paxHeader(CAPABILITY), tarFile(capable, text('with a capability'), { mode: 0o755 }));
  const restatedFile = free();
  file(restatedFile, readFileSync(`${root}/${restatedFile}`, 'latin1'), { mode: 0o400, mtime: 1_600_000_002 });
  hide(free());
  hide(removed);
  // Everything of a folder but the folder, which the layer does not mention.
  for (const path of files.filter((name) => name.startsWith(`${thinned}/`))) hide(path);
  directory(opaque, { mode: 0o711, mtime: 1_600_000_003 });
  makeOpaque(opaque);
  file(`${opaque}/alone`, text('alone'));
  makeOpaque(opaqueAlone);
  file(toFile, text('in the place of a directory'));
  hide(toLink);
  symlink(toLink, `/${own}`);
  const toFolder = free();
  directory(toFolder, { mtime: 1_600_000_004 });
  file(`${toFolder}/inside`, text('inside'));
  symlink(free(), 'nowhere');
  directory(restated, { mode: 0o2711, uid: 9, gid: 70_000, mtime: 1_600_000_005 });
  hardlink(`${own}/of-the-base`, free());
  const moved = free();
  file(moved, text('with two names'), { mtime: 1_600_000_006 });
  hardlink(`${own}/of-both`, moved);
  hardlink(free(), `${own}/part-2/file-2`);
  if (index % 3 === 2) hide(linked[index % linked.length]!);
  return { tar: tar(entries), hidden, emptied, directories, others };
}
