/** The `HostReport` document: the report with nothing in it that looks like a secret. */

import { hideSecretsIn } from '../../format/secrets.ts';
import type { Report } from '../../ops/report.ts';
import { version } from '../version.ts';
import { statusDocument } from './status-json.ts';

export function reportDocument({ status, ...rest }: Report): unknown {
  return hideSecretsIn({
    apiVersion: 'hostctl/v1',
    kind: 'HostReport',
    program: { hostctl: version, node: process.version },
    ...rest,
    status: status === undefined ? undefined : statusDocument(status, false),
  });
}
