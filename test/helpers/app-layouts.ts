/** Application images on one base, with everything that a layer can do to those below it. */

import { mkdirSync } from 'node:fs';
import { ociLayout } from './oci-builder.ts';
import { paxHeader, tar, tarDir, tarFile, tarHardlink, tarSymlink } from './tar-builder.ts';

/** Enough that an image over them is worth splitting. */
const BASE_FILES = 1000;

function baseLayer(): Uint8Array {
  const directories = ['dev', 'etc', 'proc', 'run', 'sys', 'tmp', 'usr', 'usr/bin', 'usr/share', 'var'];
  const large = (name: string): Uint8Array => tarFile(`usr/share/${name}`, `the file ${name} of the base\n`.repeat(9));
  return tar([
    ...directories.map((name) => tarDir(name)),
    ...Array.from({ length: BASE_FILES }, (_, i) => large(`base-${i % 40}/file-${i}`)),
    ...['replaced', 'removed', 'linked', 'linked-later', 'becomes-directory', 'opaque/one', 'opaque/two'].map(large),
    tarHardlink('usr/share/linked-too', 'usr/share/linked'),
    tarDir('usr/share/emptied', { mode: 0o750 }),
    tarFile('usr/share/emptied/gone', 'gone'),
    tarDir('usr/share/becomes-link'),
  ]);
}

function appLayer(name: string): Uint8Array {
  return tar([
    tarFile(`usr/bin/${name}`, `the program of ${name}\n`.repeat(40), { mode: 0o4755, uid: 7, mtime: 1_600_000_000 }),
    tarFile('usr/share/replaced', `replaced by ${name}\n`.repeat(9)),
    tarFile('usr/share/.wh.removed', ''),
    tarFile('usr/share/emptied/.wh.gone', ''),
    tarHardlink('usr/share/linked-to-app', 'usr/share/linked-later'),
    tarFile('usr/share/opaque/.wh..wh..opq', ''),
    tarFile('usr/share/opaque/three', name),
    tarFile('usr/share/.wh.becomes-directory', ''),
    tarDir('usr/share/becomes-directory/new'),
    tarFile('usr/share/.wh.becomes-link', ''),
    tarSymlink('usr/share/becomes-link', 'linked'),
    tarDir('usr/share/base-3', { mode: 0o2711, gid: 70_000 }),
    Buffer.concat([
      paxHeader({ 'SCHILY.xattr.security.capability': Buffer.from(`0100000200200000${'0'.repeat(24)}`, 'hex') }),
      tarFile('usr/share/base-4/file-4', 'with a capability'),
    ]),
  ]);
}

/** An `oci:` reference for each name; the layouts lie in `parent`. */
export function appLayouts<Name extends string>(parent: string, ...names: readonly Name[]): Record<Name, string> {
  const base = baseLayer();
  const references = names.map((name) => {
    const directory = `${parent}/${name}`;
    mkdirSync(directory, { recursive: true });
    ociLayout(directory, {
      layers: [
        { tar: base, compression: 'gzip' },
        { tar: appLayer(name), compression: 'none' },
      ],
    });
    return [name, `oci:${directory}`] as const;
  });
  return Object.fromEntries(references) as Record<Name, string>;
}
