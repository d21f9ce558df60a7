import { describe, expect, test } from 'vitest';
import { planEtcMerge, type EtcMergePolicy } from '../../src/deploy/etc-merge.ts';
import { rawFromText } from '../../src/tree/name.ts';
import type { DirectoryNode, TreeEntry } from '../../src/tree/node.ts';
import { dir, fifo, file, link, symlink, tree } from '../helpers/tree-builder.ts';

type Entries = Readonly<Record<string, TreeEntry>>;

/** Changes as `kind path`, conflicts as `! path`. */
function planned(base: Entries, local: Entries, next: Entries, policy?: EtcMergePolicy): string[] {
  const plan = planEtcMerge({ base: tree(base), local: tree(local), next: tree(next) }, policy);
  return [...plan.changes.map(({ kind, path }) => `${kind} ${path}`), ...plan.conflicts.map(({ path }) => `! ${path}`)];
}

const label = (text: string): { xattrs: Record<string, string> } => ({ xattrs: { 'security.selinux': `${text}\0` } });
const acl = Buffer.from('0200000001000600ffffffff', 'hex');

describe('what is local stays', () => {
  test.each<[string, Entries, Entries, Entries, string[]]>([
    ['an added file', {}, { '/a': file('mine') }, {}, ['add a']],
    [
      'an added file that the new image also brings',
      {},
      { '/a': file('mine') },
      { '/a': file('theirs') },
      ['replace a'],
    ],
    [
      'an added directory with all that is in it',
      {},
      { '/d/e/f': file('mine') },
      {},
      ['add d', 'add d/e', 'add d/e/f'],
    ],
    ['a changed file', { '/a': file('1') }, { '/a': file('mine') }, { '/a': file('2') }, ['replace a']],
    ['a changed file that the new image drops', { '/a': file('1') }, { '/a': file('mine') }, {}, ['add a']],
    ['a changed mode', { '/a': file('1') }, { '/a': file('1', { mode: 0o600 }) }, { '/a': file('2') }, ['replace a']],
    ['a changed owner', { '/a': file('1') }, { '/a': file('1', { uid: 7 }) }, { '/a': file('1') }, ['replace a']],
    ['a changed group', { '/a': file('1') }, { '/a': file('1', { gid: 7 }) }, { '/a': file('1') }, ['replace a']],
    ['a removed file', { '/a': file('1') }, {}, { '/a': file('2') }, ['remove a']],
    [
      'a removed directory, with what the new image adds to it',
      { '/d/a': file() },
      {},
      { '/d/a': file(), '/d/b': file() },
      ['remove d'],
    ],
    [
      'a symlink that leads elsewhere',
      { '/l': symlink('a') },
      { '/l': symlink('b') },
      { '/l': symlink('c') },
      ['replace l'],
    ],
    ['a file in place of a symlink', { '/l': symlink('a') }, { '/l': file() }, { '/l': symlink('a') }, ['replace l']],
    [
      'a symlink in place of a directory',
      { '/d/a': file() },
      { '/d': symlink('/srv') },
      { '/d/a': file('2') },
      ['remove d', 'add d'],
    ],
    [
      'a directory in place of a file',
      { '/a': file() },
      { '/a/b': file() },
      { '/a': file('2') },
      ['remove a', 'add a', 'add a/b'],
    ],
    ['a dangling symlink', {}, { '/l': symlink('no/such') }, {}, ['add l']],
    ['the mode of /etc itself', {}, { '/': dir({ mode: 0o700 }) }, {}, ['metadata ']],
    [
      'a user xattr',
      { '/a': file() },
      { '/a': file('', { xattrs: { 'user.x': 'y' } }) },
      { '/a': file() },
      ['replace a'],
    ],
    [
      'a capability',
      { '/a': file() },
      { '/a': file('', { xattrs: { 'security.capability': 'x' } }) },
      { '/a': file() },
      ['replace a'],
    ],
    [
      'a capability taken away',
      { '/a': file('', { xattrs: { 'security.capability': 'x' } }) },
      { '/a': file() },
      { '/a': file('', { xattrs: { 'security.capability': 'x' } }) },
      ['replace a'],
    ],
    [
      'an ACL',
      { '/d': dir() },
      { '/d': dir({ xattrs: { 'system.posix_acl_access': acl } }) },
      { '/d': dir() },
      ['metadata d'],
    ],
    [
      'a changed label',
      { '/a': file('', label('etc_t')) },
      { '/a': file('', label('mine_t')) },
      { '/a': file('', label('etc_t')) },
      ['replace a'],
    ],
    ['a name with a newline', {}, { 'raw:/a\nb': file() }, {}, ['add a\nb']],
    [
      'a name that is no UTF-8',
      { 'raw:/\xff': file('1') },
      { 'raw:/\xff': file('2') },
      { 'raw:/\xff': file('1') },
      ['replace \xff'],
    ],
    [
      'a change below a directory that the new image drops',
      { '/d/e/a': file('1'), '/d/b': file() },
      { '/d/e/a': file('2'), '/d/b': file() },
      {},
      ['add d', 'add d/e', 'add d/e/a'],
    ],
    [
      'a new file in a directory that vanishes',
      { '/d/a': file() },
      { '/d/a': file(), '/d/new': file() },
      {},
      ['add d', 'add d/new'],
    ],
    [
      'two new files in a directory that vanishes',
      { '/d/a': file() },
      { '/d/a': file(), '/d/x': file(), '/d/y': file() },
      {},
      ['add d', 'add d/x', 'add d/y'],
    ],
    [
      'the mode of a directory that vanishes',
      { '/d/a': file() },
      { '/d': dir({ mode: 0o700 }), '/d/a': file() },
      {},
      ['add d'],
    ],
  ])('%s', (_, base, local, next, expected) => {
    expect(planned(base, local, next)).toEqual(expected);
  });

  test('each mode of nested directories', () => {
    const modes = (modes: readonly number[]): Entries => ({
      '/a': dir({ mode: modes[0] ?? 0 }),
      '/a/b': dir({ mode: modes[1] ?? 0 }),
      '/a/b/c': dir({ mode: modes[2] ?? 0 }),
      '/a/b/c/d': dir({ mode: modes[3] ?? 0 }),
    });
    const base = modes([0o755, 0o755, 0o755, 0o755]);
    const { changes } = planEtcMerge({
      base: tree(base),
      local: tree(modes([0o700, 0o770, 0o777, 0o707])),
      next: tree(modes([0o755, 0o755, 0o755, 0o755])),
    });
    expect(changes.map((change) => [change.kind, change.path, 'node' in change && change.node.mode])).toEqual([
      ['metadata', 'a', 0o700],
      ['metadata', 'a/b', 0o770],
      ['metadata', 'a/b/c', 0o777],
      ['metadata', 'a/b/c/d', 0o707],
    ]);
  });

  test('two changed names of one file as one file', () => {
    const [before, after] = [file('1'), file('2')];
    const { changes } = planEtcMerge({
      base: tree({ '/a': before, '/b': link(before) }),
      local: tree({ '/a': after, '/b': link(after) }),
      next: tree({ '/a': file('1'), '/b': file('1') }),
    });
    expect(changes).toEqual([
      { kind: 'replace', path: 'a', node: after },
      { kind: 'replace', path: 'b', node: after },
    ]);
    expect(changes.every((change) => 'node' in change && change.node === after)).toBe(true);
  });
});

