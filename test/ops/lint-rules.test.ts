import { describe, expect, test } from 'vitest';
import { isHookName, lintTree, type LintInput } from '../../src/ops/lint-rules.ts';
import { findBootFiles } from '../../src/image/boot-files.ts';
import { charDevice, contentOf as bytesOf, dir, file, symlink, tree } from '../helpers/tree-builder.ts';
import type { FileNode, TreeEntry } from '../../src/tree/node.ts';

const contentOf = (node: FileNode): Iterable<Uint8Array> => [bytesOf(node)];
const KERNEL = '/usr/lib/modules/6.12.0';
const EMPTY = ['boot', 'dev', 'etc', 'proc', 'run', 'sys', 'sysroot', 'tmp', 'var'];

/** Made anew each time: a tree takes its nodes over. */
const goodImage = (): Readonly<Record<string, TreeEntry>> => ({
  ...Object.fromEntries(EMPTY.map((name) => [`/${name}`, dir()])),
  '/usr/bin/hostctl': symlink('../lib/hostctl/hostctl.mjs'),
  '/usr/bin/node': file('elf'),
  [`${KERNEL}/vmlinuz`]: file('kernel'),
  [`${KERNEL}/initramfs.img`]: file('initrd'),
});

function lint(files: Readonly<Record<string, TreeEntry | undefined>>, more: Partial<LintInput> = {}): string[] {
  const merged = Object.entries({ ...goodImage(), ...files }).flatMap(([path, node]) =>
    node ? [[path, node] as const] : [],
  );
  const root = tree(Object.fromEntries(merged));
  return lintTree({
    tree: root,
    bootFiles: () => findBootFiles(root),
    contentOf,
    architecture: 'amd64',
    labels: new Map([['containers.bootc', '1']]),
    initramfs: { names: new Set(['usr/lib/hostctl/hostctl-root']) },
    ...more,
  }).map(({ severity, code, message }) => `${severity} ${code}: ${message}`);
}

test('a good image has no findings', () => {
  expect(lint({})).toEqual([]);
});

