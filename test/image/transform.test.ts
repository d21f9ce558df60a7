/** What the merged tree becomes before it is written: for every image, and for one that boots. */

import { describe, expect, test } from 'vitest';
import { HostctlError } from '../../src/errors.ts';
import { bootableTree } from '../../src/image/build.ts';
import { transformForOci } from '../../src/image/transform.ts';
import { lookup } from '../../src/tree/lookup.ts';
import type { DirectoryNode, TreeEntry } from '../../src/tree/node.ts';
import { dir, file, link, symlink, tree } from '../helpers/tree-builder.ts';
import { listing } from '../helpers/tree-listing.ts';

const usrTime = { sec: 1234n, nsec: 567 };
const usr = (): DirectoryNode =>
  dir({ mode: 0o711, uid: 3, gid: 4, mtime: usrTime, xattrs: { 'security.capability': 'cap' } });

describe('the OCI transform', () => {
  test('gives the root everything that /usr has', () => {
    const root = tree({ '/': dir({ mode: 0o700, uid: 9, xattrs: { 'security.capability': 'other' } }), '/usr': usr() });
    transformForOci(root);
    const { entries, ...metadata } = root;
    const { entries: ofUsr, ...expected } = usr();
    expect({ metadata, names: [...entries.keys()], ofUsr: ofUsr.size }).toEqual({
      metadata: expected,
      names: ['usr'],
      ofUsr: 0,
    });
  });

  test('empties /run and gives it the time of /usr, and nothing else of it', () => {
    const root = tree({ '/usr': usr(), '/run': dir({ mode: 0o755, uid: 0, gid: 0 }), '/run/lock/a': file('x') });
    transformForOci(root);
    const { entries, ...metadata } = lookup(root, 'run') as DirectoryNode;
    expect({ metadata, size: entries.size }).toEqual({
      metadata: { kind: 'directory', mode: 0o755, uid: 0, gid: 0, mtime: usrTime, xattrs: new Map() },
      size: 0,
    });
  });

  test('leaves a /run that is a symlink, or that is not there', () => {
    for (const entries of [{ '/usr': usr() }, { '/usr': usr(), '/run': symlink('tmp') }]) {
      const root = tree(entries);
      const before = listing(root);
      transformForOci(root);
      expect(listing(root)).toEqual(before);
    }
  });

  test('does not count names that were in /run', () => {
    const shared = file('x');
    const root = tree({ '/usr': usr(), '/run/a': shared, '/usr/b': link(shared), '/usr/c': link(shared) });
    transformForOci(root);
    expect(listing(root)).toEqual({ run: 'd755', usr: 'd711', 'usr/b': 'f644 x x2', 'usr/c': '= usr/b' });
  });

  test.each<readonly [string, Record<string, TreeEntry>]>([
    ['nothing', {}],
    ['a symlink', { '/usr': symlink('system') }],
    ['a file', { '/usr': file() }],
  ])('refuses an image whose /usr is %s', (_title, entries) => {
    expect(() => transformForOci(tree(entries))).toThrow(
      new HostctlError('image-unsupported', 'Image has no directory "/usr"'),
    );
  });
});

const kernel = '/usr/lib/modules/6.1.0-1-amd64';
const bootable = (more: Record<string, TreeEntry> = {}): DirectoryNode =>
  tree({
    '/usr': usr(),
    [`${kernel}/vmlinuz`]: file('kernel'),
    [`${kernel}/initramfs.img`]: file('initramfs'),
    '/usr/lib/modules/other/modules.dep': file(''),
    '/boot': dir({ mtime: { sec: 5n, nsec: 6 } }),
    ...('/boot' in more ? {} : { '/boot/old': file('x') }),
    '/sysroot': dir({ mtime: { sec: 7n, nsec: 8 } }),
    '/etc/fstab': file('x'),
    '/var/lib': dir(),
    ...more,
  });

