/** How the model says that a promise was broken: by the name that the promise has in the documentation. */

import { isDeepStrictEqual } from 'node:util';

export type Invariant =
  | 'BOOT-ATOMIC'
  | 'TRUTH'
  | 'FALLBACK'
  | 'GC-SAFE'
  | 'FOREIGN'
  | 'RERUN'
  | 'ALL-OR-NOTHING'
  | 'ROLLBACK-ONCE'
  | 'STABLE-DIGEST'
  | 'ETC-MERGE'
  | 'LEAK-FREE';

export class Violation extends Error {}

/** Throws a `Violation` unless `holds`. */
export function demand(holds: boolean, invariant: Invariant, what: string): void {
  if (!holds) throw new Violation(`${invariant}: ${what}`);
}

export const same = isDeepStrictEqual;
