import { describe, expect, test } from 'vitest';
import { parseConfig } from '../../src/format/config.ts';

const file = (text: string, name = 'hostctl.conf') => ({ name, text });

describe('the configuration', () => {
  test('has a default for everything', () => {
    expect(parseConfig([])).toEqual({
      deployTries: 3,
      requiredUnits: [],
      retentionKeep: 3,
      etcConflicts: 'ask',
      etcPaths: new Map(),
    });
  });

  test('takes the last file that sets a key', () => {
    expect(
      parseConfig([file('[deploy]\ntries = 5\n'), file('; nothing\n'), file('[deploy]\ntries=1\n')]),
    ).toMatchObject({
      deployTries: 1,
      retentionKeep: 3,
    });
    expect(parseConfig([file('[retention]\nkeep = 2\n')])).toMatchObject({ deployTries: 3, retentionKeep: 2 });
  });

  test('says whose version in /etc counts, for all and path by path', () => {
    const first = '[etc]\nconflicts = keep-local\n[etc.paths]\n/etc/ssh = take-image\n/etc/a b.conf = ask\n';
    const second = '[etc.paths]\n/etc/ssh = keep-local\n';
    expect(parseConfig([file(first), file(second)])).toMatchObject({
      etcConflicts: 'keep-local',
      etcPaths: new Map([
        ['/etc/ssh', 'keep-local'],
        ['/etc/a b.conf', 'ask'],
      ]),
    });
  });

  test('names units that a good boot needs', () => {
    const { requiredUnits } = parseConfig([file('[boot]\nrequire = a.service  b@1.service\n')]);
    expect(requiredUnits).toEqual(['a.service', 'b@1.service']);
    expect(() => parseConfig([file('[boot]\nrequire = --all\n')])).toThrow(/"boot.require" takes names of units/);
    expect(() => parseConfig([file('[boot]\nrequire = sshd\n')])).toThrow(/"boot.require" takes names of units/);
  });

  test('leaves to the boot hook what the image says to it', () => {
    const text = '[etc]\nmode=transient\n[deploy]\ntries=2\n';
    expect(parseConfig([{ ...file(text), isOfImage: true }])).toMatchObject({ deployTries: 2 });
  });

  test.each([
    ['a rule that does not exist', '[etc]\nconflicts = mine\n', /"etc.conflicts" takes "ask", "keep-local"/],
    ['a rule for a path that does not exist', '[etc.paths]\n/etc/x = mine\n', /"etc.paths.\/etc\/x" takes/],
    ['a path elsewhere', '[etc.paths]\n/usr/x = ask\n', /"\/usr\/x" in \[etc.paths\] is not a path below \/etc/],
    ['the path of /etc itself', '[etc.paths]\n/etc = ask\n', /"\/etc" in \[etc.paths\]/],
    ['a path that climbs', '[etc.paths]\n/etc/../x = ask\n', /is not a path below/],
    ['paths that are no section', '[etc]\npaths = ask\n', /there is no setting "etc.paths"/],
    ['what only the image can set', '[etc]\nmode=transient\n', /"etc.mode" can only be set by the image/],
    ['a key that does not exist', '[deploy]\ntrys = 5\n', /there is no setting "deploy.trys"/],
    ['a section that does not exist', '[update]\ntries = 5\n', /there is no setting "update.tries"/],
    ['a key before any section', 'tries = 5\n', /"tries" stands before any section/],
    ['no number', '[deploy]\ntries = many\n', /from 1 to 9/],
    ['a number that is too large', '[deploy]\ntries = 10\n', /from 1 to 9/],
    ['fewer deployments than one can go back among', '[retention]\nkeep = 1\n', /from 2 to 1000/],
    ['a list', '[deploy]\ntries[] = 1\n', /from 1 to 9/],
    ['a name of the language', '[__proto__]\ntries = 5\n[constructor]\nx = 1\n', /there is no setting/],
  ])('refuses %s, naming file and key', (_, text, message) => {
    expect(() => parseConfig([file(text, 'bad.conf')])).toThrow(message);
    expect(() => parseConfig([file(text, 'bad.conf')])).toThrow(expect.objectContaining({ code: 'config-invalid' }));
  });
});
