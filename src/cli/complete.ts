/**
 * `hostctl --get-completions WORD...`: what the completion scripts of the shells ask. One candidate a line, a tab
 * between it and what it is; a line `:files` where names of files are wanted too. Never an error: a completion that
 * fails offers nothing. Nothing is loaded that is not needed for the very word.
 */

import { readdirSync } from 'node:fs';
import type { Argv } from 'yargs';
import type { StatusResult } from '../ops/status.ts';
import type { Host } from '../sys/host.ts';
import { recordProgram } from './command-tree.ts';
import { completeWords, type Candidate, type Sources } from './complete-words.ts';

const SHOWN_DIGITS = 16;

/** @param words - those behind the program's name, the last one to be completed */
export async function complete(
  words: readonly string[],
  define: (argv: Argv) => unknown,
  signal: AbortSignal,
): Promise<void> {
  const { candidates, files } = await completeWords(recordProgram(define), words, sourcesOn(words, signal));
  const lines = candidates.map(({ value, describe }) => (describe === '' ? value : `${value}\t${oneLine(describe)}`));
  if (files) lines.push(':files');
  process.stdout.write(lines.map((line) => `${line}\n`).join(''));
}

/** No control characters from labels of images. */
function oneLine(text: string): string {
  return text.replace(/[\x00-\x1f\x7f-\x9f]+/g, ' ');
}

/** The host that the words speak of; what cannot be read there offers nothing. */
function sourcesOn(words: readonly string[], signal: AbortSignal): Sources {
  const paths = { sysroot: valueOf(words, 'sysroot'), boot: valueOf(words, 'boot'), repo: valueOf(words, 'repo') };
  const deployed = async (): Promise<StatusResult['deployments']['list']> => {
    const { status } = await import('../ops/status.ts');
    return status(await openQuietHost(signal), paths).deployments.list;
  };
  return {
    deployments: () =>
      orNone(async () =>
        (await deployed()).flatMap(({ id, state, origin }) =>
          id === undefined ? [] : { value: String(id), describe: [state, origin?.title].filter(Boolean).join(', ') },
        ),
      ),
    references: () =>
      orNone(async () => {
        const tracked = (await deployed()).flatMap(({ origin }) => origin?.reference ?? []);
        return [...new Set(tracked)].map((value) => ({ value, describe: '' }));
      }),
    images: () =>
      orNone(async () => {
        const { listAllImages } = await import('../ops/list-images.ts');
        const images = listAllImages(await openQuietHost(signal), paths);
        return images.flatMap(({ digest, names, deployments }) => [
          ...names.map((value) => ({ value, describe: digest.slice(0, SHOWN_DIGITS) })),
          { value: digest, describe: [...names, ...deployments.map((id) => `deployment ${id}`)].join(', ') },
        ]);
      }),
    paths: pathsFrom,
  };
}

async function openQuietHost(signal: AbortSignal): Promise<Host> {
  const { openRealHost } = await import('../sys/real-host.ts');
  const silent = (): void => undefined;
  const log = { debug: silent, info: silent, warn: silent };
  return openRealHost({ log, progress: silent, signal, lockWaitMs: 0 });
}

async function orNone(read: () => Promise<readonly Candidate[]>): Promise<readonly Candidate[]> {
  try {
    return await read();
  } catch {
    // Not readable for this user, or not there: nobody asked for a message.
    return [];
  }
}

function pathsFrom(beginning: string): string[] {
  const directory = beginning.slice(0, beginning.lastIndexOf('/') + 1);
  try {
    return readdirSync(directory === '' ? '.' : directory, { withFileTypes: true })
      .filter((entry) => (directory + entry.name).startsWith(beginning))
      .map((entry) => directory + entry.name + (entry.isDirectory() ? '/' : ''));
  } catch {
    return [];
  }
}

function valueOf(words: readonly string[], name: string): string | undefined {
  const joined = words.find((word) => word.startsWith(`--${name}=`));
  if (joined !== undefined) return joined.slice(name.length + 3);
  const at = words.indexOf(`--${name}`);
  return at < 0 ? undefined : words[at + 1];
}