describe('the boot transform', () => {
  test('empties /boot and /sysroot with the seconds of /usr, and keeps the rest', () => {
    const source = bootable();
    const before = listing(source);
    const { tree: root, bootFiles } = bootableTree(source);
    const expected = { ...before };
    delete expected['boot/old'];
    expect(listing(root)).toEqual(expected);
    expect([lookup(root, 'boot'), lookup(root, 'sysroot')].map((node) => node?.mtime)).toEqual([
      { sec: 1234n, nsec: 6 },
      { sec: 1234n, nsec: 8 },
    ]);
    expect(bootFiles).toEqual({
      kind: 'split',
      kernelVersion: '6.1.0-1-amd64',
      kernel: lookup(root, `${kernel}/vmlinuz`),
      initramfs: lookup(root, `${kernel}/initramfs.img`),
    });
    expect(listing(source)).toEqual(before);
  });

  test('takes a unified kernel image, with its add-ons in order, before the kernel it was made of', () => {
    const [uki, first, second] = [file('uki'), file('1'), file('2')];
    const { tree: root, bootFiles } = bootableTree(
      bootable({
        '/boot/EFI/Linux/a.efi': uki,
        '/boot/EFI/Linux/a.efi.extra.d/b.addon.efi': second,
        '/boot/EFI/Linux/a.efi.extra.d/a.addon.efi': first,
        '/boot/EFI/Linux/a.efi.extra.d/x.cred': file('no add-on'),
      }),
    );
    expect(bootFiles).toEqual({
      ...{ kind: 'unified', kernelVersion: '6.1.0-1-amd64', path: '/boot/EFI/Linux/a.efi', uki },
      addons: [
        { name: 'a.addon.efi', file: first },
        { name: 'b.addon.efi', file: second },
      ],
    });
    expect(listing(root)).not.toHaveProperty('boot/EFI');
  });

  test('finds the add-ons of one whose name is shown in another form', () => {
    const { bootFiles } = bootableTree(
      bootable({ '/boot/EFI/Linux/a\n.efi': file('a uki'), '/boot/EFI/Linux/a\n.efi.extra.d/a.addon.efi': file('x') }),
    );
    expect(bootFiles).toMatchObject({ path: '/boot/EFI/Linux/a\\x0a.efi', addons: [{ name: 'a.addon.efi' }] });
  });

  test('moves an inode out of /boot to its next name', () => {
    const shared = file('kernel');
    const { tree: root } = bootableTree(bootable({ '/boot/vmlinuz': shared, [`${kernel}/vmlinuz`]: link(shared) }));
    expect(listing(root)[`${kernel.slice(1)}/vmlinuz`]).toBe('f644 kernel');
  });

  test.each<readonly [string, Record<string, TreeEntry>, string]>([
    ['no /boot', { '/boot': symlink('x') }, 'image-not-bootable: Image has no directory "/boot"'],
    ['no /sysroot', { '/sysroot': file() }, 'image-not-bootable: Image has no directory "/sysroot"'],
    ['two kernels', { '/usr/lib/modules/6.2/vmlinuz': file('x') }, 'image-not-bootable: Image has 2 kernels: "6.1.0-1-amd64", "6.2"'],
    ['no kernel', { '/usr/lib/modules': dir() }, 'image-not-bootable: Image has no kernel "/usr/lib/modules/VERSION/vmlinuz"'],
    ['no initramfs', { [kernel]: tree({ '/vmlinuz': file('x') }) }, `image-not-bootable: Image has no file "${kernel}/initramfs.img"`],
    ['an empty initramfs', { [`${kernel}/initramfs.img`]: file('') }, `image-not-bootable: "${kernel}/initramfs.img" has 0 bytes, allowed are 1 to 1073741824`],
    ['a kernel that is a symlink', { [`${kernel}/vmlinuz`]: symlink('x') }, `image-not-bootable: "${kernel}/vmlinuz" is a symlink instead of a file`],
    ['a kernel of 257 MiB', { [`${kernel}/vmlinuz`]: { ...file('x'), content: { kind: 'external', size: 257 << 20 } } }, `image-not-bootable: "${kernel}/vmlinuz" has 269484032 bytes, allowed are 1 to 268435456`],
    ['a version with a line break', { '/usr/lib/modules': tree({ '/6\noptions evil/vmlinuz': file('x') }) }, 'image-not-bootable: Kernel version "6\\x0aoptions evil" has characters that no boot entry may hold'],
    ['two unified kernel images', { '/boot/EFI/Linux/a.efi': file('x'), '/boot/EFI/Linux/b.EFI': file('x') }, 'image-not-bootable: Image has 2 unified kernel images: "/boot/EFI/Linux/a.efi", "/boot/EFI/Linux/b.EFI"'],
    ['an empty unified kernel image', { '/boot/EFI/Linux/a.efi': file('') }, 'image-not-bootable: "/boot/EFI/Linux/a.efi" has 0 bytes, allowed are 1 to 1073741824'],
    ['an add-on of 2 MiB', { '/boot/EFI/Linux/a.efi': file('x'), '/boot/EFI/Linux/a.efi.extra.d/x.addon.efi': { ...file('x'), content: { kind: 'external', size: 2 << 20 } } }, 'image-not-bootable: "/boot/EFI/Linux/a.efi.extra.d/x.addon.efi" has 2097152 bytes, allowed are 1 to 1048576'],
    ['17 add-ons', { '/boot/EFI/Linux/a.efi': file('x'), ...Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`/boot/EFI/Linux/a.efi.extra.d/${i}.addon.efi`, file('x')])) }, 'image-not-bootable: "/boot/EFI/Linux/a.efi" has 17 add-ons, more than 16'],
  ])('refuses %s', (_title, more, expected) => {
    const entries = bootable(more);
    let message = 'accepted';
    try {
      bootableTree(entries);
    } catch (error) {
      message = error instanceof HostctlError ? `${error.code}: ${error.message}` : String(error);
    }
    expect(message).toBe(expected);
  }); // prettier-ignore
});