describe('what is not local follows the new image', () => {
  const stamped = { mtime: { sec: 1n, nsec: 1 } };
  test.each<[string, Entries, Entries, Entries]>([
    ['an unchanged file', { '/a': file('1') }, { '/a': file('1') }, { '/a': file('2') }],
    ['an unchanged file that is dropped', { '/a': file('1') }, { '/a': file('1') }, {}],
    ['an unchanged file that becomes a directory', { '/a': file('1') }, { '/a': file('1') }, { '/a/b': file() }],
    ['an unchanged directory that becomes a file', { '/a/b': file() }, { '/a/b': file() }, { '/a': file() }],
    ['an empty directory in the default', {}, {}, { '/d': dir() }],
    ['an empty directory that is dropped', { '/d': dir() }, { '/d': dir() }, {}],
    ['a file of which only the time changed', { '/a': file('1') }, { '/a': file('1', stamped) }, { '/a': file('2') }],
    [
      'a file that was changed to what the new image has',
      { '/a': file('1') },
      { '/a': file('2') },
      { '/a': file('2') },
    ],
    ['a file that was added as the new image has it', {}, { '/a': file('2') }, { '/a': file('2') }],
    ['a file removed on both sides', { '/a': file() }, {}, {}],
    ['a removal in a directory that vanishes', { '/d/a': file(), '/d/b': file() }, { '/d/a': file() }, {}],
    ['a fifo', {}, { '/f': fifo() }, {}],
    ['a fifo of the default', { '/f': fifo() }, {}, { '/f': fifo() }],
    ['a label that the kernel gave', { '/a': file('1') }, { '/a': file('1', label('etc_t')) }, { '/a': file('2') }],
    [
      'a label that is lost',
      { '/a': file('1', label('etc_t')) },
      { '/a': file('1') },
      { '/a': file('2', label('etc_t')) },
    ],
    [
      'a file with the mark of EVM',
      { '/a': file('1') },
      { '/a': file('1', { xattrs: { 'security.evm': 'x' } }) },
      { '/a': file('2') },
    ],
    [
      'a property of the file system',
      { '/a': file('1') },
      { '/a': file('1', { xattrs: { 'btrfs.compression': 'zstd' } }) },
      { '/a': file('2') },
    ],
    ['the stamp of systemd', { '/.updated': file('1') }, { '/.updated': file('2') }, {}],
    ['a new stamp of systemd', {}, { '/.updated': file('2') }, {}],
    [
      'two names of one file that were separate',
      { '/a': file(), '/b': file() },
      linkedPair(),
      { '/a': file('2'), '/b': file('2') },
    ],
  ])('%s', (_, base, local, next) => {
    expect(planned(base, local, next)).toEqual([]);
  });

  test('content that one image keeps inside and another in an object', () => {
    const large = 'x'.repeat(100);
    const inline = { ...file(), content: { kind: 'inline', bytes: Buffer.from(large) } } as const;
    expect(planned({ '/a': inline }, { '/a': file(large) }, {})).toEqual([]);
    expect(planned({ '/a': file(large) }, { '/a': inline }, {})).toEqual([]);
    expect(planned({ '/a': inline }, { '/a': file('y'.repeat(100)) }, { '/a': inline })).toEqual(['replace a']);
  });
});

