/** What the recorder writes down: order over all disks, flushes by disk, and disks that stay as they were. */

import {
  closeSync,
  fdatasyncSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { expect, test } from 'vitest';
import { compile } from './lib/tools.ts';
import { parseRecording, startRecorder } from './power/recording.ts';

test('a recording has the writes and flushes of two disks in one order', async () => {
  const scratch = mkdtempSync(`${tmpdir()}/recorder-`);
  try {
    writeFileSync(`${scratch}/root`, '.'.repeat(4096));
    writeFileSync(`${scratch}/boot`, '.'.repeat(4096));
    const disks = { root: `${scratch}/root`, boot: `${scratch}/boot` };
    const recorder = await startRecorder(await compile('power/recorder.c'), scratch, disks);
    const root = openSync(`${recorder.at}/root`, 'r+');
    const boot = openSync(`${recorder.at}/boot`, 'r+');
    writeSync(root, 'before', 0);
    recorder.mark('begin');
    writeSync(boot, 'b', 10);
    writeSync(root, 'r', 20);
    fdatasyncSync(boot);
    writeSync(boot, 'B', 10);
    recorder.mark('end');
    writeSync(root, 'R', 21);
    const seen = Buffer.alloc(12);
    readSync(boot, seen, 0, 12, 0);
    closeSync(root);
    closeSync(boot);
    await recorder.close();

    expect(seen.toString()).toBe('..........B.');
    expect(readFileSync(disks.boot, 'utf8')).toBe('.'.repeat(4096));
    const data = (text: string): Buffer => Buffer.from(text);
    expect(parseRecording(readFileSync(recorder.log))).toEqual({
      before: [{ kind: 'write', device: 0, offset: 0, data: data('before') }],
      events: [
        { kind: 'write', device: 1, offset: 10, data: data('b') },
        { kind: 'write', device: 0, offset: 20, data: data('r') },
        { kind: 'flush', device: 1 },
        { kind: 'write', device: 1, offset: 10, data: data('B') },
        { kind: 'write', device: 0, offset: 21, data: data('R') },
      ],
      endedAt: 4,
    });
  } finally {
    rmSync(scratch, { recursive: true });
  }
});
