import { describe, expect, test } from 'vitest';
import { completeWords, type Sources } from '../../src/cli/complete-words.ts';
import { recordedProgram } from '../../scripts/lib/program-tree.ts';

const program = recordedProgram();
const some = (...values: string[]) => Promise.resolve(values.map((value) => ({ value, describe: '' })));
const sources: Sources = {
  deployments: () => some('7', '12'),
  images: () => some('abcdef', 'oci:/srv/os:v1'),
  references: () => some('oci:/srv/os:stable'),
  paths: (beginning) => (beginning === '/srv/' ? ['/srv/os/'] : []),
};

/** What is offered for the last word, sorted, with `:files` where files are. */
async function offered(...words: string[]): Promise<string[]> {
  const { candidates, files } = await completeWords(program, words, sources);
  return [...candidates.map(({ value }) => value), ...(files ? [':files'] : [])].sort();
}

describe('completion', () => {
  test.each<[string[], string[]]>([
    [['up'], ['upgrade']],
    [['unp'], ['unpin']],
    [['nothing'], []],
    [
      ['install', ''],
      ['to-disk', 'to-filesystem'],
    ],
    [
      ['rollback', '--to', ''],
      ['12', '7'],
    ],
    [['rollback', '--to', '1'], ['12']],
    [['rollback', '--to=1'], ['--to=12']],
    [['rollback', '--to', '7', '--pl'], ['--plan']],
    [['rollback', '--plan', '--pl'], []],
    [['kargs', '--append', 'a', '--app'], ['--append']],
    [
      ['pin', ''],
      ['12', '7'],
    ],
    [['pin', '7', ''], []],
    [
      ['--json', '--sysroot', '/x', 'pin', ''],
      ['12', '7'],
    ],
    [['--sysroot', ''], [':files']],
    [
      ['--color', 'a'],
      ['always', 'auto'],
    ],
    [['status', '--color=n'], ['--color=never']],
    [['status', '--wait', ''], []],
    [
      ['diff', '7', ''],
      ['12', '7', 'abcdef', 'oci:/srv/os:v1'],
    ],
    [
      ['image', 'ls', ''],
      ['abcdef', 'oci:/srv/os:v1'],
    ],
    [
      ['switch', ''],
      ['oci:', 'oci:/srv/os:stable'],
    ],
    [
      ['switch', 'oci:/srv/'],
      ['oci:/srv/os/', 'oci:/srv/os:stable'],
    ],
    [['install', 'to-disk', '/dev/sda', 'oci:/srv/os:s'], ['oci:/srv/os:stable']],
    [['install', 'to-disk', ''], [':files']],
    [['image', 'mount', '--rw', 'upper', ''], [':files']],
    [
      ['image', 'mount', '--rw', 'upper', 'work', ''],
      ['abcdef', 'oci:/srv/os:v1'],
    ],
    [['fsverity', 'digest', 'one', 'two', ''], [':files']],
    [['image', 'ls', '-R', '--recu'], []],
    [['pin', '--', '-'], []],
  ])('of %j is %j', async (words, expected) => {
    expect(await offered(...words)).toEqual(expected);
  });

  test('of nothing is every verb', async () => {
    expect(await offered('')).toEqual(program.verbs.map(({ name }) => name).sort());
  });

  test('of a dash is every option of the verb and of the program', async () => {
    const options = await offered('install', 'to-disk', '-');
    expect(options).toEqual(expect.arrayContaining(['--karg', '--hash', '--json', '--sysroot', '--help']));
    expect(options).not.toContain('--stage');
  });
});