test('the stamp of systemd goes from the new default, and is an ordinary name further down', () => {
  const stamps = { '/.updated': file(), '/d/.updated': file() };
  expect(planned({}, stamps, stamps)).toEqual(['remove .updated']);
  expect(planned({}, stamps, { '/d': dir() })).toEqual(['add d/.updated']);
});

describe('a file on one side and a directory on the other', () => {
  test.each<[string, Entries, Entries, Entries, string, string]>([
    [
      'a changed file becomes a directory',
      { '/a': file('1') },
      { '/a': file('2') },
      { '/a/b': file() },
      'a',
      'is a file changed here, but a directory in the new image',
    ],
    [
      'a file with another mode becomes a directory',
      { '/a': file() },
      { '/a': file('', { mode: 0o600 }) },
      { '/a': dir() },
      'a',
      'is a file changed here, but a directory in the new image',
    ],
    [
      'an added file meets a directory',
      {},
      { '/a': symlink('x') },
      { '/a': dir() },
      'a',
      'is a symlink added here, but a directory in the new image',
    ],
    [
      'an added directory meets a file',
      {},
      { '/a/b': file() },
      { '/a': symlink('x') },
      'a',
      'is a directory added here, but a symlink in the new image',
    ],
    [
      'a directory with a changed mode becomes a file',
      { '/d': dir() },
      { '/d': dir({ mode: 0o700 }) },
      { '/d': file() },
      'd',
      'is a directory changed here, but a file in the new image',
    ],
    [
      'a directory with a changed file becomes a file',
      { '/d/e/a': file('1') },
      { '/d/e/a': file('2') },
      { '/d': file() },
      'd',
      'is a directory with changes here, but a file in the new image',
    ],
    [
      'a directory with a removed file becomes a file',
      { '/d/a': file() },
      { '/d': dir() },
      { '/d': file() },
      'd',
      'is a directory with changes here, but a file in the new image',
    ],
    [
      'a removed file becomes a directory',
      { '/a': file() },
      {},
      { '/a': dir() },
      'a',
      'is removed here (it was a file), but a directory in the new image',
    ],
    [
      'a removed directory becomes a file',
      { '/a': dir() },
      {},
      { '/a': file() },
      'a',
      'is removed here (it was a directory), but a file in the new image',
    ],
  ])('is a conflict: %s', (_, base, local, next, path, reason) => {
    const plan = planEtcMerge({ base: tree(base), local: tree(local), next: tree(next) });
    expect(plan).toEqual({ changes: [], conflicts: [{ path, reason }], settled: [], shadowed: [] });
  });

  test('is one conflict, however much was changed below it, and does not keep the rest from being planned', () => {
    const base = { '/d/a': file('1'), '/d/b': file('1'), '/d/c/d': file('1') };
    const local = { '/d/a': file('2'), '/d/b': file('2'), '/d/c/d': file('2'), '/d/new': file(), '/e': file('mine') };
    expect(planned(base, local, { '/d': file() })).toEqual(['add e', '! d']);
  });

  test('is none where both sides agree again', () => {
    expect(planned({ '/a': file() }, { '/a/x': file('1') }, { '/a/y': file() })).toEqual(['add a/x']);
    expect(planned({ '/a': dir() }, { '/a': file('1') }, { '/a': file('2') })).toEqual(['replace a']);
  });
});

