import { expect, test, vi } from 'vitest';
import { checkSequences } from './run.ts';

vi.mock('../../src/deploy/sysroot.ts', async (original) => (await import('./running.ts')).asRunning(await original()));

test('after any sequence of commands, boots and acts of others every promise holds', async () => {
  await expect(checkSequences(150)).resolves.toBeUndefined();
});
