/**
 * Other programs on the table of images: what umoci unpacks, and what GNU tar and bsdtar extract of a layer, against the
 * tree that hostctl reads. Where a program does something else, the case says why; a reason that explains nothing any
 * more fails too.
 */

import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { fsverityDigest } from '../../src/format/fsverity/digest.ts';
import type { FileNode, VerityDigest } from '../../src/tree/node.ts';
import type { ObjectSink } from '../../src/tree/objects.ts';
import { imageCases } from '../image/cases/all.ts';
import {
  factDifferences,
  factsOfDirectory,
  factsOfTree,
  type FileFact,
  type FileFacts,
} from '../helpers/file-facts.ts';
import { isRefusal, readCase, writeCase, type CaseOptions, type ImageCase } from '../helpers/image-cases.ts';
import { refName } from '../helpers/oci-builder.ts';
import { missingPrograms } from '../helpers/requires.ts';
import { tar } from '../helpers/tar-builder.ts';
import { testHost } from '../helpers/test-host.ts';

const CAPABILITY = 'security.capability';

/** Keeps every large file. */
function keepingSink(objects: Map<VerityDigest, Uint8Array>): ObjectSink {
  return {
    algorithm: 'sha256',
    create() {
      const pieces: Uint8Array[] = [];
      return {
        write: (chunk) => void pieces.push(Uint8Array.from(chunk)),
        finish() {
          const bytes = Buffer.concat(pieces);
          const digest = fsverityDigest('sha256', bytes);
          objects.set(digest, bytes);
          return digest;
        },
        abort: () => undefined,
      };
    },
  };
}

async function ours(directory: string, options?: CaseOptions): Promise<FileFacts> {
  const objects = new Map<VerityDigest, Uint8Array>();
  const { tree } = await readCase(directory, options, keepingSink(objects));
  const contentOf = ({ content }: FileNode) => [
    content.kind === 'inline' ? content.bytes : objects.get(content.digest!)!,
  ];
  return comparable(factsOfTree(tree, contentOf));
}

function theirs(directory: string): FileFacts {
  const { syscalls } = testHost();
  return comparable(factsOfDirectory(directory, (path) => syscalls.listXattrs(path)));
}

/** Without the root and `/usr`, the times of directories, and the xattrs that hostctl drops. */
function comparable(facts: FileFacts): FileFacts {
  const kept = [...facts].filter(([path]) => path !== '/' && path !== '/usr');
  return new Map(kept.map(([path, fact]) => {
    const { [CAPABILITY]: capability } = fact.xattrs;
    const xattrs: FileFact['xattrs'] = capability === undefined ? {} : { [CAPABILITY]: capability };
    return [path, { ...fact, xattrs, mtime: fact.kind === 'directory' ? '' : fact.mtime }];
  })); // prettier-ignore
}

type Program = 'umoci' | 'gnuTar' | 'bsdtar';

/** The accepted cases, with whether and why the program disagrees. */
function casesFor(program: Program, concerns: (row: ImageCase) => boolean) {
  return imageCases
    .filter((row) => !isRefusal(row[3]) && row[4]?.notOnDisk !== true && concerns(row))
    .map((row) => [`${row[0]} ${row[1]}`, row, row[4]?.[program]] as const);
}

/** Stands the program's tree against ours; a reason for a difference must be about one. */
async function compareWith(
  row: ImageCase,
  reason: string | undefined,
  unpack: (directory: string) => string,
): Promise<void> {
  const directory = writeCase(row);
  const expected = await ours(directory, row[4]);
  let differences: string[];
  try {
    differences = factDifferences(expected, theirs(unpack(directory)));
  } catch (error) {
    differences = [String((error as { stderr?: Buffer }).stderr ?? error)];
  }
  if (reason === undefined) expect(differences).toEqual([]);
  else expect(differences, reason).not.toEqual([]);
}

const isRoot = process.getuid?.() === 0;

describe.skipIf(!isRoot || missingPrograms('umoci').length > 0)('umoci unpack', () => {
  // Which image a document leads to is not a question of trees.
  test.each(casesFor('umoci', ([rule]) => !rule.startsWith('D')))('%s', async (_title, row, reason) => {
    await compareWith(row, reason, (directory) => {
      const file = `${directory}/index.json`;
      const index = JSON.parse(readFileSync(file, 'utf8')) as { manifests: object[] };
      const manifests = [{ ...index.manifests[0], annotations: refName('x') }];
      writeFileSync(file, JSON.stringify({ ...index, manifests }));
      execFileSync('umoci', ['unpack', '--image', `${directory}:x`, `${directory}/bundle`], { stdio: 'pipe' });
      return `${directory}/bundle/rootfs`;
    });
  });
});

/** One layer that is a tar, without markers. */
function archiveOf([rule, , layers]: ImageCase): Buffer | undefined {
  const [layer] = layers;
  if (layers.length !== 1 || layer === undefined || /^[WDC]/.test(rule)) return undefined;
  return Buffer.isBuffer(layer) ? layer : 'tar' in layer ? undefined : tar(layer);
}

const env = { ...process.env, LC_ALL: 'C.UTF-8' };

describe.each<readonly [Program, string, readonly string[]]>([
  ['gnuTar', 'tar', ['--extract', '--preserve-permissions', '--same-owner', '--numeric-owner', '--xattrs', '--xattrs-include=security.capability']],
  ['bsdtar', 'bsdtar', ['-x', '-p', '--numeric-owner']],
])('%s', (program, command, args) => {
  const skipped = !isRoot || missingPrograms(command).length > 0;
  // Both refuse links as parents, or keep them from leaving the directory.
  const rows = casesFor(program, (row) => row[0] !== 'T9' && archiveOf(row) !== undefined);
  test.skipIf(skipped).each(rows)('%s', async (_title, row, reason) => {
    await compareWith(row, reason, (directory) => {
      const root = `${directory}/root`;
      mkdirSync(root);
      execFileSync(command, args, { cwd: root, input: archiveOf(row), stdio: 'pipe', env });
      return root;
    });
  });
}); // prettier-ignore
