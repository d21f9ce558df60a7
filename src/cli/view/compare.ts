/** Why two images differ, for people and machines: each path with each field of it, on both sides. Pure. */

import type { CompareResult, ImageDifference } from '../../ops/compare-images.ts';
import type { TreeAspect } from '../../tree/diff.ts';
import { displayRaw, rawFromBytes, rawFromText, type RawName } from '../../tree/name.ts';
import type { TreeNode } from '../../tree/node.ts';

interface Field {
  readonly field: string;
  readonly a: string;
  readonly b: string;
}

const LETTERS = { added: 'B', removed: 'A', modified: 'M' } as const;

export function compareRecord({ differences, ...rest }: CompareResult): object {
  return {
    ...rest,
    differences: differences.map((difference) => ({
      path: displayRaw(difference.path),
      only: difference.kind === 'added' ? 'b' : difference.kind === 'removed' ? 'a' : null,
      fields: fieldsOf(difference),
    })),
  };
}

export function* compareText({ a, b, equal, notes, differences }: CompareResult): Generator<string, void> {
  for (const [letter, { name, parameters, digest, bootable }] of [
    ['A', a],
    ['B', b],
  ] as const) {
    yield `${letter}  ${shown(name)}${bootable ? ' (as it is booted)' : ''}\n   ${parameters}:${digest}\n`;
  }
  for (const note of notes) yield `${note}\n`;
  if (equal)
    yield a.digest === b.digest
      ? 'The same\n'
      : `The trees are the same; the digests differ by how they are made: ${a.parameters} and ${b.parameters}\n`;
  for (const difference of differences) {
    yield `${LETTERS[difference.kind]}  ${displayRaw(difference.path)}\n`;
    for (const { field, a: left, b: right } of fieldsOf(difference)) yield `     ${field}: ${left} | ${right}\n`;
  }
}

function fieldsOf(difference: ImageDifference): Field[] {
  if (difference.kind === 'added') return [{ field: 'type', a: 'nothing', b: difference.after.kind }];
  if (difference.kind === 'removed') return [{ field: 'type', a: difference.before.kind, b: 'nothing' }];
  const { before, after, aspects, names } = difference;
  return aspects.flatMap((aspect) => {
    if (aspect === 'xattrs') return xattrFields(before, after);
    if (aspect === 'links') return [{ field: 'links', a: namesText(names[0]), b: namesText(names[1]) }];
    return [{ field: aspect, a: valueOf(before, aspect), b: valueOf(after, aspect) }];
  });
}

function valueOf(node: TreeNode, aspect: Exclude<TreeAspect, 'xattrs' | 'links'>): string {
  switch (aspect) {
    case 'type':
      return node.kind;
    case 'mode':
      return node.mode.toString(8).padStart(4, '0');
    case 'owner':
      return `${node.uid}:${node.gid}`;
    case 'mtime':
      return `${node.mtime.sec}.${String(node.mtime.nsec).padStart(9, '0')}`;
    case 'target':
      return node.kind === 'symlink' ? displayRaw(node.target) : '';
    case 'device':
      return 'rdev' in node ? `0x${node.rdev.toString(16)}` : '';
    case 'content':
      return node.kind === 'file' ? contentText(node.content) : '';
  }
}

function contentText(content: Extract<TreeNode, { kind: 'file' }>['content']): string {
  if (content.kind === 'external') return `${content.size} bytes, ${content.digest ?? 'no digest'}`;
  return `${content.bytes.length} bytes, "${displayRaw(rawFromBytes(content.bytes))}"`;
}

function xattrFields(a: TreeNode, b: TreeNode): Field[] {
  const value = (node: TreeNode, name: RawName): string => {
    const bytes = node.xattrs.get(name);
    return bytes === undefined ? 'none' : `"${displayRaw(rawFromBytes(bytes))}"`;
  };
  return [...new Set([...a.xattrs.keys(), ...b.xattrs.keys()])]
    .sort()
    .map((name) => ({ field: `xattr ${displayRaw(name)}`, a: value(a, name), b: value(b, name) }))
    .filter((field) => field.a !== field.b);
}

function namesText(names: readonly RawName[]): string {
  return names.length === 0 ? 'one name' : names.map(displayRaw).join(', ');
}

function shown(name: string): string {
  return displayRaw(rawFromText(name));
}
