/** Programs that tests use as referees: what is missing is skipped with its name, or fails where that is asked for. */

import { execFileSync, spawnSync } from 'node:child_process';

/**
 * The programs of the list that cannot be started. With `HOSTCTL_CONFORMANCE=require` a missing one is an error, so
 * that nothing is skipped in silence.
 */
export function missingPrograms(...programs: readonly string[]): readonly string[] {
  const missing = programs.filter(
    (program) => spawnSync(program, ['--version'], { stdio: 'ignore' }).error !== undefined,
  );
  if (missing.length > 0 && process.env['HOSTCTL_CONFORMANCE'] === 'require') {
    throw new Error(`Missing: ${missing.join(', ')}`);
  }
  return missing;
}

/** Every path below a directory as latin1 bytes. Node's own recursive listing follows symlinks and needs UTF-8. */
export function pathsBelow(directory: string): string[] {
  const list = execFileSync('find', [directory, '-mindepth', '1', '-printf', '%P\\0'], { maxBuffer: 1 << 28 });
  return list.toString('latin1').split('\0').slice(0, -1);
}
