/**
 * The one error class of hostctl and the closed list of its codes. A code is what programs decide by; the message
 * names the object and the numbers; the hint says what to do now. Which exit status a code becomes is in
 * `cli/exit-codes.ts`.
 */

export type ErrorCode =
  // usage and configuration
  | 'usage'
  | 'config-invalid'
  // verification
  | 'digest-mismatch'
  | 'size-mismatch'
  | 'verity-mismatch'
  | 'image-unsigned'
  | 'image-revoked'
  | 'signature-invalid'
  | 'policy-rejected'
  // network and registry
  | 'registry'
  // space
  | 'no-space'
  | 'boot-full'
  // locks
  | 'locked'
  // image or host that cannot be used
  | 'image-invalid'
  | 'image-unsupported'
  | 'image-not-bootable'
  | 'image-not-found'
  | 'format-invalid'
  | 'verity-unsupported'
  | 'host-unsupported'
  | 'state-invalid'
  | 'deployment-not-found'
  | 'deployment-in-use'
  | 'read-only'
  | 'etc-conflict'
  // policy
  | 'downgrade-refused'
  // corruption
  | 'corrupt'
  // privileges
  | 'not-root'
  // other programs and system calls
  | 'tool-missing'
  | 'command-failed'
  | 'io'
  | 'interrupted'
  | 'internal';

export interface HostctlErrorOptions {
  /** What to do now, one sentence. */
  readonly hint?: string;
  readonly cause?: unknown;
}

/** An error meant for the person at the terminal: capital first, no full stop, values quoted, the action named. */
export class HostctlError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, options: HostctlErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'HostctlError';
    this.code = code;
    this.hint = options.hint;
  }
}

/** Whether `error` is a HostctlError, of one of `codes` when any are given. */
export function isHostctlError(error: unknown, ...codes: readonly ErrorCode[]): error is HostctlError {
  return error instanceof HostctlError && (codes.length === 0 || codes.includes(error.code));
}

/**
 * Numbers on Linux that libuv has no name for: EDQUOT, and EBADMSG and EUCLEAN, which a file system answers whose own data
 * is damaged: to whoever reads a file, the same as a failing disk.
 */
const UNNAMED = new Map([
  [122, 'EDQUOT'],
  [74, 'EIO'],
  [117, 'EIO'],
]);

/** The `code` of a Node system error (`ENOENT`, `ENOSPC`, …) or of a `SyscallError`, or undefined. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  const unnamed = 'errno' in error && UNNAMED.get(Math.abs(Number(error.errno)));
  if (unnamed) return unnamed;
  return 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/**
 * Whether the process or the machine has run out of something, which says nothing about the file that was asked for: a
 * reader that makes do without broken files must not make do without this one.
 */
export function isShortage(error: unknown): boolean {
  return ['EMFILE', 'ENFILE', 'ENOMEM'].includes(errnoOf(error) ?? '');
}

/** Closes a `switch` over a union: the compiler refuses a missing case, and the program does if the types lied. */
export function assertNever(value: never, what = 'value'): never {
  throw new HostctlError('internal', `Unexpected ${what}: ${JSON.stringify(value)}`);
}
