/**
 * Finds directories of the tree by path, following symlinks as a process confined to the tree would: absolute targets
 * start at its root, ".." stops there, at most 40 links. Never looks at the host. No recursion.
 */

import { HostctlError } from '../errors.ts';
import { displayRaw, type RawName } from '../tree/name.ts';
import { inodeOf, NO_XATTRS, type DirectoryNode, type TreeNode } from '../tree/node.ts';
import type { LayerIndexNode, Stated } from './layer-index.ts';

const MAX_LINKS = 40;
/** Components gone through behind symlinks, for a whole image: short names must not buy endless walks. */
const MAX_LINKED_STEPS = 100_000_000;

/** A directory and the way there without symlinks. */
export interface Place {
  readonly directory: DirectoryNode;
  /** Bytes of the path to it, with a slash behind each component. */
  readonly pathBytes: number;
  names(): readonly RawName[];
}

interface Step {
  readonly directory: DirectoryNode;
  readonly name: RawName;
  readonly index: LayerIndexNode | undefined;
}

/** What stands in the way; `missing` is the only one that a directory can be made for. */
type Obstacle = 'missing' | 'dangling' | 'loop' | 'not-directory';

export class PathResolver {
  readonly #root: DirectoryNode;
  #linkedSteps = 0;

  constructor(root: DirectoryNode) {
    this.#root = root;
  }

  /** The directory that entries below these components go into. Makes missing ones; refuses every other obstacle. */
  parentDirectory(components: readonly RawName[]): Place {
    const result = this.#walk(components, { create: true });
    if (typeof result !== 'string') return result;
    const shown = displayRaw(components.join('/') as RawName);
    const complaint = {
      missing: 'does not exist',
      dangling: 'leads through a symlink to nothing',
      loop: `leads through more than ${MAX_LINKS} symlinks`,
      'not-directory': 'leads through something that is no directory',
    }[result];
    throw new HostctlError('image-invalid', `Parent "${shown}" ${complaint}`);
  }

  /** The directory there is at these components, or undefined. */
  existingDirectory(components: readonly RawName[]): Place | undefined {
    const result = this.#walk(components, {});
    return typeof result === 'string' ? undefined : result;
  }

  /**
   * The directory of lower layers that a marker below these components means, or undefined. Where the layer itself
   * makes something of a component, that counts, not what lies below.
   */
  lowerDirectory(components: readonly RawName[], index: LayerIndexNode): Place | undefined {
    const result = this.#walk(components, { index });
    return typeof result === 'string' ? undefined : result;
  }

  #walk(components: readonly RawName[], options: { create?: boolean; index?: LayerIndexNode }): Place | Obstacle {
    const steps: Step[] = [{ directory: this.#root, name: '' as RawName, index: options.index }];
    // What is still to go, last component first; those from symlinks are on top.
    const pending = components.toReversed();
    let fromLinks = 0;
    let links = 0;
    /** The layer's own word on the path as it was written, while no component of a symlink is being gone through. */
    let written = options.index;
    for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
      const isFromLink = fromLinks > 0;
      if (isFromLink) fromLinks--;
      if (links > 0 && ++this.#linkedSteps > MAX_LINKED_STEPS) {
        throw new HostctlError('image-unsupported', 'Image sends its entries through too many symlinks');
      }
      if (name === '..') {
        if (steps.length > 1) steps.pop();
        continue;
      }
      const here = steps.at(-1)!;
      const index = here.index?.children.get(name);
      if (!isFromLink) written = written?.children.get(name);
      const stated = index?.stated ?? (isFromLink ? undefined : written?.stated);
      const entry = here.directory.entries.get(name);
      let node = entry === undefined ? undefined : inodeOf(entry);
      if (node === undefined && options.create === true) {
        if (isFromLink) return 'dangling';
        node = impliedDirectory();
        here.directory.entries.set(name, node);
      }
      const target = linkTarget(node, stated);
      if (target !== undefined) {
        if (++links > MAX_LINKS) return 'loop';
        if (target.startsWith('/')) steps.length = 1;
        const parts = target.split('/').filter((part) => part !== '' && part !== '.') as RawName[];
        for (let i = parts.length - 1; i >= 0; i--) pending.push(parts[i]!);
        fromLinks += parts.length;
        continue;
      }
      if (node === undefined) return 'missing';
      if (node.kind !== 'directory' || stated?.kind === 'other') return 'not-directory';
      steps.push({ directory: node, name, index });
    }
    return placeOf(steps);
  }
}

/** Where to go on if this is a symlink: by the layer's own entry, or else by the tree. */
function linkTarget(node: TreeNode | undefined, stated: Stated | undefined): RawName | undefined {
  if (stated !== undefined) return stated.kind === 'symlink' ? stated.target : undefined;
  return node?.kind === 'symlink' ? node.target : undefined;
}

function placeOf(steps: readonly Step[]): Place {
  let pathBytes = 0;
  for (let i = 1; i < steps.length; i++) pathBytes += steps[i]!.name.length + 1;
  return {
    directory: steps.at(-1)!.directory,
    pathBytes,
    names: () => steps.slice(1).map(({ name }) => name),
  };
}

/** A directory that only the entries in it speak of: 0755, root, 1970. */
export function impliedDirectory(): DirectoryNode {
  return {
    kind: 'directory',
    mode: 0o755,
    uid: 0,
    gid: 0,
    mtime: { sec: 0n, nsec: 0 },
    xattrs: NO_XATTRS,
    entries: new Map(),
  };
}
