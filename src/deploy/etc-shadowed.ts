/**
 * Which of the image's defaults in `/etc` a local version stands before although the default changed since that
 * version was made: `state/deploy/<name>/etc-shadowed`, one escaped path a line. The defaults themselves are in the
 * deployment's image. Written once, with the deployment's `/etc`; losing it loses a hint, nothing else.
 */

import * as fs from 'node:fs';
import { HostctlError } from '../errors.ts';
import { escapeField, unescapeField } from '../format/dump/escape.ts';
import { readSmallText, replaceFile, split } from '../sys/files.ts';
import { compareRaw, type RawName } from '../tree/name.ts';

const MAX_BYTES = 1 << 20;

/** Writes the record of the deployment in whose directory `etc` lies, under whatever name it has as yet. */
export function writeShadowed(etc: string, paths: readonly RawName[]): void {
  if (paths.length > 0) replaceFile(recordOf(etc), formatShadowed(paths));
  else fs.rmSync(recordOf(etc), { force: true });
}

/** The record beside `etc`; nothing where there is none. Throws 'state-invalid' for a broken one. */
export function readShadowed(etc: string): RawName[] {
  return parseShadowed(readSmallText(recordOf(etc), MAX_BYTES) ?? '');
}

export function formatShadowed(paths: Iterable<RawName>): string {
  return [...new Set(paths)]
    .sort(compareRaw)
    .map((path) => `${escapeField(`/${path}`)}\n`)
    .join('');
}

export function parseShadowed(text: string): RawName[] {
  const lines = text.split('\n');
  if (lines.pop() !== '') throw invalid(lines.length + 1, 'is cut off');
  return lines.map((line, at) => {
    const path = unescapeField(line, (problem) => {
      throw invalid(at + 1, problem);
    });
    if (!path.startsWith('/')) throw invalid(at + 1, 'does not begin with a slash');
    return path.slice(1) as RawName;
  });
}

function recordOf(etc: string): string {
  return `${split(etc).directory}/etc-shadowed`;
}

function invalid(line: number, problem: string): HostctlError {
  return new HostctlError('state-invalid', `Cannot read the list of shadowed defaults: line ${line} ${problem}`);
}
