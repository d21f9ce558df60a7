/** A host for tests: real adapters, except for what a test replaces, and a record of what was logged. */

import type { Host } from '../../src/sys/host.ts';
import { openRealHost } from '../../src/sys/real-host.ts';

export interface TestHost extends Host {
  readonly warnings: string[];
  readonly abort: () => void;
}

export function testHost(replaced: Partial<Host> = {}): TestHost {
  const warnings: string[] = [];
  const controller = new AbortController();
  const host = openRealHost({
    log: { debug: () => undefined, info: () => undefined, warn: (message) => warnings.push(message) },
    progress: () => undefined,
    signal: controller.signal,
    lockWaitMs: 200,
  });
  // Threads run what is built, and tests the source.
  return { ...host, threads: 0, ...replaced, warnings, abort: () => controller.abort() };
}
