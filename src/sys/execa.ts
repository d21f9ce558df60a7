/**
 * execa, loaded when the first program is started: that takes a fifth of the time of a command that starts none. It is
 * required, not imported, because some programs are started where nothing may be waited for.
 */

import { createRequire } from 'node:module';
import type * as execa from 'execa';

/** The same each time. */
export function loadExeca(): typeof execa {
  return createRequire(import.meta.url)('execa') as typeof execa;
}
