import { existsSync } from 'node:fs';
import { expect, test } from 'vitest';
import { formatShadowed, parseShadowed, readShadowed, writeShadowed } from '../../src/deploy/etc-shadowed.ts';
import type { RawName } from '../../src/tree/name.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';

const raw = (...paths: string[]): RawName[] => paths as RawName[];

test('any path comes back as itself, sorted and once', () => {
  const text = formatShadowed(raw('ssh/sshd_config', 'a b\n\xff', '', 'ssh/sshd_config', '-'));
  expect(text).toBe('/\n/-\n/a\\x20b\\n\\xff\n/ssh/sshd_config\n');
  expect(parseShadowed(text)).toEqual(raw('', '-', 'a b\n\xff', 'ssh/sshd_config'));
});

test('the record lies beside the /etc it is about, whatever its name is as yet, and need not be there', () => {
  const etc = `${scratchDir()}/etc`;
  expect(readShadowed(etc)).toEqual([]);
  writeShadowed(etc, raw('motd'));
  expect(readShadowed(etc)).toEqual(['motd']);
  writeShadowed(`${etc}.new`, raw('hostname'));
  expect(readShadowed(etc)).toEqual(['hostname']);
  writeShadowed(etc, []);
  expect(existsSync(`${etc}-shadowed`)).toBe(false);
});

test.each([
  ['cut off', '/motd\n/host', 'line 2 is cut off'],
  ['without slash', '/motd\nhost\n', 'line 2 does not begin with a slash'],
  ['with a bad escape', '/mo\\q\n', 'line 1 has the unknown escape "\\q"'],
])('a record %s is refused', (_, text, problem) => {
  expect(() => parseShadowed(text)).toThrow(
    expect.objectContaining({
      code: 'state-invalid',
      message: `Cannot read the list of shadowed defaults: ${problem}`,
    }),
  );
});
