/** The exit status of each error code, as scripts rely on it. */

import type { ErrorCode } from '../errors.ts';

export const EXIT_NOTHING_NEW = 77;

const EXIT_CODES: Readonly<Record<ErrorCode, number>> = {
  internal: 1,
  usage: 2,
  'config-invalid': 2,
  'digest-mismatch': 3,
  'size-mismatch': 3,
  'verity-mismatch': 3,
  'image-unsigned': 3,
  'image-revoked': 3,
  'signature-invalid': 3,
  'policy-rejected': 3,
  registry: 4,
  'no-space': 5,
  'boot-full': 5,
  locked: 6,
  'image-invalid': 7,
  'image-unsupported': 7,
  'image-not-bootable': 7,
  'image-not-found': 7,
  'format-invalid': 7,
  'verity-unsupported': 7,
  'host-unsupported': 7,
  'state-invalid': 7,
  'deployment-not-found': 7,
  'deployment-in-use': 7,
  'read-only': 7,
  'etc-conflict': 7,
  'tool-missing': 7,
  'command-failed': 7,
  io: 7,
  'downgrade-refused': 8,
  corrupt: 9,
  'not-root': 10,
  // Replaced by 128 + the signal's number where a signal ended the command.
  interrupted: 130,
};

export function exitCodeOf(code: ErrorCode): number {
  return EXIT_CODES[code];
}
