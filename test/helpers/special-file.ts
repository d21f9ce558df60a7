/** Makes what `node:fs` cannot: fifos, sockets and device nodes. */

import { execFileSync, spawnSync } from 'node:child_process';

export function makeFifo(path: string | Buffer): void {
  execFileSync('mkfifo', [String(path)]);
}

export function makeDevice(path: string | Buffer, kind: 'block' | 'char', major: number, minor: number): void {
  execFileSync('mknod', [String(path), kind === 'block' ? 'b' : 'c', String(major), String(minor)]);
}

export function makeSocket(path: string | Buffer): void {
  // Killed, since Node removes the socket of a server that is closed.
  const script = 'require("net").createServer().listen(process.argv[1], () => process.kill(process.pid, "SIGKILL"))';
  spawnSync(process.execPath, ['-e', script, String(path)]);
}
