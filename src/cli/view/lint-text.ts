/** What `image lint` prints for people. */

import type { LintResult } from '../../ops/lint-image.ts';

export function lintText({ deployable, findings }: LintResult): string {
  const lines = findings.map(
    ({ code, severity, message, remedy }) => `${severity} ${code}: ${message}\n  remedy: ${remedy}\n`,
  );
  const warnings = findings.filter(({ severity }) => severity === 'warning').length;
  const told = warnings === 0 ? '' : `, ${warnings} ${warnings === 1 ? 'warning' : 'warnings'}`;
  return `${lines.join('')}${deployable ? 'It can be deployed' : 'It cannot be deployed'}${told}\n`;
}
