import { expect, test } from 'vitest';
import { reboot } from '../../src/ops/reboot.ts';
import type { Exec } from '../../src/sys/exec.ts';
import type { Host } from '../../src/sys/host.ts';

test('a reboot is asked for also where the command was told to stop', () => {
  const asked: string[] = [];
  const exec: Pick<Exec, 'runSync'> = {
    runSync: (program, args) => {
      asked.push([program, ...args].join(' '));
      return { exitCode: 0, stdout: '', stderr: '' };
    },
  };
  reboot({ exec, signal: AbortSignal.abort() } as unknown as Host);
  expect(asked).toEqual(['systemctl reboot']);
});
