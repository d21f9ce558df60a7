import { describe, expect, test } from 'vitest';

import * as L from '../../../src/format/erofs/layout.ts';
import { filterBit, joinXattrName, splitXattrName } from '../../../src/format/erofs/xattr-name.ts';
import { xxh32 } from '../../../src/format/erofs/xxh32.ts';

describe('records have the sizes and offsets of the kernel', () => {
  test.each([
    [L.composefsHeader, 32, { magic: 0, headerVersion: 4, flags: 8, composefsVersion: 12, reserved: 16 }],
    [L.dirent, 12, { nid: 0, nameOffset: 8, fileType: 10, reserved: 11 }],
    [L.xattrHeader, 12, { nameFilter: 0, sharedCount: 4, reserved: 5 }],
    [L.xattrEntry, 4, { nameSize: 0, nameIndex: 1, valueSize: 2 }],
    [
      L.compactInode,
      32,
      {
        format: 0,
        xattrCount: 2,
        mode: 4,
        nlink: 6,
        size: 8,
        reserved: 12,
        data: 16,
        ino: 20,
        uid: 24,
        gid: 26,
        reserved2: 28,
      },
    ],
    [
      L.extendedInode,
      64,
      {
        format: 0,
        xattrCount: 2,
        mode: 4,
        reserved: 6,
        size: 8,
        data: 16,
        ino: 20,
        uid: 24,
        gid: 28,
        mtimeSec: 32,
        mtimeNsec: 40,
        nlink: 44,
        reserved2: 48,
      },
    ],
    [
      L.superblock,
      128,
      {
        magic: 0,
        checksum: 4,
        featureCompat: 8,
        blockSizeBits: 12,
        extensionSlots: 13,
        rootNid: 14,
        inodeCount: 16,
        buildTimeSec: 24,
        buildTimeNsec: 32,
        blockCount: 36,
        metaBlock: 40,
        xattrBlock: 44,
        uuid: 48,
        volumeName: 64,
        featureIncompat: 80,
        compression: 84,
        extraDevices: 86,
        deviceSlots: 88,
        dirBlockBits: 90,
        xattrPrefixCount: 91,
        xattrPrefixStart: 92,
        packedNid: 96,
        xattrFilterReserved: 104,
        reserved: 105,
      },
    ],
  ])('$name', ({ size, offsets }, expectedSize, expectedOffsets) => {
    expect({ size, offsets }).toEqual({ size: expectedSize, offsets: expectedOffsets });
  });
});

test('XXH32 gives the published check values', () => {
  expect([xxh32('', 0), xxh32('a', 0), xxh32('abc', 0), xxh32('Nobody inspects the spammish repetition', 0)]).toEqual([
    0x02cc5d05, 0x550d7456, 0x32d153ff, 0xe2293b2f,
  ]);
});

describe('xattr names', () => {
  test.each([
    ['user.a', 1, 'a'],
    ['user.', 1, ''],
    ['system.posix_acl_access', 2, ''],
    ['system.posix_acl_accessfoo', 2, 'foo'],
    ['system.posix_acl_default', 3, ''],
    ['trusted.overlay.opaque', 4, 'overlay.opaque'],
    ['security.selinux', 6, 'selinux'],
    ['lustre.lov', 0, 'lustre.lov'],
    ['system.other', 0, 'system.other'],
  ])('%s is prefix %i and "%s", and back', (name, index, suffix) => {
    expect(splitXattrName(name)).toEqual({ index, suffix });
    expect(joinXattrName(index, suffix)).toBe(name);
  });

  test('with a prefix number only readers know', () => {
    expect([joinXattrName(5, 'lov'), joinXattrName(7, 'x'), joinXattrName(0x81, 'x')]).toEqual([
      'lustre.lov',
      undefined,
      undefined,
    ]);
  });

  test('have one bit of 32 in the filter', () => {
    expect([filterBit(6, 'selinux'), filterBit(4, 'overlay.opaque')].map((bit) => bit >>> 0)).toEqual([
      0x0800, 0x100000,
    ]);
  });
});