describe('a policy settles a conflict', () => {
  const base = { '/d/a': file('1'), '/d/b': file(), '/f': file('1'), '/gone': file() };
  const local = { '/d/a': file('2'), '/d/b': file(), '/f': file('2') };
  const next = { '/d': file(), '/f/x': file(), '/gone/x': file() };
  const paths = (rules: Record<string, 'keep-local' | 'take-image'>): EtcMergePolicy => ({
    paths: new Map(Object.entries(rules).map(([path, rule]) => [rawFromText(path), rule])),
  });
  test.each<[string, EtcMergePolicy, string[]]>([
    ['not when it says nothing', {}, ['! d', '! f', '! gone']],
    ['for the new image', { otherwise: 'take-image' }, []],
    [
      'for what is here, with all that is in a directory',
      { otherwise: 'keep-local' },
      ['remove d', 'add d', 'add d/a', 'add d/b', 'remove f', 'add f', 'remove gone'],
    ],
    ['by path', paths({ f: 'keep-local', gone: 'take-image' }), ['remove f', 'add f', '! d']],
    [
      'by path before the rule for all',
      { ...paths({ d: 'take-image', f: 'take-image' }), otherwise: 'keep-local' },
      ['remove gone'],
    ],
  ])('%s', (_, policy, expected) => {
    expect(planned(base, local, next, policy)).toEqual(expected);
  });

  test('for everything below a path, the longest path first', () => {
    const [b, l, n] = [
      { '/x/y/a': file('1'), '/x/y/b': file('1') },
      { '/x/y/a': file('2'), '/x/y/b': file('2') },
      { '/x/y/a': dir(), '/x/y/b': dir() },
    ];
    const policy = paths({ x: 'keep-local', 'x/y/b': 'take-image', 'x/y/': 'take-image' });
    expect(planned(b, l, n, policy)).toEqual(['remove x/y/a', 'add x/y/a']);
  });

  test('but not where the rule for a path asks', () => {
    const policy: EtcMergePolicy = { ...paths({ d: 'take-image' }), otherwise: 'keep-local' };
    const asking = { ...policy, paths: new Map([...(policy.paths ?? []), [rawFromText('f'), 'ask' as const]]) };
    expect(planned(base, local, next, asking)).toEqual(['remove gone', '! f']);
  });

  test('and the plan says how', () => {
    const policy: EtcMergePolicy = { ...paths({ d: 'take-image' }), otherwise: 'keep-local' };
    const plan = planEtcMerge({ base: tree(base), local: tree(local), next: tree(next) }, policy);
    expect(plan.settled).toEqual([
      { path: 'd', rule: 'take-image', reason: 'is a directory with changes here, but a file in the new image' },
      { path: 'f', rule: 'keep-local', reason: 'is a file changed here, but a directory in the new image' },
      { path: 'gone', rule: 'keep-local', reason: 'is removed here (it was a file), but a directory in the new image' },
    ]);
    expect(plan.shadowed).toEqual(['f', 'gone']);
  });

  test('and touches nothing that is no conflict', () => {
    expect(planned({ '/a': file('1') }, { '/a': file('2') }, { '/a': file('3') }, { otherwise: 'take-image' })).toEqual(
      ['replace a'],
    );
  });
});

