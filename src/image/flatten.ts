/**
 * Merges layers in order onto one tree (image-spec layer.md, "Applying Changesets"). A layer's whiteouts take effect
 * before its other entries, wherever they stand in the tar: they hide what lower layers put there and nothing else.
 * Symlinked parents are followed inside the tree only. Time grows with the layers' names, not with the tree.
 */

import { HostctlError } from '../errors.ts';
import { withContext } from '../format/error-context.ts';
import { displayRaw, type RawName } from '../tree/name.ts';
import { copyMetadata, inodeOf, type DirectoryNode, type LeafNode, type TreeNode } from '../tree/node.ts';
import { settleLinks } from '../tree/links.ts';
import { copyTree } from '../tree/lookup.ts';
import type { LayerEntry } from '../tree/layer-entry.ts';
import { indexChild, indexLayer, splitPath, type LayerIndexNode } from './layer-index.ts';
import { MAX_PATH_BYTES } from './layer-path.ts';
import { impliedDirectory, PathResolver, type Place } from './resolve.ts';

export class Flattener {
  readonly #root: DirectoryNode = impliedDirectory();
  readonly #resolver = new PathResolver(this.#root);
  readonly #warn: (message: string) => void;
  /** Nodes that the layer being applied has set, to notice a path that it sets twice. */
  #touched = new Set<TreeNode>();
  /** The parent of the last entry: most entries lie beside the one before. */
  #lastParent: { readonly path: RawName; readonly place: Place } | undefined;
  /** What the current layer's markers removed; absent when it has none. */
  #index: LayerIndexNode | undefined;

  /** @param warn - receives what is legal enough to accept, but wrong */
  constructor(warn: (message: string) => void) {
    this.#warn = warn;
  }

  /** Applies the next layer; `label` names it in messages. The tree takes over the entries' nodes. */
  applyLayer(entries: readonly LayerEntry[], label: string): void {
    this.#touched = new Set();
    this.#lastParent = undefined;
    const hasMarkers = entries.some(({ kind }) => kind === 'whiteout' || kind === 'opaque');
    this.#index = hasMarkers ? indexLayer(entries) : undefined;
    if (this.#index !== undefined) {
      for (const entry of entries) this.#applyMarker(entry, this.#index);
    }
    for (const entry of entries) {
      try {
        this.#applyEntry(entry, label);
      } catch (error) {
        throw withContext(`${label}: entry ${entry.number} "${displayRaw(entry.path)}"`, error);
      }
    }
    this.#index = undefined;
    this.#touched = new Set();
  }

  /** A finished copy of the tree as it is after the layers so far. */
  snapshot(): DirectoryNode {
    const copy = copyTree(this.#root);
    settleLinks(copy);
    return copy;
  }

  /** The finished tree. The flattener is of no further use. */
  finish(): DirectoryNode {
    settleLinks(this.#root);
    return this.#root;
  }

  #applyMarker(entry: LayerEntry, index: LayerIndexNode): void {
    if (entry.kind === 'opaque') {
      const place = this.#resolver.lowerDirectory(splitPath(entry.path), index);
      if (place === undefined) return;
      for (const name of [...place.directory.entries.keys()]) this.#remove(place, name, entry.number, index);
    } else if (entry.kind === 'whiteout') {
      const components = splitPath(entry.path);
      const name = components.pop()!;
      const place = this.#resolver.lowerDirectory(components, index);
      if (place !== undefined) this.#remove(place, name, entry.number, index);
    }
  }

  #remove(place: Place, name: RawName, number: number, index: LayerIndexNode): void {
    const entry = place.directory.entries.get(name);
    if (entry === undefined) return;
    place.directory.entries.delete(name);
    let node = index;
    for (const component of place.names()) node = indexChild(node, component);
    indexChild(node, name).removed = { entry, number };
  }

