import { describe, expect, test } from 'vitest';
import { luksUuid, planFilesystem, type MountFacts } from '../../src/ops/install-plan.ts';

const ESP_TYPE = 'c12a7328-f81f-11d2-ba4b-00a0c93ec93b';
const XBOOTLDR_TYPE = 'bc13c2ff-59e6-4262-a352-b275fd6f7172';
const LUKS = '01234567-89ab-cdef-0123-456789abcdef';

function mount(place: string, more: Partial<MountFacts> = {}): MountFacts {
  return {
    mountPoint: `/mnt${place}`,
    type: 'ext4',
    subvolume: '/',
    isReadOnly: false,
    uuid: `uuid-of${place.replaceAll('/', '-')}`,
    partitionType: undefined,
    luks: [],
    ...more,
  };
}
const root = mount('');
const esp = (place: string): MountFacts => mount(place, { type: 'vfat', partitionType: ESP_TYPE });
const xbootldr = (type: string): MountFacts => mount('/boot', { type, partitionType: XBOOTLDR_TYPE });

const BIOS_BOOT = { disk: '/dev/sda', startSector: 2048, sectors: 2048 };

const plan = (mounts: readonly MountFacts[], kargs: readonly string[] = [], hasDriver = false) =>
  planFilesystem({ root: '/mnt', mounts, kargs, biosBoot: undefined, hasLoaderDriver: () => hasDriver });
const planForBios = (mounts: readonly MountFacts[]) =>
  planFilesystem({ root: '/mnt', mounts, kargs: [], biosBoot: BIOS_BOOT, hasLoaderDriver: () => false });

describe('an installation onto mounted file systems', () => {
  test.each([
    ['the ESP at /boot', [root, esp('/boot')], '/mnt/boot', '/mnt/boot'],
    ['the ESP at /efi alone', [root, esp('/efi')], '/mnt/efi', '/mnt/efi'],
    ['XBOOTLDR at /boot beside the ESP', [root, xbootldr('vfat'), esp('/efi')], '/mnt/boot', '/mnt/efi'],
    ['the ESP below XBOOTLDR', [root, xbootldr('vfat'), esp('/boot/efi')], '/mnt/boot', '/mnt/boot/efi'],
  ])('puts entries and loader where the firmware finds them, with %s', (_, mounts, boot, loader) => {
    expect(plan(mounts)).toEqual({
      root: '/mnt',
      boot,
      esp: loader,
      var: undefined,
      bootFileSystem: { uuid: `uuid-of${boot.slice('/mnt'.length).replaceAll('/', '-')}`, type: 'vfat' },
      biosBoot: undefined,
      systemdBootProblem: undefined,
      foundKargs: ['root=UUID=uuid-of', 'rw'],
    });
  });

  test.each<[string, MountFacts[], string, string | undefined]>([
    ['/boot of the root file system', [root], '/mnt/boot', 'uuid-of'],
    ['a /boot of any kind', [root, mount('/boot')], '/mnt/boot', 'uuid-of-boot'],
    ['the ESP', [root, esp('/efi')], '/mnt/efi', 'uuid-of-efi'],
  ])('puts entries on %s for the GRUB of a BIOS', (_, mounts, boot, uuid) => {
    expect(planForBios(mounts)).toMatchObject({ boot, biosBoot: BIOS_BOOT, bootFileSystem: { uuid } });
  });

  test.each<[string, MountFacts[], RegExp]>([
    ['there is no ESP', [root], /No ESP is mounted/],
    ['it will not look at /boot', [root, mount('/boot'), esp('/efi')], /will not look at "\/mnt\/boot"/],
    ['it cannot read /boot', [root, xbootldr('ext4'), esp('/efi')], /cannot read "\/mnt\/boot".*ext4/],
  ])('knows why systemd-boot cannot be the loader: %s', (_, mounts, message) => {
    const { systemdBootProblem } = planForBios(mounts);
    expect(systemdBootProblem).toMatchObject({ code: 'host-unsupported' });
    expect(systemdBootProblem?.message).toMatch(message);
  });

  test('takes a /boot of another type where the loader has a driver for it', () => {
    expect(plan([root, xbootldr('ext4'), esp('/efi')], [], true)).toMatchObject({ boot: '/mnt/boot', esp: '/mnt/efi' });
  });

  test.each<[string, MountFacts[], string[], string[]]>([
    ['the root, beside what was asked for', [root], ['quiet'], ['root=UUID=uuid-of', 'rw']],
    ['nothing where root= is given', [root], ['root=LABEL=x', 'ro'], []],
    [
      'the subvolume of a btrfs',
      [mount('', { type: 'btrfs', subvolume: '/@' })],
      [],
      ['root=UUID=uuid-of', 'rootflags=subvol=/@', 'rw'],
    ],
    [
      'the LUKS device below the root, once',
      [mount('', { luks: [LUKS] }), mount('/var', { luks: [LUKS] })],
      [],
      ['root=UUID=uuid-of', 'rw', `rd.luks.uuid=${LUKS}`, 'systemd.mount-extra=UUID=uuid-of-var:/var:ext4'],
    ],
    [
      'no LUKS device that was named',
      [mount('', { luks: [LUKS] })],
      [`rd.luks.name=${LUKS}=root`],
      ['root=UUID=uuid-of', 'rw'],
    ],
    [
      'a subvolume for /var',
      [root, mount('/var', { type: 'btrfs', subvolume: '/@var' })],
      [],
      ['root=UUID=uuid-of', 'rw', 'systemd.mount-extra=UUID=uuid-of-var:/var:btrfs:subvol=/@var'],
    ],
    ['no second /var', [root, mount('/var')], ['systemd.mount-extra=LABEL=v:/var'], ['root=UUID=uuid-of', 'rw']],
  ])('gives the kernel %s', (_, mounts, kargs, expected) => {
    expect(plan([...mounts, esp('/efi')], kargs).foundKargs).toEqual(expected);
  });

  test.each([
    ['a root that is no mount point', [esp('/efi')], /is not where a file system/],
    ['a root of no block device', [mount('', { uuid: undefined }), esp('/efi')], /is not where a file system/],
    ['a root of another kind', [mount('', { type: 'f2fs' }), esp('/efi')], /The root is f2fs/],
    ['a missing ESP', [root], /No ESP is mounted/],
    ['an ESP by its place alone', [root, mount('/efi', { type: 'vfat' })], /No ESP is mounted/],
    ['an ESP that is not FAT', [root, mount('/efi', { partitionType: ESP_TYPE })], /No ESP is mounted/],
    ['a /var without a name', [root, esp('/efi'), mount('/var', { uuid: undefined })], /not a file system of a block/],
    ['a read-only ESP', [root, { ...esp('/efi'), isReadOnly: true }], /"\/mnt\/efi" is mounted read-only/],
    ['a read-only root', [{ ...root, isReadOnly: true }, esp('/efi')], /"\/mnt" is mounted read-only/],
  ])('refuses %s', (_, mounts, message) => {
    expect(() => plan(mounts)).toThrow(message);
    expect(() => plan(mounts)).toThrow(expect.objectContaining({ code: 'host-unsupported' }));
  });
});

test.each([
  [`CRYPT-LUKS2-${LUKS.replaceAll('-', '')}-luks-root`, LUKS],
  [`CRYPT-LUKS1-${LUKS.replaceAll('-', '')}-x`, LUKS],
  ['CRYPT-PLAIN-swap', undefined],
  ['LVM-abcdef', undefined],
])('The LUKS device of "%s" is %s', (dmUuid, uuid) => {
  expect(luksUuid(dmUuid)).toBe(uuid);
});
