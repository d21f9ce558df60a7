import { expect, test, vi } from 'vitest';
import { checkSequences } from '../model/run.ts';

vi.mock('../../src/deploy/sysroot.ts', async (original) =>
  (await import('../model/running.ts')).asRunning(await original()),
);

test('after 10,000 sequences of commands, boots and acts of others every promise still holds', async () => {
  await expect(checkSequences(10_000)).resolves.toBeUndefined();
});
