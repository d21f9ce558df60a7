/**
 * The form that seals and revocation lists share: printable ASCII, lines of `key value`, the first of which names the
 * kind and its version. Simple enough for a shell to read in the initramfs. Only signed bytes are ever parsed.
 */

import { HostctlError } from '../../errors.ts';

export const MAX_SEAL_BYTES = 65536;

/** The lines behind the first, in order. Throws 'format-invalid', also for another kind or version. */
export function parseLines(bytes: Uint8Array, kind: string): readonly (readonly [key: string, value: string])[] {
  if (bytes.length > MAX_SEAL_BYTES) throw invalid(kind, `it has more than ${MAX_SEAL_BYTES} bytes`);
  const text = Buffer.from(bytes).toString('latin1');
  if (!/^[\x20-\x7e\n]*\n$/.test(text)) throw invalid(kind, 'it is not printable ASCII, or its last line has no end');
  const [first, ...rest] = text.slice(0, -1).split('\n');
  if (first !== `${kind} 1`) throw invalid(kind, `its first line is not "${kind} 1"`);
  return rest.map((line) => {
    const [, key, value] = /^([a-z][a-z-]*) (\S+)$/.exec(line) ?? [];
    if (key === undefined || value === undefined) throw invalid(kind, `"${line.slice(0, 100)}" is no "key value"`);
    return [key, value] as const;
  });
}

export function formatLines(kind: string, lines: readonly (readonly [key: string, value: string])[]): Uint8Array {
  return Buffer.from(`${kind} 1\n${lines.map(([key, value]) => `${key} ${value}\n`).join('')}`);
}

export function invalid(kind: string, problem: string): HostctlError {
  return new HostctlError('format-invalid', `Cannot read the ${kind === 'hostctl-seal' ? 'seal' : 'list'}: ${problem}`);
}
