/**
 * GRUB's environment block ("grubenv"): 1024 bytes that GRUB and hostctl both write in place, GRUB with nothing but the
 * list of the sectors it was read from. One line at the top says what it is; then come `name=value` lines, in which a
 * backslash takes the meaning from a line break or backslash behind it, and `#` up to the end. Pure.
 */

import { HostctlError } from '../../errors.ts';

/** Neither more nor less. */
export const ENVIRONMENT_BYTES = 1024;
/** What a disk writes as a whole: what has to change together stands in the first. */
const SECTOR_BYTES = 512;
const SIGNATURE = '# GRUB Environment Block\n';
const FILLING = '#';
/**
 * A comment, an assignment, or what GRUB stumbles over. As it reads, a name goes up to the next "=", whatever is in
 * between, and only a value or a comment can take the meaning from a line break.
 */
const LINE = /#(?:\\[^]|[^\\\n])*\n|([^#=][^=]*)=((?:\\[^]|[^\\\n])*)\n|[^]+/g;

/** By name, both as latin1: to GRUB they are bytes. */
export type EnvironmentVariables = ReadonlyMap<string, string>;

interface Line {
  /** As it stands in the block, with the line break at its end. */
  readonly text: string;
  /** Undefined for what is no assignment. */
  readonly assignment: readonly [name: string, value: string] | undefined;
}

export function emptyEnvironment(): Uint8Array {
  return Buffer.from(SIGNATURE.padEnd(ENVIRONMENT_BYTES, FILLING), 'latin1');
}

/** What GRUB's `load_env` reads; of two lines of one name the last. Throws `format-invalid` where it reads nothing. */
export function parseEnvironment(block: Uint8Array): EnvironmentVariables {
  return new Map(linesOf(block).flatMap(({ assignment }) => (assignment === undefined ? [] : [assignment])));
}

/**
 * The block with other values of some variables, which then stand first; undefined takes one away. Whatever else is in
 * it stays as it is. Throws `format-invalid` when it is no block, or they do not fit.
 */
export function changeEnvironment(
  block: Uint8Array,
  changes: Readonly<Record<string, string | undefined>>,
): Uint8Array {
  const others = linesOf(block).filter(({ assignment }) => !((assignment?.[0] ?? '') in changes));
  const set = Object.entries(changes).flatMap(([name, value]) => (value === undefined ? [] : formatLine(name, value)));
  const first = SIGNATURE + set.join('');
  const text = first + others.map((line) => line.text).join('');
  if (first.length > SECTOR_BYTES || text.length > ENVIRONMENT_BYTES) {
    throw invalid(`there is no room for ${Object.keys(changes).join(', ')}`);
  }
  return Buffer.from(text.padEnd(ENVIRONMENT_BYTES, FILLING), 'latin1');
}

function linesOf(block: Uint8Array): Line[] {
  if (block.length !== ENVIRONMENT_BYTES) throw invalid(`it has ${block.length} bytes, not ${ENVIRONMENT_BYTES}`);
  const text = Buffer.from(block).toString('latin1');
  if (!text.startsWith(SIGNATURE)) throw invalid('it does not begin as one');
  const body = text.slice(SIGNATURE.length).replace(/#+$/, '');
  if (body !== '' && !body.endsWith('\n')) throw invalid('its last line does not end');
  return [...body.matchAll(LINE)].map(([text, name, value = '']) => ({
    text,
    assignment: name === undefined ? undefined : [name, value.replace(/\\([^])/g, '$1')],
  }));
}

function formatLine(name: string, value: string): string {
  if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) throw invalid(`it cannot hold the name ${JSON.stringify(name)}`);
  return `${name}=${value.replace(/[\\\n]/g, '\\$&')}\n`;
}

function invalid(problem: string): HostctlError {
  return new HostctlError('format-invalid', `Not an environment block of GRUB: ${problem}`);
}
