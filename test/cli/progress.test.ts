import { expect, test } from 'vitest';
import { plainProgress, terminalProgress } from '../../src/cli/view/progress.ts';

const event = (step: string, done: number, total?: number) =>
  ({ step, done, unit: 'bytes', ...(total === undefined ? {} : { total }) }) as const;

test('a terminal sees one line that ends with the step', () => {
  expect([event('Fetching', 2 ** 20, 2 ** 21), event('Fetching', 2 ** 21, 2 ** 21), event('Reading', 0)].map(terminalProgress)).toEqual([
    '\r\x1b[KFetching: 1 MiB of 2 MiB',
    '\r\x1b[KFetching: 2 MiB of 2 MiB\n',
    '\r\x1b[KReading: 0 MiB',
  ]); // prettier-ignore
});

test('elsewhere a step says a line for every half minute it takes', () => {
  const lineFor = plainProgress();
  const at = ([step, seconds]: readonly [string, number]) => lineFor(event(step, seconds * 2 ** 20), seconds * 1000);
  expect(([['a', 0], ['a', 29], ['a', 30], ['a', 59], ['b', 61], ['b', 90], ['b', 91]] as const).map(at)).toEqual([
    undefined,
    undefined,
    'hostctl: a: 30 MiB\n',
    undefined,
    undefined,
    undefined,
    'hostctl: b: 91 MiB\n',
  ]); // prettier-ignore
});
