/** The way into the command line. Scripts ask for the version often, and loading all else takes longer than Node does. */

import { version } from './version.ts';

/** Runs one command and returns its exit status. */
export async function start(args: readonly string[], signal: AbortSignal): Promise<number> {
  if (args.length === 1 && args[0] === '--version') {
    process.stdout.write(`${version}\n`);
    return 0;
  }
  const { runCli } = await import('./program.ts');
  return runCli(args, signal);
}
