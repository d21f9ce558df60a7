import { describe, expect, test } from 'vitest';
import { formatGrubMenuEntry } from '../../../src/format/grub/menu-entry.ts';

const ENTRY = {
  id: 'hostctl-00000042',
  title: "It's",
  linuxPath: '/hostctl/abc/linux',
  initrdPath: '/hostctl/abc/initrd',
  options: 'root=UUID=1 x="a  b" "y=c d" $z',
  tries: 3,
};

describe('formatGrubMenuEntry', () => {
  test('is a menu entry that GRUB shows as long as its kernel is there, and counts when it is told to', () => {
    expect(formatGrubMenuEntry(ENTRY)).toBe(`# Made by hostctl with the boot entry of the same name.
if [ -f '/hostctl/abc/linux' ]; then
  menuentry 'It'\\''s' --id hostctl-00000042 {
    set hostctl_argument=
    if [ "$hostctl_counted" = hostctl-00000042 ]; then set hostctl_argument="hostctl.counted=$hostctl_left/3"; fi
    linux '/hostctl/abc/linux' 'root=UUID=1' 'x=a  b' 'y=c d' '$z' $hostctl_argument
    initrd '/hostctl/abc/initrd'
  }
fi
`);
  });

  test('is never counted without tries', () => {
    expect(formatGrubMenuEntry({ ...ENTRY, tries: undefined })).not.toContain('hostctl.counted');
  });

  test.each([`a='b'`, String.raw`a=b\c`, String.raw`a=\xg0`, 'a="b "c'])('refuses %j', (options) => {
    const refused = expect.objectContaining({ code: 'format-invalid' }) as Error;
    expect(() => formatGrubMenuEntry({ ...ENTRY, options })).toThrow(refused);
  });

  test(String.raw`hands on \x2d, which GRUB leaves alone`, () => {
    expect(formatGrubMenuEntry({ ...ENTRY, options: String.raw`a=b\x2dc` })).toContain(String.raw` 'a=b\x2dc' `);
  });
});