describe('a local version shadows a default', () => {
  test.each<[string, Entries, Entries, Entries, string[]]>([
    ['that changed', { '/a': file('1') }, { '/a': file('mine') }, { '/a': file('2') }, ['a']],
    ['that is new', {}, { '/a': file('mine') }, { '/a': file('2') }, ['a']],
    ['that changed and is removed here', { '/a': file('1') }, {}, { '/a': file('2') }, ['a']],
    ['that changed below a directory removed here', { '/d/a': file('1') }, {}, { '/d/a': file('2') }, ['d']],
    [
      'that changed its mode, for a directory',
      { '/d': dir() },
      { '/d': dir({ mode: 0o700 }) },
      { '/d': dir({ mode: 0o711 }) },
      ['d'],
    ],
    [
      'that changed where only this side changed the type',
      { '/d/a': file('1') },
      { '/d': file() },
      { '/d/a': file('2') },
      ['d'],
    ],
    ['not one that is as it was', { '/a': file('1') }, { '/a': file('mine') }, { '/a': file('1') }, []],
    ['not one that is as it was and removed here', { '/d/a': file('1') }, {}, { '/d/a': file('1') }, []],
    ['not one that is the same now', { '/a': file('1') }, { '/a': file('2') }, { '/a': file('2') }, []],
    ['not one that is gone', { '/a': file('1') }, { '/a': file('2') }, {}, []],
  ])('%s', (_, base, local, next, expected) => {
    expect(planEtcMerge({ base: tree(base), local: tree(local), next: tree(next) }).shadowed).toEqual(expected);
  });
});

test('a tree of two thousand levels is merged without recursion', () => {
  const path = '/d'.repeat(2000);
  const [base, local]: DirectoryNode[] = [tree({ [path]: file('1') }), tree({ [path]: file('2') })];
  if (base === undefined || local === undefined) throw new Error('unreachable');
  expect(planEtcMerge({ base, local, next: tree({}) }).changes).toHaveLength(2000);
});

function linkedPair(): Entries {
  const shared = file();
  return { '/a': shared, '/b': link(shared) };
}
