/** The only place that catches everything: message, hint and exit status; the stack with `--debug` or for a bug. */

import { HostctlError } from '../errors.ts';
import { explainSystemError } from '../sys/files.ts';
import { exitCodeOf } from './exit-codes.ts';

const MAX_CAUSES = 8;

export interface ReportOptions {
  readonly json: boolean;
  readonly debug: boolean;
}

export interface ErrorReport {
  readonly exitCode: number;
  /** What goes to stderr, ending in a newline. */
  readonly text: string;
}

export function reportError(thrown: unknown, options: ReportOptions): ErrorReport {
  const error = asHostctlError(thrown);
  const exitCode = exitCodeOf(error.code);
  const causes = causesOf(error);
  if (options.json) {
    const { code, message, hint } = error;
    return { exitCode, text: `${JSON.stringify({ error: { code, message, ...(hint ? { hint } : {}), causes } })}\n` };
  }
  const lines = [`hostctl: ${error.message}`];
  for (const cause of causes) lines.push(`  caused by: ${cause}`);
  if (error.hint !== undefined) lines.push(`  hint: ${error.hint}`);
  if (options.debug || error.code === 'internal') lines.push(stackOf(thrown));
  return { exitCode, text: `${lines.join('\n')}\n` };
}

function asHostctlError(thrown: unknown): HostctlError {
  if (thrown instanceof HostctlError) return thrown;
  // yargs' own, for what it finds before any verb runs.
  if (thrown instanceof Error && thrown.name === 'YError') {
    return new HostctlError('usage', thrown.message, { hint: 'See "hostctl --help"' });
  }
  return explainSystemError(thrown, 'hostctl failed');
}

/** The messages of the causes, but for those that the error before repeats with its context. */
function causesOf(error: Error): string[] {
  const causes: string[] = [];
  let above = error.message;
  for (let cause = error.cause; cause instanceof Error && causes.length < MAX_CAUSES; cause = cause.cause) {
    if (!above.toLowerCase().includes(cause.message.toLowerCase())) causes.push(cause.message);
    above = cause.message;
  }
  return causes;
}

function stackOf(thrown: unknown): string {
  return thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
}
