/**
 * Labels a bootable tree by the SELinux policy that it carries, a pure function of the tree (composefs-rs's rules). An
 * image without policy gets no labels; a policy that cannot be read is an error, because a wrong label is worse.
 */

import { runInNewContext } from 'node:vm';
import { HostctlError } from '../errors.ts';
import { addSubstitutions, FileContexts, parseSelinuxType, type TypeLetter } from '../format/selinux/file-contexts.ts';
import { settleLinks } from '../tree/links.ts';
import { lookup } from '../tree/lookup.ts';
import { compareRaw, displayRaw, rawToBytes, type RawName } from '../tree/name.ts';
import { inodeOf, NO_XATTRS, type DirectoryNode, type LeafNode, type Metadata, type TreeNode } from '../tree/node.ts';

const LABEL = 'security.selinux' as RawName;
const CONFIG = 'etc/selinux/config';

/** Largest policy file that is read. */
export const MAX_POLICY_BYTES = 8 << 20;

/** Whether labelling may need this file: its content has to be kept at hand while the layers are read. */
export function isPolicyFile(path: RawName): boolean {
  return path === CONFIG || /^etc\/selinux\/[^/]+\/contexts\/files\/file_contexts(?:\.[a-z_]+)?$/.test(path);
}

/** A real policy labels a million files in less than a minute. */
const LIMIT_MS = 10 * 60_000;

/**
 * Sets or removes `security.selinux` everywhere. Throws 'image-invalid' or 'image-unsupported', also for a policy whose
 * patterns take time without end: they are regular expressions of the image's own making.
 */
export function relabel(root: DirectoryNode, limitMs = LIMIT_MS): void {
  const policy = readPolicy(root);
  try {
    // Only the watchdog of a context can stop a regular expression.
    runInNewContext('label()', { label: () => labelTree(root, policy) }, { timeout: limitMs });
  } catch (cause) {
    // It is an error of that context, so no instance of our Error.
    if ((cause as { code?: unknown }).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw cause;
    throw new HostctlError(
      'image-unsupported',
      `Labelling by the image's SELinux policy takes over ${limitMs / 1000} s`,
      {
        hint: 'A pattern in its file_contexts is made so that matching never ends: repair the policy.',
        cause,
      },
    );
  }
}

function labelTree(root: DirectoryNode, policy: Policy | undefined): void {
  const labels = new Map<LeafNode, RawName | undefined>();
  const labeller = new Labeller();
  let hasSplit = false;
  const stack: Visit[] = [];
  const enter = (directory: DirectoryNode, path: string): void => {
    stack.push({ directory, path, names: [...directory.entries.keys()].sort(compareRaw), at: 0 });
  };
  labeller.set(root, policy?.contexts.lookup('/' as RawName, 'd'));
  enter(root, '');
  for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
    const name = top.names[top.at++];
    if (name === undefined) {
      stack.pop();
      continue;
    }
    const entry = top.directory.entries.get(name)!;
    const inode = inodeOf(entry);
    const path = substituted(`${top.path}/${name}`, policy);
    const label = policy?.contexts.lookup((path === '' ? '/' : path) as RawName, typeLetter(inode));
    if (entry.kind !== 'hardlink') {
      labeller.set(inode, label);
      if (inode.kind === 'directory') enter(inode, path);
      else if (inode.nlink > 1) labels.set(inode, label);
    } else if (labels.get(entry.target) !== label) {
      const own = { ...entry.target };
      labeller.set(own, label);
      top.directory.entries.set(name, own);
      hasSplit = true;
    }
  }
  if (hasSplit) settleLinks(root);
}

interface Visit {
  readonly directory: DirectoryNode;
  /** Where the policy looks the directory up; empty for the root. */
  readonly path: string;
  readonly names: readonly RawName[];
  at: number;
}

interface Policy {
  readonly contexts: FileContexts;
  readonly aliases: ReadonlyMap<string, string>;
}

function readPolicy(root: DirectoryNode): Policy | undefined {
  const config = readText(root, CONFIG);
  const type = config === undefined ? undefined : parseSelinuxType(config);
  if (type === undefined) return undefined;
  if (type === '' || type === '.' || type === '..' || type.includes('/')) {
    throw new HostctlError(
      'image-invalid',
      `"/${CONFIG}" names the policy "${displayRaw(type as RawName)}", which is no name`,
    );
  }
  const directory = `etc/selinux/${type}/contexts/files`;
  const contexts = new FileContexts();
  for (const suffix of ['', '.local', '.homedirs']) {
    const file = `${directory}/file_contexts${suffix}`;
    const text = readText(root, file);
    if (text !== undefined) contexts.add(text, `"/${displayRaw(file as RawName)}"`);
    else if (suffix === '')
      throw new HostctlError('image-invalid', `Image has no file "/${displayRaw(file as RawName)}"`);
  }
  const aliases = new Map<string, string>();
  for (const suffix of ['.subs', '.subs_dist']) {
    const file = `${directory}/file_contexts${suffix}`;
    const text = readText(root, file);
    if (text !== undefined) addSubstitutions(aliases, text, `"/${displayRaw(file as RawName)}"`);
  }
  return { contexts, aliases };
}

/** A file as latin1 text, or undefined if it is not there. */
function readText(root: DirectoryNode, path: string): string | undefined {
  const node = lookup(root, path);
  if (node === undefined) return undefined;
  const shown = `"/${displayRaw(path as RawName)}"`;
  if (node.kind !== 'file') throw new HostctlError('image-unsupported', `${shown} is a ${node.kind} instead of a file`);
  const { bytes } = node.content;
  if (bytes === undefined) {
    throw new HostctlError(
      'image-unsupported',
      `Cannot label by ${shown}: it is over ${MAX_POLICY_BYTES} bytes or has another name`,
    );
  }
  return Buffer.from(bytes).toString('latin1');
}

function substituted(path: string, policy: Policy | undefined): string {
  const original = policy?.aliases.get(path);
  return original === undefined ? path : original.replace(/\/+$/, '');
}

/** Gives nodes their labels. Those that have nothing else share the xattrs of each label. */
class Labeller {
  readonly #alone = new Map<RawName | undefined, Metadata['xattrs']>([[undefined, NO_XATTRS]]);

  set(node: TreeNode, label: RawName | undefined): void {
    const others = [...node.xattrs].filter(([name]) => name !== LABEL);
    if (others.length === 0) node.xattrs = this.#labelOnly(label);
    else node.xattrs = new Map([...others, ...this.#labelOnly(label)]);
  }

  #labelOnly(label: RawName | undefined): Metadata['xattrs'] {
    let xattrs = this.#alone.get(label);
    if (xattrs === undefined) {
      // As composefs-rs writes it: without the NUL at the end that the kernel's own labels have.
      xattrs = new Map([[LABEL, Uint8Array.from(rawToBytes(label!))]]);
      this.#alone.set(label, xattrs);
    }
    return xattrs;
  }
}

function typeLetter(node: TreeNode): TypeLetter {
  switch (node.kind) {
    case 'directory':
      return 'd';
    case 'file':
      return '-';
    case 'symlink':
      return 'l';
    case 'fifo':
      return 'p';
    case 'socket':
      return 's';
    case 'block':
      return 'b';
    case 'char':
      return 'c';
  }
}
