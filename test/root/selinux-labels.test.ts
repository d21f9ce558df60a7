/** The copies of `/etc` and `/var` that a deployment makes carry the labels of its image. */

import { expect, test } from 'vitest';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { scratchSysroot } from '../helpers/scratch-sysroot.ts';
import { tarDir, tarFile } from '../helpers/tar-builder.ts';

const policy = 'etc/selinux/targeted/contexts/files/file_contexts';
const more = [
  tarDir('etc/selinux'),
  tarFile('etc/selinux/config', 'SELINUXTYPE=targeted\n'),
  tarFile(
    policy,
    '/.* default\n/etc(/.*)? etc\n/etc/machine-id -- machineid\n/etc/os-release <<none>>\n/var(/.*)? var\n',
  ),
];

test('etc and var of a deployment are labelled as in the image, without a NUL behind', async () => {
  const sysroot = scratchSysroot();
  const { digest } = await sysroot.deploy(bootableLayout({ more }).reference);
  const label = (path: string): string | undefined => {
    const value = sysroot.host.syscalls.listXattrs(`${sysroot.path}/state/${path}`).get('security.selinux');
    return value === undefined ? undefined : Buffer.from(value).toString('latin1');
  };
  const etc = `deploy/${digest}/etc`;
  const found = [
    etc,
    `${etc}/hostname`,
    `${etc}/machine-id`,
    `${etc}/ssh`,
    `${etc}/os-release`,
    'os/default/var',
    'os/default/var/lib/shipped',
  ].map(label);
  expect(found).toEqual(['etc', 'etc', 'machineid', 'etc', undefined, 'var', 'var']);
});
