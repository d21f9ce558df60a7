/**
 * A reader of FAT12, FAT16 and FAT32 with long names, over the bytes of a partition. It reads as firmware does: the
 * first copy of the table, no repair, no allocation bitmap. Written from the FAT specification (Microsoft, 2000);
 * shares nothing with any driver.
 */

import { Damage, type Files, join } from './files.ts';

interface Geometry {
  readonly bytesPerSector: number;
  readonly clusterBytes: number;
  readonly fatOffset: number;
  readonly dataOffset: number;
  readonly clusters: number;
  readonly bits: 12 | 16 | 32;
  /** FAT12 and FAT16: the root directory's place. FAT32: its first cluster. */
  readonly root: { readonly offset: number; readonly length: number } | { readonly cluster: number };
}

interface Entry {
  readonly name: string;
  readonly directory: boolean;
  readonly cluster: number;
  readonly size: number;
}

/** Throws `Damage` when the boot sector is not one of FAT. */
export function fatFiles(disk: Buffer): Files {
  const geometry = readGeometry(disk);
  const root: Entry = { name: '', directory: true, cluster: 0, size: 0 };

  const find = (path: string): Entry | undefined => {
    let current = root;
    for (const part of join(path).split('/')) {
      if (part === '') continue;
      if (!current.directory) return undefined;
      // FAT names are the same in any case.
      const next = readDirectory(disk, geometry, current).find(
        (entry) => entry.name.toLowerCase() === part.toLowerCase(),
      );
      if (!next) return undefined;
      current = next;
    }
    return current;
  };

  return {
    kind: (path) => {
      const entry = find(path);
      return entry && (entry.directory ? 'directory' : 'file');
    },
    read: (path) => {
      const entry = find(path);
      return entry && !entry.directory ? readFile(disk, geometry, entry) : undefined;
    },
    list: (path) => {
      const entry = find(path);
      return entry?.directory ? readDirectory(disk, geometry, entry).map(({ name }) => name) : undefined;
    },
    readlink: () => undefined,
  };
}

function readGeometry(disk: Buffer): Geometry {
  if (disk.length < 512 || disk.readUInt16LE(510) !== 0xaa55) throw new Damage('no FAT boot sector');
  const bytesPerSector = disk.readUInt16LE(11);
  const sectorsPerCluster = disk.readUInt8(13);
  const reserved = disk.readUInt16LE(14);
  const copies = disk.readUInt8(16);
  const rootEntries = disk.readUInt16LE(17);
  const total = disk.readUInt16LE(19) || disk.readUInt32LE(32);
  const sectorsPerFat = disk.readUInt16LE(22) || disk.readUInt32LE(36);
  if (![512, 1024, 2048, 4096].includes(bytesPerSector) || sectorsPerCluster === 0 || copies === 0 || reserved === 0) {
    throw new Damage('bad FAT boot sector');
  }
  const rootSectors = Math.ceil((rootEntries * 32) / bytesPerSector);
  const rootStart = reserved + copies * sectorsPerFat;
  const dataStart = rootStart + rootSectors;
  const clusters = Math.floor((total - dataStart) / sectorsPerCluster);
  if (clusters < 1 || total * bytesPerSector > disk.length) throw new Damage('FAT is larger than its partition');
  const bits = clusters < 4085 ? 12 : clusters < 65525 ? 16 : 32;
  return {
    bytesPerSector,
    clusterBytes: sectorsPerCluster * bytesPerSector,
    fatOffset: reserved * bytesPerSector,
    dataOffset: dataStart * bytesPerSector,
    clusters,
    bits,
    root:
      bits === 32
        ? { cluster: disk.readUInt32LE(44) & 0x0fffffff }
        : { offset: rootStart * bytesPerSector, length: rootEntries * 32 },
  };
}

/** The table entry of a cluster: the next one, or undefined at the end of a chain. */
function nextCluster(disk: Buffer, geometry: Geometry, cluster: number): number | undefined {
  const { bits, fatOffset } = geometry;
  let value: number;
  let end: number;
  if (bits === 12) {
    const pair = disk.readUInt16LE(fatOffset + cluster + (cluster >> 1));
    value = cluster & 1 ? pair >> 4 : pair & 0xfff;
    end = 0xff8;
  } else if (bits === 16) {
    value = disk.readUInt16LE(fatOffset + cluster * 2);
    end = 0xfff8;
  } else {
    value = disk.readUInt32LE(fatOffset + cluster * 4) & 0x0fffffff;
    end = 0x0ffffff8;
  }
  return value >= end ? undefined : value;
}

