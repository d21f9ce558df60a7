import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import { expect, test } from 'vitest';
import { applyEtcMerge } from '../../src/deploy/etc-apply.ts';
import { planEtcMerge } from '../../src/deploy/etc-merge.ts';
import { scanDirectory } from '../../src/deploy/etc-scan.ts';
import { materializeTree } from '../../src/deploy/materialize.ts';
import type { DirectoryNode } from '../../src/tree/node.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { testHost } from '../helpers/test-host.ts';
import { contentOf, dir, file, link, symlink, tree } from '../helpers/tree-builder.ts';

const host = testHost();
const scan = (path: string): DirectoryNode => scanDirectory(host, path, 'sha256');

/** vfs_cap_data, revision 2: cap_net_bind_service permitted and effective. */
const CAPABILITY = Buffer.from('0100000200040000000000000000000000000000', 'hex');
/** posix_acl_xattr, version 2: user::rw-, user:1234:r--, group::r--, mask::r--, other::---. */
const ACL = Buffer.from(
  '0200000001000600ffffffff02000400d204000004000400ffffffff10000400ffffffff20000000ffffffff',
  'hex',
);

function everything(): DirectoryNode {
  const shared = file('shared', { uid: 3, gid: 4, mode: 0o6755, xattrs: { 'security.capability': CAPABILITY } });
  return tree({
    '/': dir({ uid: 1, gid: 2, mode: 0o2755, xattrs: { 'security.selinux': 'system_u:object_r:etc_t:s0\0' } }),
    '/owned': file('x'.repeat(100), { uid: 65534, gid: 4_000_000_000 }),
    '/acl': file('1', { mode: 0o640, xattrs: { 'system.posix_acl_access': ACL } }),
    '/d': dir({
      uid: 5,
      mode: 0o1750,
      xattrs: { 'system.posix_acl_default': ACL, 'user.odd': '\0\n\xff', 'trusted.x': '' },
    }),
    '/d/plain': file('no ACL of its own', { mode: 0o664 }),
    '/d/sub': dir({ mode: 0o775 }),
    '/d/sub/shared': shared,
    '/d/zz': link(shared),
    '/link': symlink('owned', { uid: 6, gid: 7, xattrs: { 'security.selinux': 'system_u:object_r:cert_t:s0\0' } }),
    '/labelled': file('', { uid: 8, xattrs: { 'security.selinux': 'system_u:object_r:shadow_t:s0\0' } }),
  });
}

test('a tree written by root reads back with owners, capabilities, labels and ACLs', () => {
  const path = `${scratchDir()}/t`;
  materializeTree(host, everything(), path, contentOf);
  expect(scan(path)).toEqual(everything());
  expect(execFileSync('getcap', [`${path}/d/zz`], { encoding: 'utf8' })).toMatch(/cap_net_bind_service=ep/);
});

test('nothing of it comes from a default ACL around it', () => {
  const scratch = scratchDir();
  host.syscalls.setXattr(scratch, 'system.posix_acl_default', ACL);
  materializeTree(host, everything(), `${scratch}/t`, contentOf);
  expect(scan(`${scratch}/t`)).toEqual(everything());
});

test('local files arrive with owners, capabilities, labels and ACLs, and no more than those', () => {
  const scratch = scratchDir();
  const local = everything();
  // The new default would hand its own ACL to whatever is created in it.
  const next = tree({
    '/': dir({ xattrs: { 'system.posix_acl_default': ACL, 'user.theirs': '1' } }),
    '/d': dir({ xattrs: { 'system.posix_acl_default': ACL, 'system.posix_acl_access': ACL, 'user.theirs': '1' } }),
  });
  materializeTree(host, local, `${scratch}/local`, contentOf);
  materializeTree(host, next, `${scratch}/next`, contentOf);
  const plan = planEtcMerge({ base: tree({}), local: scan(`${scratch}/local`), next });
  applyEtcMerge(host, plan, `${scratch}/local`, `${scratch}/next`);
  expect(scan(`${scratch}/next`)).toEqual(local);
});

test('a very large file is merged without being held in memory', () => {
  const scratch = scratchDir();
  const large = 700 * 2 ** 20;
  materializeTree(host, tree({}), `${scratch}/local`, contentOf);
  materializeTree(host, tree({}), `${scratch}/next`, contentOf);
  fs.writeFileSync(`${scratch}/local/large`, 'begin');
  fs.truncateSync(`${scratch}/local/large`, large);
  fs.appendFileSync(`${scratch}/local/large`, 'end');
  const before = process.memoryUsage.rss();
  const local = scan(`${scratch}/local`);
  const plan = planEtcMerge({ base: tree({}), local, next: tree({}) });
  applyEtcMerge(host, plan, `${scratch}/local`, `${scratch}/next`);
  expect(process.memoryUsage.rss() - before).toBeLessThan(100 * 2 ** 20);
  expect(scan(`${scratch}/next`).entries).toEqual(local.entries);
});
