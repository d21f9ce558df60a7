import { fstatSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { fsverityDigest } from '../../src/format/fsverity/digest.ts';
import { ObjectStore } from '../../src/store/objects.ts';
import { objectFile, openOrCreateRepository, type Repository } from '../../src/store/repository.ts';
import { openSyscalls } from '../../src/sys/syscalls.ts';
import type { Host } from '../../src/sys/host.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { testHost } from '../helpers/test-host.ts';

const SMALL = Buffer.from('a small object, buffered before it is written');
const LARGE = Buffer.alloc(300_000, 'large');

function openStore(host: Host = testHost()): { repository: Repository; store: ObjectStore } {
  const repository = openOrCreateRepository(host, `${scratchDir()}/composefs`);
  return { repository, store: new ObjectStore(host, repository) };
}

function write(store: ObjectStore, bytes: Uint8Array, piece = 100_000): string {
  const writer = store.create(bytes.length);
  for (let at = 0; at < bytes.length; at += piece) writer.write(bytes.subarray(at, at + piece));
  return writer.finish();
}

/** A content whose object goes into the directory `prefix`. */
function contentWith(prefix: string): Buffer {
  for (let i = 0; ; i++) {
    const bytes = Buffer.from(`${i}`);
    if (fsverityDigest('sha512', bytes).startsWith(prefix)) return bytes;
  }
}

function dirtyMarkers(repository: Repository): string[] {
  return readdirSync(repository.path).filter((name) => name.startsWith('.dirty.'));
}

describe.each([
  ['through koffi', () => testHost()],
  // The way for machines without koffi: other programs do what Node cannot.
  ['through programs', () => withoutKoffi()],
])('an object written %s', (_, makeHost) => {
  test.each([
    ['small', SMALL],
    ['large', LARGE],
  ])('%s, stands under its digest with its bytes and mode', (_size, bytes) => {
    const { repository, store } = openStore(makeHost());
    const digest = write(store, bytes);
    store.barrier();
    expect(digest).toBe(fsverityDigest('sha512', bytes));
    expect(readFileSync(objectFile(repository, digest)).equals(bytes)).toBe(true);
    expect(statSync(objectFile(repository, digest)).mode & 0o7777).toBe(0o644);
    expect(store.counts).toEqual({ writtenObjects: 1, writtenBytes: bytes.length, reusedObjects: 0 });
  });

  test('is not written again when it is there', () => {
    const host = makeHost();
    const { repository, store } = openStore(host);
    for (const bytes of [SMALL, LARGE]) write(store, bytes);
    store.barrier();
    const before = statSync(objectFile(repository, fsverityDigest('sha512', SMALL))).ino;
    const second = new ObjectStore(host, repository);
    for (const bytes of [SMALL, LARGE]) write(second, bytes);
    second.barrier();
    expect(second.counts).toEqual({ writtenObjects: 0, writtenBytes: 0, reusedObjects: 2 });
    expect(statSync(objectFile(repository, fsverityDigest('sha512', SMALL))).ino).toBe(before);
  });

  test('is used where another command published it in a directory that this one made', () => {
    const host = makeHost();
    const { repository, store } = openStore(host);
    const prefix = write(store, SMALL).slice(0, 2);
    const neighbour = contentWith(prefix);
    const path = objectFile(repository, fsverityDigest('sha512', neighbour));
    const other = new ObjectStore(host, repository);
    write(other, neighbour);
    const { ino } = statSync(path);
    write(store, neighbour);
    expect(store.counts).toMatchObject({ writtenObjects: 1, reusedObjects: 1 });
    expect(statSync(path).ino).toBe(ino);
    other.barrier();
    store.barrier();
  });

  test('is replaced where something else has its name in a directory that this one made', () => {
    const { repository, store } = openStore(makeHost());
    const neighbour = contentWith(write(store, SMALL).slice(0, 2));
    const path = objectFile(repository, fsverityDigest('sha512', neighbour));
    writeFileSync(path, 'too short');
    write(store, neighbour);
    store.barrier();
    expect(readFileSync(path).equals(neighbour)).toBe(true);
  });

  test('that is aborted leaves nothing behind', () => {
    const { repository, store } = openStore(makeHost());
    const writer = store.create(LARGE.length);
    writer.write(LARGE.subarray(0, 1000));
    writer.abort();
    store.barrier();
    const left = readdirSync(`${repository.path}/objects`, { recursive: true, encoding: 'utf8' });
    expect(left.filter((name) => name.includes('/'))).toEqual([]);
  });
});

describe('a damaged object', () => {
  test.each([
    ['truncated', SMALL.subarray(0, 10)],
    ['empty', Buffer.alloc(0)],
  ])('%s, is replaced by a whole one', (_, damage) => {
    const host = testHost();
    const { repository, store } = openStore(host);
    const path = objectFile(repository, fsverityDigest('sha512', SMALL));
    mkdirSync(path.slice(0, path.lastIndexOf('/')));
    writeFileSync(path, damage);
    write(store, SMALL);
    store.barrier();
    expect(readFileSync(path).equals(SMALL)).toBe(true);
  });

  test('of the right size is found out while a dead command has left doubt', () => {
    const host = testHost();
    const { repository, store } = openStore(host);
    const path = objectFile(repository, fsverityDigest('sha512', SMALL));
    mkdirSync(path.slice(0, path.lastIndexOf('/')));
    writeFileSync(path, Buffer.alloc(SMALL.length, 'x'));
    store.create(1);
    write(store, LARGE);
    // The command dies here: its marker stays, its lock does not.
    store.close();
    write(new ObjectStore(host, repository), SMALL);
    expect(readFileSync(path).equals(SMALL)).toBe(true);
  });
});

describe('the dirty marker', () => {
  test('stands from before the first object until after the barrier', () => {
    const { repository, store } = openStore();
    expect(dirtyMarkers(repository)).toHaveLength(0);
    write(store, SMALL);
    expect(dirtyMarkers(repository)).toHaveLength(1);
    store.barrier();
    expect(dirtyMarkers(repository)).toHaveLength(0);
  });

  test('of one command is not cleared by the barrier of another', () => {
    const host = testHost();
    const { repository, store } = openStore(host);
    write(store, SMALL);
    const other = new ObjectStore(host, repository);
    write(other, LARGE);
    other.barrier();
    expect(dirtyMarkers(repository)).toHaveLength(1);
  });
});

test('a writer refuses more and fewer bytes than were announced', () => {
  const { store } = openStore();
  const long = store.create(3);
  expect(() => long.write(Buffer.from('four'))).toThrow(/3 bytes was given more/);
  const short = store.create(3);
  short.write(Buffer.from('ab'));
  expect(() => short.finish()).toThrow(/3 bytes was given only 2/);
});

function withoutKoffi(): Host {
  const host = testHost();
  return { ...host, syscalls: openSyscalls(host.exec, null) };
}

test('Much that is published is written back before the barrier, once at a time and through another descriptor', () => {
  const host = testHost();
  const started: { readonly fd: number; readonly ended: () => void }[] = [];
  let barrierFd: number | undefined;
  const syscalls = {
    ...host.syscalls,
    startSyncfs: (fd: number, ended: () => void) => void started.push({ fd, ended }),
    syncfs: (fd: number) => void (barrierFd = fd),
  };
  const { store } = openStore({ ...host, syscalls });
  const writeMebibytes = (from: number, count: number): void => {
    for (let i = from; i < from + count; i += 4) write(store, Buffer.alloc(4 << 20, `${i} `), 1 << 20);
  };
  writeMebibytes(0, 252);
  expect(started).toHaveLength(0);
  writeMebibytes(252, 260);
  expect(started).toHaveLength(1);
  const [{ fd, ended }] = started as [(typeof started)[0]];
  expect(fstatSync(fd).isDirectory()).toBe(true);
  ended();
  expect(() => fstatSync(fd)).toThrow('EBADF');
  writeMebibytes(512, 4);
  expect(started).toHaveLength(2);
  started[1]!.ended();
  store.barrier();
  expect(barrierFd).not.toBe(fd);
  store.close();
});