function readChain(disk: Buffer, geometry: Geometry, first: number, what: string): Buffer {
  const parts: Buffer[] = [];
  const seen = new Set<number>();
  for (let cluster: number | undefined = first; cluster !== undefined;) {
    if (cluster < 2 || cluster >= geometry.clusters + 2) throw new Damage(`${what}: chain leads to cluster ${cluster}`);
    if (seen.has(cluster)) throw new Damage(`${what}: chain loops at cluster ${cluster}`);
    seen.add(cluster);
    const offset = geometry.dataOffset + (cluster - 2) * geometry.clusterBytes;
    parts.push(disk.subarray(offset, offset + geometry.clusterBytes));
    cluster = nextCluster(disk, geometry, cluster);
  }
  return Buffer.concat(parts);
}

function readFile(disk: Buffer, geometry: Geometry, entry: Entry): Buffer {
  if (entry.size === 0) return Buffer.alloc(0);
  const content = readChain(disk, geometry, entry.cluster, entry.name);
  if (content.length < entry.size)
    throw new Damage(`${entry.name}: chain of ${content.length} for ${entry.size} bytes`);
  return content.subarray(0, entry.size);
}

const ATTR_VOLUME = 0x08;
const ATTR_DIRECTORY = 0x10;
const ATTR_LONG_NAME = 0x0f;

function readDirectory(disk: Buffer, geometry: Geometry, directory: Entry): Entry[] {
  const entries: Entry[] = [];
  let longName: LongName | undefined;
  const bytes = directoryBytes(disk, geometry, directory);
  for (let offset = 0; offset + 32 <= bytes.length; offset += 32) {
    const slot = bytes.subarray(offset, offset + 32);
    const first = slot.readUInt8(0);
    if (first === 0) break;
    const attributes = slot.readUInt8(11);
    if (first === 0xe5) {
      longName = undefined;
    } else if ((attributes & 0x3f) === ATTR_LONG_NAME) {
      longName = collectLongName(longName, slot);
    } else {
      const name = completeLongName(longName, slot) ?? shortName(slot);
      longName = undefined;
      if ((attributes & ATTR_VOLUME) !== 0 || name === '.' || name === '..') continue;
      entries.push({
        name,
        directory: (attributes & ATTR_DIRECTORY) !== 0,
        cluster: slot.readUInt16LE(26) | (geometry.bits === 32 ? slot.readUInt16LE(20) << 16 : 0),
        size: slot.readUInt32LE(28),
      });
    }
  }
  return entries;
}

function directoryBytes(disk: Buffer, geometry: Geometry, directory: Entry): Buffer {
  if (directory.cluster !== 0) return readChain(disk, geometry, directory.cluster, directory.name || 'root directory');
  if ('cluster' in geometry.root) return readChain(disk, geometry, geometry.root.cluster, 'root directory');
  return disk.subarray(geometry.root.offset, geometry.root.offset + geometry.root.length);
}

/** Long-name slots met so far, last part first on disk. */
interface LongName {
  readonly checksum: number;
  /** Order number of the slot read last; 1 when the name is complete. */
  readonly order: number;
  readonly text: string;
}

function collectLongName(before: LongName | undefined, slot: Buffer): LongName | undefined {
  const order = slot.readUInt8(0);
  const checksum = slot.readUInt8(13);
  const text = longNamePart(slot);
  if (order & 0x40) return { checksum, order: order & 0x3f, text };
  if (before?.checksum !== checksum || before.order !== order + 1) return undefined;
  return { checksum, order, text: text + before.text };
}

function longNamePart(slot: Buffer): string {
  const units = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30].map((offset) => slot.readUInt16LE(offset));
  const end = units.indexOf(0);
  return String.fromCharCode(...(end < 0 ? units : units.slice(0, end)));
}

/** A long name counts only when it is whole and made for this very short entry. */
function completeLongName(longName: LongName | undefined, slot: Buffer): string | undefined {
  if (longName?.order !== 1) return undefined;
  let sum = 0;
  for (const byte of slot.subarray(0, 11)) sum = (((sum & 1) << 7) + (sum >> 1) + byte) & 0xff;
  return sum === longName.checksum ? longName.text : undefined;
}

function shortName(slot: Buffer): string {
  const part = (from: number, to: number, lower: boolean): string => {
    const text = slot.toString('latin1', from, to).trimEnd();
    return lower ? text.toLowerCase() : text;
  };
  const flags = slot.readUInt8(12);
  const base = part(0, 8, (flags & 0x08) !== 0).replace(/^\x05/, '\xe5');
  const extension = part(8, 11, (flags & 0x10) !== 0);
  return extension === '' ? base : `${base}.${extension}`;
}
