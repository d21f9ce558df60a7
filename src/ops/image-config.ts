/**
 * The `hostctl.conf` that an image brings, as its boot hook will read it. What the hook would refuse is refused when
 * the image is deployed, not when it boots.
 */

import { HostctlError, isHostctlError } from '../errors.ts';
import { parseBootConfig, type BootConfig } from '../format/boot-config.ts';
import type { ConfigFile } from '../format/config.ts';
import { lookup } from '../tree/lookup.ts';
import { displayRaw, type RawName } from '../tree/name.ts';
import { inodeOf, type DirectoryNode, type FileNode, type TreeNode } from '../tree/node.ts';

type ContentOf = (file: FileNode) => Iterable<Uint8Array>;

const DIRECTORY = '/usr/lib/hostctl';
const FILE = `${DIRECTORY}/hostctl.conf`;
const DROP_INS = `${FILE}.d`;
const MAX_BYTES = 65536;

/** Throws 'image-not-bootable' for a configuration that the boot hook would refuse. */
export function imageBootConfig(tree: DirectoryNode, contentOf: ContentOf): BootConfig {
  try {
    return parseBootConfig(imageConfigFiles(tree, contentOf));
  } catch (error) {
    if (!isHostctlError(error, 'config-invalid')) throw error;
    throw new HostctlError('image-not-bootable', `The image would refuse to boot: ${error.message}`, { cause: error });
  }
}

function imageConfigFiles(tree: DirectoryNode, contentOf: ContentOf): ConfigFile[] {
  for (const path of ['/usr', '/usr/lib', DIRECTORY, DROP_INS]) {
    if (lookup(tree, path)?.kind === 'symlink') throw invalid(path, 'it is a link');
  }
  const main = lookup(tree, FILE);
  return [
    ...(main === undefined ? [] : [configFile(FILE, main, contentOf)]),
    ...dropIns(lookup(tree, DROP_INS)).map(([name, node]) =>
      configFile(`${DROP_INS}/${displayRaw(name)}`, node, contentOf),
    ),
  ];
}

/** Those that the shell's `*.conf` matches, in the order of their bytes. */
function dropIns(directory: TreeNode | undefined): [RawName, TreeNode][] {
  if (directory?.kind !== 'directory') return [];
  return [...directory.entries]
    .filter(([name]) => name.endsWith('.conf') && !name.startsWith('.'))
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, entry]) => [name, inodeOf(entry)]);
}

function configFile(name: string, node: TreeNode, contentOf: ContentOf): ConfigFile {
  if (node.kind !== 'file') throw invalid(name, 'it is not a regular file');
  const chunks = [];
  let size = 0;
  for (const chunk of contentOf(node)) {
    size += chunk.length;
    if (size > MAX_BYTES) throw invalid(name, `it has more than ${MAX_BYTES} bytes`);
    chunks.push(Uint8Array.from(chunk));
  }
  return { name, text: Buffer.concat(chunks).toString('utf8'), isOfImage: true };
}

function invalid(name: string, problem: string): HostctlError {
  return new HostctlError('config-invalid', `Cannot use the configuration "${name}": ${problem}`);
}
