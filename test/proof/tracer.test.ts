/** The tracer must see every changing call of every thread and child, and meet exactly the one it is told. */

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { compile } from './lib/tools.ts';

let tracer = '';
let scratch = '';
let watched = '';

beforeAll(async () => {
  tracer = await compile('tracer/trace.c');
});

beforeEach(() => {
  scratch = mkdtempSync(`${tmpdir()}/tracer-`);
  watched = `${scratch}/watched`;
  mkdirSync(watched);
});

afterEach(() => {
  rmSync(scratch, { recursive: true });
});

interface Traced {
  /** Calls without numbers and process ids, paths below the watched directory. */
  readonly calls: string[];
  readonly end: string;
  readonly output: string;
}

function trace(fault: readonly string[], command: readonly string[]): Traced {
  const log = `${scratch}/log`;
  const args = ['--log', log, '--watch', watched, ...fault, '--', ...command];
  const { status, stdout, stderr } = spawnSync(tracer, args, { encoding: 'utf8', cwd: watched });
  expect([status, stderr.includes('trace:')]).toEqual([0, false]);
  const lines = readFileSync(log, 'utf8').trimEnd().split('\n');
  const end = lines.pop() ?? '';
  const calls = lines.map((line) => line.replace(/\d+ \d+ (\S+) /, '$1 ').replace(watched, ''));
  return { calls, end, output: stdout + stderr };
}

const sh = (script: string): string[] => ['sh', '-c', script];
const node = (script: string): string[] => [process.execPath, '--input-type=module', '-e', script];

describe('counted are', () => {
  test('what children do, relative to where they are, in order', () => {
    mkdirSync(`${watched}/sub`);
    expect(trace([], sh('echo one >a; cd sub; mv ../a b; ln -s x c; rm b')).calls).toEqual([
      'openat /a',
      'write /a',
      expect.stringMatching(/^renameat2? .*\/sub\/b$/),
      'symlinkat /sub/c',
      'unlinkat /sub/b',
    ]);
  });

  test('what the thread pool does', () => {
    const script = `
      import { promises as fs } from 'node:fs';
      await fs.mkdir('${watched}/d');
      const file = await fs.open('${watched}/d/f', 'wx');
      await file.write('x'); await file.sync(); await file.close();`;
    expect(trace([], node(script)).calls).toEqual(['mkdir /d', 'openat /d/f', 'write /d/f', 'fsync /d/f']);
  });

  test('neither reads nor what happens elsewhere', () => {
    writeFileSync(`${watched}/a`, 'x');
    expect(trace([], sh(`cat a >${scratch}/elsewhere; ls . >/dev/null`)).calls).toEqual([]);
  });
});

describe('a fault', () => {
  test('kills before the call, everyone', () => {
    const traced = trace(['--fault', 'kill', '--at', '3'], sh('echo 1 >a; (echo 2 >b; echo 3 >c); echo 4 >d'));
    expect(traced).toMatchObject({ calls: ['openat /a', 'write /a', 'HIT openat /b'], end: 'signal 9' });
    expect([existsSync(`${watched}/a`), existsSync(`${watched}/b`), existsSync(`${watched}/d`)]).toEqual([
      true,
      false,
      false,
    ]);
  });

  test('kills the command alone, and its child lives on', () => {
    const traced = trace(['--fault', 'kill-main', '--at', '1'], sh('(sleep 0.2; echo 2 >b) & echo 1 >a; wait'));
    expect(traced).toMatchObject({ calls: ['HIT openat /a', 'openat /b', 'write /b'], end: 'signal 9' });
    expect([existsSync(`${watched}/a`), existsSync(`${watched}/b`)]).toEqual([false, true]);
  });

  test('signals the command, and the call is made', () => {
    const traced = trace(['--fault', 'term', '--at', '1'], sh('trap "exit 7" TERM; echo 1 >a; exit 0'));
    expect(traced).toMatchObject({ calls: ['HIT openat /a', 'write /a'], end: 'exit 7' });
  });

  test('fails a call once', () => {
    const traced = trace(['--fault', 'ENOSPC', '--at', '2'], sh('mkdir a; mkdir b; mkdir c'));
    expect(traced.calls).toEqual(['mkdir /a', 'HIT mkdir /b', 'mkdir /c']);
    expect(traced.output).toContain('No space left on device');
    expect(['a', 'b', 'c'].map((name) => existsSync(`${watched}/${name}`))).toEqual([true, false, true]);
  });

  test('fails every call from one on', () => {
    const traced = trace(['--fault', 'EROFS', '--at', '2', '--sticky'], sh('mkdir a; mkdir b; mkdir c'));
    expect(traced.calls).toEqual(['mkdir /a', 'HIT mkdir /b', 'HIT mkdir /c']);
    expect([existsSync(`${watched}/a`), existsSync(`${watched}/b`)]).toEqual([true, false]);
  });

  test('of close leaves the descriptor closed', () => {
    const script = `
      import * as fs from 'node:fs';
      const fd = fs.openSync('${watched}/a', 'w');
      try { fs.closeSync(fd); } catch (error) { console.log(error.code); }
      const open = fs.readdirSync('/proc/self/fd').map((name) => {
        try { return fs.readlinkSync('/proc/self/fd/' + name); } catch { return ''; }
      });
      console.log(open.includes('${watched}/a'));`;
    expect(trace(['--fault', 'EIO', '--at', '2'], node(script))).toMatchObject({
      calls: ['openat /a', 'HIT close /a'],
      output: 'EIO\nfalse\n',
    });
  });

  test('takes half of a write and then finds the disk full, once', () => {
    const script = `
      import * as fs from 'node:fs';
      const fd = fs.openSync('${watched}/a', 'w');
      console.log(fs.writeSync(fd, 'four'), fs.writeSync(fd, 'more'));`;
    expect(trace(['--fault', 'short', '--at', '1'], node(script)).output).toBe('2 4\n');
    expect(readFileSync(`${watched}/a`, 'utf8')).toBe('fomore');
  });

  test('takes half of what the command writes itself, from any thread', () => {
    const script = `
      import { execFileSync } from 'node:child_process';
      import { promises as fs } from 'node:fs';
      execFileSync('sh', ['-c', 'echo one >a']);
      const file = await fs.open('${watched}/b', 'w');
      await file.write('four');`;
    expect(trace(['--fault', 'short', '--at', '1'], node(script)).calls).toEqual(['HIT write /b', 'write /b']);
    expect(readFileSync(`${watched}/a`, 'utf8')).toBe('one\n');
  });

  test('of opening meets reads too when descriptors run out', () => {
    writeFileSync(`${watched}/a`, 'x');
    expect(trace(['--fault', 'EMFILE', '--at', '1'], sh('cat a')).output).toContain('Too many open files');
  });
});

test('io_uring is not available to what is traced', () => {
  const script = `
    import { createRequire } from 'node:module';
    const koffi = createRequire('${process.cwd()}/')('koffi');
    const libc = koffi.load(null);
    const syscall = libc.func('long syscall(long number, uint a, void *b)');
    console.log(syscall(425, 8, Buffer.alloc(120)), koffi.errno() === koffi.os.errno.ENOSYS);`;
  expect(trace([], node(script)).output).toBe('-1 true\n');
});
