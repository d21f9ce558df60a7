import { describe, expect, test } from 'vitest';
import { parseConfig } from '../../src/format/config.ts';

const file = (text: string, name = 'hostctl.conf') => ({ name, text });

describe('the configuration', () => {
  test('has a default for everything', () => {
    expect(parseConfig([])).toEqual({ deployTries: 3 });
  });

  test('takes the last file that sets a key', () => {
    expect(parseConfig([file('[deploy]\ntries = 5\n'), file('; nothing\n'), file('[deploy]\ntries=1\n')])).toEqual({
      deployTries: 1,
    });
  });

  test.each([
    ['a key that does not exist', '[deploy]\ntrys = 5\n', /there is no setting "deploy.trys"/],
    ['a section that does not exist', '[update]\ntries = 5\n', /there is no setting "update.tries"/],
    ['a key before any section', 'tries = 5\n', /"tries" stands before any section/],
    ['no number', '[deploy]\ntries = many\n', /from 1 to 9/],
    ['a number that is too large', '[deploy]\ntries = 10\n', /from 1 to 9/],
    ['a list', '[deploy]\ntries[] = 1\n', /from 1 to 9/],
    ['a name of the language', '[__proto__]\ntries = 5\n[constructor]\nx = 1\n', /there is no setting/],
  ])('refuses %s, naming file and key', (_, text, message) => {
    expect(() => parseConfig([file(text, 'bad.conf')])).toThrow(message);
    expect(() => parseConfig([file(text, 'bad.conf')])).toThrow(expect.objectContaining({ code: 'config-invalid' }));
  });
});
