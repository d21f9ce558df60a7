/**
 * Puts where something was read in front of an error from further down: `Layer 3 of 7 (sha256:…): entry 1044
 * "usr/x": field "size" …`. Code and hint stay, the original is the cause.
 */

import { HostctlError } from '../errors.ts';

/** The same error with `context` before its message. What is no HostctlError (a bug) passes unchanged. */
export function withContext(context: string, error: unknown): unknown {
  if (!(error instanceof HostctlError)) return error;
  return new HostctlError(error.code, `${context}: ${lowerFirst(error.message)}`, {
    ...(error.hint === undefined ? {} : { hint: error.hint }),
    cause: error,
  });
}

function lowerFirst(message: string): string {
  // "PAX record" and "SHA-256" keep their capitals.
  return /^[A-Z][^A-Z]/.test(message) ? message.charAt(0).toLowerCase() + message.slice(1) : message;
}
