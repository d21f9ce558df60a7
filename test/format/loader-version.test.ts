import { expect, test } from 'vitest';
import { systemdBootVersion } from '../../src/format/loader-version.ts';

test.each([
  ['a release', '\0\0#### LoaderInfo: systemd-boot 257.9-1~deb13u1 ####\0', '257.9-1~deb13u1'],
  ['at the very end', 'MZ#### LoaderInfo: systemd-boot 257 ####', '257'],
  ['another program of systemd', '#### LoaderInfo: systemd-stub 257 ####', undefined],
  ['another loader', 'GRUB version 2.12', undefined],
  ['a mark without an end', `#### LoaderInfo: systemd-boot 257${' '.repeat(200)} ####`, undefined],
  ['a mark without a version', '#### LoaderInfo: systemd-boot  ####', undefined],
  ['a version with other bytes', '#### LoaderInfo: systemd-boot 2\x1b7 ####', undefined],
  ['nothing', '', undefined],
])('The version of %s', (_, content, version) => {
  expect(systemdBootVersion(Buffer.from(content, 'latin1'))).toBe(version);
  // Also as a part of something larger.
  expect(systemdBootVersion(Buffer.from(`--${content}`, 'latin1').subarray(2))).toBe(version);
});
