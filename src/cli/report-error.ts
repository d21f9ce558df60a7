/** The only place that catches everything: message, hint and exit status; the stack with `--debug` or for a bug. */

import { HostctlError } from '../errors.ts';
import { explainSystemError } from '../sys/files.ts';
import { exitCodeOf } from './exit-codes.ts';

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
  const error = thrown instanceof HostctlError ? thrown : explainSystemError(thrown, 'hostctl failed');
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

function causesOf(error: Error): string[] {
  const causes: string[] = [];
  for (let cause = error.cause; cause instanceof Error && causes.length < 8; cause = cause.cause) {
    causes.push(cause.message);
  }
  return causes;
}

function stackOf(thrown: unknown): string {
  return thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
}
