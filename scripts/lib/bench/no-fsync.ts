/** A library that makes fsync do nothing, for the measurement of what a peer could be without it. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../run.ts';

const SOURCE = `
int fsync(int fd) { (void)fd; return 0; }
int fdatasync(int fd) { (void)fd; return 0; }
int syncfs(int fd) { (void)fd; return 0; }
void sync(void) {}
`;

/** Compiles it into `folder`. */
export async function noFsyncLibrary(folder: string): Promise<string> {
  const source = join(folder, 'no-fsync.c');
  const library = join(folder, 'no-fsync.so');
  writeFileSync(source, SOURCE);
  await run('gcc', ['-shared', '-fPIC', '-O2', '-o', library, source]);
  return library;
}
