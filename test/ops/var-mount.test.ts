import { describe, expect, test } from 'vitest';
import { DEFAULT_BOOT_CONFIG } from '../../src/format/boot-config.ts';
import { checkVarMount } from '../../src/ops/var-mount.ts';

const check = (kargs: readonly string[], fstab: string) => () =>
  checkVarMount({ places: { ...DEFAULT_BOOT_CONFIG, var: 'mount' }, kargs, fstab });

describe('an image that leaves /var to the host', () => {
  test.each([
    ['a kernel argument', ['quiet', 'systemd.mount-extra=UUID=1-2:/var:ext4'], ''],
    ['a kernel argument in quotes', ['systemd.mount-extra="LABEL=a b:/var"'], ''],
    ['a volatile state', ['systemd.volatile=state'], ''],
    ['a line of fstab', [], '# the data\nLABEL=var /var ext4 defaults 0 2\n'],
    ['a line with tabs and a slash', [], '\t/dev/vdb\t/var/\tbtrfs\tdefaults\n'],
  ])('is taken with %s', (_, kargs, fstab) => {
    expect(check(kargs, fstab)).not.toThrow();
  });

  test.each([
    ['nothing', [], ''],
    ['a place below /var', ['systemd.mount-extra=LABEL=a:/var/log'], 'LABEL=b /var/lib ext4 defaults\n'],
    ['a line that is a comment', [], '#LABEL=var /var ext4 defaults\n'],
    ['a source of that name', [], '/var /mnt none bind\n'],
    ['an argument that was taken back', ['systemd.volatile=state', 'systemd.volatile=no'], ''],
  ])('is refused with %s', (_, kargs, fstab) => {
    expect(check(kargs, fstab)).toThrow(expect.objectContaining({ code: 'host-unsupported' }));
  });

  test('is no concern of an image that shares its own', () => {
    expect(() => checkVarMount({ places: DEFAULT_BOOT_CONFIG, kargs: [], fstab: '' })).not.toThrow();
  });
});
