/** Which requests bring parts of a blob. */

import { expect, test } from 'vitest';
import { mergeParts } from '../../../src/image/registry/parts.ts';

const parts = (count: number, length: number, distance: number) =>
  Array.from({ length: count }, (_, i) => ({ start: i * distance, end: i * distance + length }));

test('near parts come by one request, distant ones by their own', () => {
  expect(mergeParts([{ start: 0, end: 10 }, { start: 10, end: 20 }, { start: 4116, end: 4200 }])).toEqual([{ start: 0, end: 4200 }]); // prettier-ignore
  expect(mergeParts(parts(3, 100, 10_000))).toEqual(parts(3, 100, 10_000));
  expect(mergeParts([])).toEqual([]);
});

test('however many parts there are, the requests are few and bring all of them', () => {
  const many = parts(20_000, 10, 5000);
  const requests = mergeParts(many);
  expect(requests.length).toBeLessThanOrEqual(256);
  expect([requests[0]!.start, requests.at(-1)!.end]).toEqual([0, 19_999 * 5000 + 10]);
});