  #applyEntry(entry: LayerEntry, label: string): void {
    if (entry.kind === 'whiteout' || entry.kind === 'opaque') return;
    if (entry.path === '') {
      if (entry.kind !== 'node' || entry.node.kind !== 'directory') {
        throw new HostctlError('image-invalid', 'Root is something other than a directory');
      }
      copyMetadata(entry.node, this.#root);
      return;
    }
    const { place, name } = this.#parent(entry.path);
    if (place.pathBytes + name.length > MAX_PATH_BYTES) {
      throw new HostctlError('image-invalid', `Path is longer than ${MAX_PATH_BYTES} bytes once symlinks are followed`);
    }
    const node = entry.kind === 'hardlink' ? this.#linkTarget(entry, place, name) : entry.node;
    this.#set(place.directory, name, node, () => `${label}: "${displayRaw(entry.path)}" stands in the layer twice`);
  }

  #set(directory: DirectoryNode, name: RawName, node: TreeNode, duplicate: () => string): void {
    const present = directory.entries.get(name);
    const old = present === undefined ? undefined : inodeOf(present);
    if (old !== undefined && this.#touched.has(old)) this.#warn(duplicate());
    if (old?.kind === 'directory' && node.kind === 'directory') {
      copyMetadata(node, old);
      this.#touched.add(old);
      return;
    }
    if (old?.kind === 'directory' || old?.kind === 'symlink') this.#lastParent = undefined;
    directory.entries.set(name, node);
    this.#touched.add(node);
  }

  /** Where an entry goes; missing directories on the way are made. */
  #parent(path: RawName): { place: Place; name: RawName } {
    const slash = path.lastIndexOf('/');
    const parentPath = path.slice(0, Math.max(slash, 0)) as RawName;
    const name = path.slice(slash + 1) as RawName;
    if (this.#lastParent?.path !== parentPath) {
      this.#lastParent = { path: parentPath, place: this.#resolver.parentDirectory(splitPath(parentPath)) };
    }
    return { place: this.#lastParent.place, name };
  }

  #linkTarget(entry: LayerEntry & { readonly kind: 'hardlink' }, linkPlace: Place, linkName: RawName): LeafNode {
    const shown = `Hard link target "${displayRaw(entry.target)}"`;
    const components = splitPath(entry.target);
    const name = components.pop();
    if (name === undefined) throw new HostctlError('image-invalid', `${shown} is a directory`);
    const place = this.#resolver.existingDirectory(components);
    if (place?.directory === linkPlace.directory && name === linkName) {
      throw new HostctlError('image-invalid', `${shown} is the link itself`);
    }
    const present = place?.directory.entries.get(name);
    const found =
      present === undefined
        ? this.#hiddenLater([...(place?.names() ?? components), name], entry.number)
        : inodeOf(present);
    if (found === undefined) throw new HostctlError('image-invalid', `${shown} does not exist`);
    if (found.kind === 'directory') throw new HostctlError('image-invalid', `${shown} is a directory`);
    if (
      linkPlace.directory.entries.get(linkName)?.kind === 'directory' &&
      isWithin(place?.names() ?? components, [...linkPlace.names(), linkName])
    ) {
      throw new HostctlError('image-invalid', `${shown} lies in the directory that the link would replace`);
    }
    return found;
  }

  /** What lay at a path until a marker later in this layer hid it. */
  #hiddenLater(components: readonly RawName[], number: number): TreeNode | undefined {
    let node = this.#index;
    let removed: { node: TreeNode; number: number } | undefined;
    for (const name of components) {
      node = node?.children.get(name);
      if (node?.removed !== undefined) {
        // Deeper removals happened first, or at the same path there would be nothing left to remove.
        removed = { node: inodeOf(node.removed.entry), number: node.removed.number };
      } else if (removed !== undefined) {
        const child = removed.node.kind === 'directory' ? removed.node.entries.get(name) : undefined;
        if (child === undefined) return undefined;
        removed = { node: inodeOf(child), number: removed.number };
      }
    }
    return removed !== undefined && removed.number > number ? removed.node : undefined;
  }
}

function isWithin(path: readonly RawName[], directory: readonly RawName[]): boolean {
  return directory.every((name, i) => path[i] === name);
}
