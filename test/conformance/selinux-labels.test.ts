/** `matchpathcon` on rules as policies are made of: it finds the label that hostctl finds. */

import { expect, test } from 'vitest';
import { labelDifferences, sortedRules } from '../helpers/match-path-con.ts';
import { missingPrograms } from '../helpers/requires.ts';

const label = (type: string): string => `system_u:object_r:${type}_t:s0`;
const rules = sortedRules([
  `/.* ${label('default')}`,
  `/ -d ${label('root')}`,
  `/[^/]+ -- ${label('etc_runtime')}`,
  `/usr(/.*)? ${label('usr')}`,
  `/usr/bin(/.*)? ${label('bin')}`,
  `/usr/bin/bash -- ${label('shell_exec')}`,
  `/usr/bin/[xgkw]dm -- ${label('xdm_exec')}`,
  `/usr/lib(/.*)? ${label('lib')}`,
  `/usr/(.*/)?lib(64)?(/.*)? ${label('lib')}`,
  `/usr/lib/.*\\.so(\\.[^/]*)* -- ${label('ld_so')}`,
  `/usr/lib/modules/[^/]+/modules\\..+ -- ${label('modules_dep')}`,
  `/etc(/.*)? ${label('etc')}`,
  `/etc/.*~? -- ${label('etc')}`,
  `/etc/(group|passwd|shadow)[-\\+]? -- ${label('passwd_file')}`,
  `/etc/ssh/ssh_host.*_key(\\.pub)? -- ${label('sshd_key')}`,
  `/etc/[[:alpha:]]+\\.d/.* ${label('conf')}`,
  `/dev/tty[0-9]{1,2} -c ${label('tty')}`,
  `/dev/[sv]d[a-z][0-9]* -b ${label('fixed_disk')}`,
  `/run/.* <<none>>`,
  `/run/.*\\.*pid <<none>>`,
  `/var/log(/.*)? ${label('var_log')}`,
  `/var/spool/x\\+y\\(z\\) ${label('spool')}`,
]);
const paths = ['/', '/a', '/a.b', '/usr', '/usr/', '/usr/x', '/usr/bin', '/usr/bin/bash', '/usr/bin/bash2', '/usr/bin/xdm', '/usr/bin/ldm', '/usr/lib', '/usr/lib64/x', '/usr/local/lib/y', '/usr/lib/a.so', '/usr/lib/a.so.1.2', '/usr/lib/asob', '/usr/lib/modules/6/modules.dep', '/usr/lib/modules/modules.dep', '/etc', '/etc/passwd', '/etc/passwd-', '/etc/passwd+', '/etc/passwd2', '/etc/x~', '/etc/ssh/ssh_host_rsa_key', '/etc/ssh/ssh_host_rsa_key.pub', '/etc/ssh/ssh_host_rsa_keys', '/etc/conf.d/a', '/etc/conf1.d/a', '/dev/tty1', '/dev/tty123', '/dev/sda', '/dev/sda12', '/run/x', '/run/a.pid', '/var/log', '/var/log/x/y', '/var/spool/x+y(z)', '/etcetera', '/ with space', '/t\u00e4glich']; // prettier-ignore

test.skipIf(missingPrograms('matchpathcon').length > 0)('matchpathcon finds the same labels for every type', () => {
  expect(
    labelDifferences(
      rules,
      paths.filter((path) => !/[^ -~]/.test(path)),
    ),
  ).toEqual([]);
});
