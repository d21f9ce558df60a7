/** Errors between threads: copying an object to another one keeps neither its class nor its codes. */

import { HostctlError, isHostctlError, type ErrorCode } from '../errors.ts';

export interface PackedError {
  readonly message: string;
  readonly stack: string | undefined;
  readonly hostctl?: { readonly code: ErrorCode; readonly hint: string | undefined };
  /** What Node puts beside the message of a failed system call. */
  readonly system: Readonly<Record<string, unknown>>;
  readonly cause?: PackedError;
}

/** What was thrown, as plain data. */
export function packError(thrown: unknown): PackedError {
  const error = thrown instanceof Error ? thrown : new Error(String(thrown));
  return {
    message: error.message,
    stack: error.stack,
    ...(isHostctlError(error) ? { hostctl: { code: error.code, hint: error.hint } } : {}),
    system: isHostctlError(error) ? {} : { ...error },
    ...(error.cause === undefined ? {} : { cause: packError(error.cause) }),
  };
}

/** The error that was packed, with its class, codes and stack. */
export function unpackError(packed: PackedError): Error {
  const { message, hostctl, system, stack } = packed;
  const cause = packed.cause === undefined ? {} : { cause: unpackError(packed.cause) };
  const error =
    hostctl === undefined
      ? Object.assign(new Error(message, cause), system)
      : new HostctlError(hostctl.code, message, {
          ...cause,
          ...(hostctl.hint === undefined ? {} : { hint: hostctl.hint }),
        });
  if (stack !== undefined) error.stack = stack;
  return error;
}
