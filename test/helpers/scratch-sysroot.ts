/** A sysroot of its own for one test, and the operations on it. */

import { mkdirSync, readdirSync } from 'node:fs';
import { deploy, type DeployOptions, type DeployResult } from '../../src/ops/deploy.ts';
import { status } from '../../src/ops/status.ts';
import type { Host } from '../../src/sys/host.ts';
import { statusDocument, type StatusDocument } from '../../src/cli/view/status-json.ts';
import { scratchDir } from './scratch-dir.ts';
import { testHost, type TestHost } from './test-host.ts';

export interface ScratchSysroot {
  readonly path: string;
  readonly host: TestHost;
  deploy(image: string, options?: Partial<DeployOptions>, host?: Host): Promise<DeployResult>;
  status(): StatusDocument;
  entries(): string[];
}

export function scratchSysroot(): ScratchSysroot {
  const path = scratchDir();
  mkdirSync(`${path}/boot`);
  const host = testHost();
  return {
    path,
    host,
    deploy: (image, options = {}, by = host) =>
      deploy(by, {
        sysroot: path,
        image,
        kargs: [],
        algorithm: undefined,
        tries: 3,
        allowMissingVerity: true,
        stage: false,
        ...options,
      }),
    status: () => statusDocument(status(host, { sysroot: path }), false),
    entries: () => readdirSync(`${path}/boot/loader/entries`).sort(),
  };
}