describe('a finding tells', () => {
  test.each<readonly [string, Readonly<Record<string, TreeEntry | undefined>>, readonly string[]]>([
    ['no kernel', { [`${KERNEL}/vmlinuz`]: undefined }, ['fatal kernel: Image has no kernel "/usr/lib/modules/VERSION/vmlinuz"']],
    ['two kernels', { '/usr/lib/modules/6.13.0/vmlinuz': file('k') }, ['fatal kernel: Image has 2 kernels: "6.12.0", "6.13.0"']],
    ['no initramfs', { [`${KERNEL}/initramfs.img`]: undefined }, ['fatal kernel: Image has no file "/usr/lib/modules/6.12.0/initramfs.img"']],
    ['an old kernel', { [`${KERNEL}/vmlinuz`]: undefined, [`${KERNEL}/initramfs.img`]: undefined, '/usr/lib/modules/6.5.13-1/vmlinuz': file('k'), '/usr/lib/modules/6.5.13-1/initramfs.img': file('i') }, ['fatal kernel-too-old: Kernel 6.5.13-1 cannot mount a verified root: overlayfs checks digests since Linux 6.6']],
    ['missing directories', { '/proc': undefined, '/sysroot': file('x') }, ['fatal directories: The root lacks /proc, /sysroot, where something is mounted at boot']],
    ['a boot configuration that the hook refuses', { '/usr/lib/hostctl/hostctl.conf': file('[etc]\nmode = wrong\n') }, [expect.stringMatching(/^fatal boot-config: .*mode/)]],
    ['kernel arguments that cannot be read', { '/usr/lib/bootc/kargs.d/10.toml': file('kargs = 5\n') }, [expect.stringMatching(/^fatal kargs: .*10\.toml/)]],
    ['no updater', { '/usr/bin/hostctl': undefined, '/usr/bin/node': undefined }, ['warning no-updater: There is no hostctl and no node inside: the host cannot upgrade itself once it runs this image']],
    ['a line for the root in fstab', { '/etc/fstab': file('# / is not meant\nLABEL=data /data ext4\n  UUID=1 / ext4 rw\n') }, ['warning fstab-root: /etc/fstab has a line for "/": at boot it would be applied to the verified root and fail']],
    ['two etc', { '/usr/etc': dir() }, ['warning usr-etc: It has both /etc and /usr/etc; only /etc is used']],
    ['files in /var', { '/var/lib/a': file(), '/var/lib/b': dir(), '/var/lib/c': symlink('/usr/lib/c') }, ['warning var-content: 1 files lie in /var (/var/lib/a): they reach a host with its first deployment and never again']],
    ['/var/run as a directory', { '/var/run': dir() }, ['warning var-run: /var/run is a directory']],
    ['what a build left at mount points', { '/tmp/x': file('x'), '/dev/null': charDevice(0x103), '/proc/empty': file() }, ['warning mount-point-content: 1 entries lie in /dev (/dev/null), which is not seen on a running host', 'warning mount-point-content: 1 entries lie in /tmp (/tmp/x), which is not seen on a running host']],
    ['a kernel too old for its unified image', { '/boot/EFI/Linux/a.efi': file('uki'), '/usr/lib/modules/6.12.0': undefined, [`${KERNEL}/vmlinuz`]: undefined, [`${KERNEL}/initramfs.img`]: undefined, '/usr/lib/modules/6.1.0/modules.dep': file() }, ['fatal kernel-too-old: Kernel 6.1.0 cannot mount a verified root: overlayfs checks digests since Linux 6.6']],
    ['two unified kernel images', { '/boot/EFI/Linux/a.efi': file('uki'), '/boot/EFI/Linux/b.efi': file('uki') }, ['fatal kernel: Image has 2 unified kernel images: "/boot/EFI/Linux/a.efi", "/boot/EFI/Linux/b.efi"']],
    ['an add-on that cannot have its name', { '/boot/EFI/Linux/a.efi': file('uki'), '/boot/EFI/Linux/a.efi.extra.d/A B.addon.efi': file('x') }, ['fatal kernel: "/boot/EFI/Linux/a.efi.extra.d/A B.addon.efi" has a name that no boot partition may hold']],
    ['what lies in /boot beside a unified kernel image', { '/boot/EFI/Linux/a.efi': file('uki'), '/boot/EFI/x': file('x') }, ['warning mount-point-content: 1 entries lie in /boot (/boot/EFI/x), which is not seen on a running host']],
    ['a machine id', { '/etc/machine-id': file('0123456789abcdef0123456789abcdef\n') }, ['warning machine-id: All hosts would have the same /etc/machine-id']],
    ['host keys', { '/etc/ssh/ssh_host_rsa_key': file('k'), '/etc/ssh/ssh_host_rsa_key.pub': file('k') }, ['warning ssh-host-key: It brings private host keys (/etc/ssh/ssh_host_rsa_key) that everybody can read']],
  ])('%s', (_what, files, expected) => {
    expect(lint(files)).toEqual(expected);
  }); // prettier-ignore

  test('names that are not UTF-8, the first of them', () => {
    const names = Array.from({ length: 7 }, (_, i) => [`/usr/\xff${i}`, file()]);
    const root = tree({ '/usr': dir(), ...goodImage() });
    const usr = root.entries.get('usr' as never);
    for (const [name, node] of names) {
      if (usr?.kind === 'directory') usr.entries.set((name as string).slice(5) as never, node as TreeEntry);
    }
    const found = lintTree({
      tree: root,
      bootFiles: () => findBootFiles(root),
      contentOf,
      architecture: 'amd64',
      labels: new Map([['ostree.bootable', '1']]),
      initramfs: undefined,
    });
    expect(found.map(({ code, message }) => `${code}: ${message}`)).toEqual([
      'name-encoding: 7 names are not UTF-8 (/usr/\\xff0, /usr/\\xff1, /usr/\\xff2, /usr/\\xff3, /usr/\\xff4, 2 more)',
    ]);
  });

  test.each<readonly [string, Partial<LintInput>, readonly string[]]>([
    ['an initramfs without a hook', { initramfs: { names: new Set() } }, ['fatal boot-hook: The initramfs has no boot hook that mounts a deployment']],
    ['an initramfs that cannot be read', { initramfs: { unreadable: 'it is odd' } }, ['warning initramfs-unreadable: Whether it has the boot hook is not known: it is odd']],
    ['no label', { labels: new Map() }, ['warning label: No label says that it is meant to be booted']],
  ])('%s', (_what, more, expected) => {
    expect(lint({}, more)).toEqual(expected);
  }); // prettier-ignore
});

test('fatal findings stand first, and each has a remedy', () => {
  const root = tree({ '/etc/machine-id': file('x') });
  const found = lintTree({
    tree: root,
    bootFiles: () => findBootFiles(root),
    contentOf,
    architecture: 'amd64',
    labels: new Map(),
    initramfs: undefined,
  });
  const severities = found.map(({ severity }) => severity);
  expect(severities).toEqual([...severities].sort());
  expect(found.filter(({ remedy }) => remedy.length < 10)).toEqual([]);
});

test.each([
  ['usr/lib/hostctl/hostctl-root', true],
  ['usr/lib/systemd/system/hostctl-root.service', true],
  ['usr/lib/systemd/system/bootc-root-setup.service', true],
  ['usr/lib/systemd/system/initrd-root-fs.target.requires/hostctl-root.service', false],
  ['usr/lib/dracut/modules.d/50hostctl', false],
])('%s as a name of a hook: %s', (name, expected) => {
  expect(isHookName(name)).toBe(expected);
});
