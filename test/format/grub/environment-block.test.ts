import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  changeEnvironment,
  emptyEnvironment,
  ENVIRONMENT_BYTES,
  parseEnvironment,
} from '../../../src/format/grub/environment-block.ts';

const HEADER = '# GRUB Environment Block\n';
const block = (lines: string): Buffer => Buffer.from((HEADER + lines).padEnd(ENVIRONMENT_BYTES, '#'), 'latin1');
const read = (lines: string): Record<string, string> => Object.fromEntries(parseEnvironment(block(lines)));

describe('parseEnvironment', () => {
  test.each<[string, Record<string, string>]>([
    ['', {}],
    ['a=1\nb=2\n', { a: '1', b: '2' }],
    ['# a comment\n#c=1\na=1\n', { a: '1' }],
    ['# a comment goes on\\\nc=1\na=1\n', { a: '1' }],
    ['a=\n', { a: '' }],
    ['a=b=c\n', { a: 'b=c' }],
    ['a=1\na=2\n', { a: '2' }],
    ['a=x\\\\y\\\nz\\q\n', { a: 'x\\y\nzq' }],
    ['a=\xe4\xff\n', { a: '\xe4\xff' }],
    ['a=#1\n', { a: '#1' }],
    ['no assignment\na=1\n', { 'no assignment\na': '1' }],
    ['no assignment\n', {}],
  ])('%j', (lines, variables) => {
    expect(read(lines)).toEqual(variables);
  });

  test.each([
    ['a byte less', block('a=1\n').subarray(0, -1)],
    ['a byte more', Buffer.concat([block('a=1\n'), Buffer.from('#')])],
    ['nothing', Buffer.alloc(0)],
    ['another header', Buffer.from('# grub environment block\n'.padEnd(ENVIRONMENT_BYTES, '#'))],
    ['zeros', Buffer.alloc(ENVIRONMENT_BYTES)],
    ['a line without an end', block('a=1\nb=2')],
  ])('refuses %s', (_, bytes) => {
    expect(() => parseEnvironment(bytes)).toThrow(expect.objectContaining({ code: 'format-invalid' }));
  });
});

describe('changeEnvironment', () => {
  const change = (lines: string, changes: Record<string, string | undefined>): string =>
    Buffer.from(changeEnvironment(block(lines), changes))
      .toString('latin1')
      .replace(/#+$/, '');

  test('puts its variables first and leaves everything else as it is', () => {
    const others = '# WARNING: a comment\nsaved_entry=x\\\\y\nodd line\nkernelopts=a=b \\\n c\n';
    expect(change(`hostctl_try=1\n${others}hostctl_good=1\n`, { hostctl_try: '2', hostctl_good: '1' })).toBe(
      `${HEADER}hostctl_try=2\nhostctl_good=1\n${others}`,
    );
  });

  test('takes a variable away that is undefined, wherever it stands', () => {
    expect(change('a=1\nb=2\na=3\n', { a: undefined })).toBe(`${HEADER}b=2\n`);
  });

  test('escapes what a value must not have', () => {
    expect(change('', { a: 'x\\y\nz' })).toBe(`${HEADER}a=x\\\\y\\\nz\n`);
  });

  test('refuses what does not fit: the whole, or its own part in the first sector', () => {
    const full = `a=${'x'.repeat(980)}\n`;
    const refusal = expect.objectContaining({ code: 'format-invalid' }) as Error;
    expect(() => change(full, { b: '123456789012345678' })).toThrow(refusal);
    expect(() => change('', { b: 'x'.repeat(490) })).toThrow(refusal);
    expect(() => change('', { 'b\nc': '1' })).toThrow(refusal);
  });

  test('what was set is read again, and of the others nothing is lost', () => {
    const name = fc.stringMatching(/^[a-z_]{1,6}$/);
    const value = fc.string({ unit: fc.constantFrom(...'ab\\\n#= \xe4'), maxLength: 12 });
    const variables = fc.dictionary(name, value, { maxKeys: 8 });
    fc.assert(
      fc.property(variables, variables, (before, changes) => {
        const bytes = changeEnvironment(changeEnvironment(emptyEnvironment(), before), changes);
        expect(bytes).toHaveLength(ENVIRONMENT_BYTES);
        expect(Object.fromEntries(parseEnvironment(bytes))).toEqual({ ...before, ...changes });
      }),
    );
  });

  test('any bytes are refused or changed into a block that says what it said', () => {
    const unit = fc.constantFrom(...'ab=\\\n# \x00\xff');
    fc.assert(
      fc.property(fc.string({ unit, maxLength: 60 }), (lines) => {
        let before: ReadonlyMap<string, string>;
        try {
          before = parseEnvironment(block(lines));
        } catch (error) {
          expect(error).toMatchObject({ code: 'format-invalid' });
          return;
        }
        const after = parseEnvironment(changeEnvironment(block(lines), { mine: '1' }));
        expect(Object.fromEntries(after)).toEqual({ ...Object.fromEntries(before), mine: '1' });
      }),
      { numRuns: 1000 },
    );
  });
});
