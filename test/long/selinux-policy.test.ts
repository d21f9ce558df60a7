/** All rules of Debian's SELinux policy, on paths made of the rules themselves: `matchpathcon` finds the same labels. */

import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { expect, test } from 'vitest';
import { labelDifferences, sortedRules } from '../helpers/match-path-con.ts';
import { missingPrograms } from '../helpers/requires.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';

/** The file contexts of every module, which its package holds as text. */
function policyRules(): string[] {
  const directory = scratchDir();
  execFileSync('apt-get', ['-qq', 'download', 'selinux-policy-default'], { cwd: directory, stdio: 'pipe' });
  execFileSync('sh', ['-c', 'dpkg -x selinux-policy-default*.deb .'], { cwd: directory });
  const modules = `${directory}/usr/share/selinux/default`;
  return readdirSync(modules, 'utf8').filter((name) => name.endsWith('.pp.bz2')).flatMap((name) =>
    execFileSync('bzcat', [`${modules}/${name}`], { maxBuffer: 1 << 28 })
      .toString('latin1')
      .split('\n')
      .map((line) => /(?:^|[\0-\x08\x0e-\x1f\x7f-\xff])(\/[!-~]*\s+(?:-[bcdpls-]\s+)?(?:\w+:\w+:\w+:\S+|<<none>>))\s*$/.exec(line)?.[1])
      // What the policy build fills in is no path yet.
      .filter((rule) => rule !== undefined && !/HOME_|ROLE|USER/.test(rule)),
  ) as string[];
} // prettier-ignore

/** Paths that a pattern may mean: without what may be left out, and with it. */
function pathsOf(rule: string): string[] {
  const pattern = rule.split(/\s/)[0]!;
  const stem = pattern.replace(/\([^()]*\)\?|\(\/\.\*\)\?/g, '').replace(/\\(.)/g, '$1').replace(/\[\^\/\][+*]?|\.[*+]/g, 'x'); // prettier-ignore
  return [stem, `${stem}/x`, `${stem}y`, stem.slice(0, -1)].filter((path) => /^(?:\/[A-Za-z0-9_.+-]+)+$/.test(path));
}

test.skipIf(missingPrograms('matchpathcon', 'apt-get', 'bzcat').length > 0)('labels by the whole policy', () => {
  const rules = sortedRules([...new Set(policyRules())]);
  const paths = [...new Set(rules.flatMap(pathsOf))];
  expect([rules.length > 2000, paths.length > 4000]).toEqual([true, true]);
  const differences = labelDifferences(rules, paths);
  expect({ of: paths.length, differences: differences.slice(0, 20) }).toEqual({ of: paths.length, differences: [] });
});
