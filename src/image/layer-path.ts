/**
 * Paths of tar entries as the tree knows them, and the whiteout markers among them (image-spec layer.md,
 * "Whiteouts"). Nothing that comes out of here holds "..", a marker name, or a name too long for any file system.
 */

import { HostctlError } from '../errors.ts';
import type { RawName } from '../tree/name.ts';

export const MAX_PATH_BYTES = 4095;
const MAX_NAME_BYTES = 255;
const MARKER_PREFIX = '.wh.';
const OPAQUE_MARKER = '.wh..wh..opq';
/** AUFS kept its own files under such names; they never were part of the tree. */
const AUFS_PREFIX = '.wh..wh.';

/** What a layer means by an entry of this name. */
export type LayerPath =
  | { readonly kind: 'plain' | 'whiteout' | 'opaque'; readonly path: RawName }
  /** Leftovers of AUFS. */
  | { readonly kind: 'ignored' };

/** The components of a name, without leading "/", empty ones and ".". Refuses "..", NUL and what is too long. */
export function normalisePath(name: RawName, what: string): RawName {
  if (name === '') throw new HostctlError('image-invalid', `${what} is empty`);
  if (name.includes('\0')) throw new HostctlError('image-invalid', `${what} holds a NUL`);
  const components: string[] = [];
  for (const component of name.split('/')) {
    if (component === '' || component === '.') continue;
    if (component === '..') throw new HostctlError('image-invalid', `${what} holds ".."`);
    if (component.length > MAX_NAME_BYTES) {
      throw new HostctlError(
        'image-invalid',
        `${what} has a component of ${component.length} bytes, at most ${MAX_NAME_BYTES} are allowed`,
      );
    }
    components.push(component);
  }
  const path = components.join('/') as RawName;
  if (path.length > MAX_PATH_BYTES) {
    throw new HostctlError('image-invalid', `${what} has ${path.length} bytes, at most ${MAX_PATH_BYTES} are allowed`);
  }
  return path;
}

/** Reads the name of a tar entry. */
export function parseLayerPath(name: RawName): LayerPath {
  const path = normalisePath(name, 'Name');
  if (!path.includes(MARKER_PREFIX)) return { kind: 'plain', path };
  const components = path.split('/');
  const last = components.pop()!;
  for (const component of components) {
    if (component.startsWith(AUFS_PREFIX) && component !== OPAQUE_MARKER) return { kind: 'ignored' };
    if (component.startsWith(MARKER_PREFIX)) {
      throw new HostctlError('image-invalid', 'Entry lies below a whiteout marker');
    }
  }
  const parent = components.join('/') as RawName;
  if (last === OPAQUE_MARKER) return { kind: 'opaque', path: parent };
  if (last.startsWith(AUFS_PREFIX)) return { kind: 'ignored' };
  if (!last.startsWith(MARKER_PREFIX)) return { kind: 'plain', path };
  const hidden = last.slice(MARKER_PREFIX.length);
  if (hidden === '' || hidden === '.' || hidden === '..') {
    throw new HostctlError('image-invalid', `Whiteout marker hides "${hidden}", which is no name`);
  }
  return { kind: 'whiteout', path: (parent === '' ? hidden : `${parent}/${hidden}`) as RawName };
}
