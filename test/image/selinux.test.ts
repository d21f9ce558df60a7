/** Labels from the policy in the image. */

import { describe, expect, test } from 'vitest';
import { HostctlError } from '../../src/errors.ts';
import { relabel } from '../../src/image/selinux.ts';
import type { DirectoryNode, FileNode, TreeEntry } from '../../src/tree/node.ts';
import { inodeOf } from '../../src/tree/node.ts';
import { charDevice, dir, fifo, file, link, symlink, tree } from '../helpers/tree-builder.ts';
import { listing, walk } from '../helpers/tree-listing.ts';

const files = '/etc/selinux/targeted/contexts/files';

/** A policy file as reading layers leaves it: an object with its content at hand. */
function policyFile(text: string): FileNode {
  const node = file(text);
  if (node.content.kind === 'external') node.content = { ...node.content, bytes: Buffer.from(text, 'latin1') };
  return node;
}

function image(contexts: string, entries: Record<string, TreeEntry>): DirectoryNode {
  return tree({
    '/etc/selinux/config': file('# c\nSELINUX=enforcing\n selinuxType = targeted \nSELINUXTYPE=mls\n'),
    [`${files}/file_contexts`]: policyFile(contexts),
    ...entries,
  });
}

/** Path to label, of everything but /etc. */
function labels(root: DirectoryNode): Record<string, string> {
  const found: Record<string, string> = {};
  const note = (path: string, node: { xattrs: ReadonlyMap<string, Uint8Array> }): void => {
    const label = node.xattrs.get('security.selinux');
    if (label !== undefined) found[path] = Buffer.from(label).toString('latin1');
  };
  note('/', root);
  for (const { path, entry } of walk(root)) if (!path.startsWith('etc')) note(`/${path}`, inodeOf(entry));
  return found;
}

function labelled(contexts: string, entries: Record<string, TreeEntry>): Record<string, string> {
  const root = image(contexts, entries);
  relabel(root);
  return labels(root);
}

const stale = { xattrs: { 'security.selinux': 'stale' } };

describe('labelling', () => {
  test('without a policy removes every label', () => {
    for (const config of [
      {},
      { '/etc/selinux/config': file('#SELINUXTYPE=targeted\nSELINUX=disabled\n') },
      { '/etc/selinux': dir() },
    ]) {
      const root = tree({ '/': dir(stale), '/a': file('x', stale), '/d': dir(stale), ...config });
      relabel(root);
      expect(labels(root)).toEqual({});
    }
  });

  test.each<readonly [string, string, Record<string, TreeEntry>, Record<string, string>]>([
    ['the last matching rule wins, however special', '/.* a\n/usr/bin/x b\n/usr/.* c', { '/usr/bin/x': file(), '/o': file() }, { '/': 'a', '/o': 'a', '/usr': 'a', '/usr/bin': 'c', '/usr/bin/x': 'c' }],
    ['type letters count', '/.* -- file\n/.* -d dir\n/.* -l link\n/.* -c char\n/.* -p pipe', { '/d/f': file(), '/d/l': symlink('x'), '/d/c': charDevice(259), '/d/p': fifo() }, { '/': 'dir', '/d': 'dir', '/d/f': 'file', '/d/l': 'link', '/d/c': 'char', '/d/p': 'pipe' }],
    ['<<none>> takes the label away', '/.* a\n/x <<none>>', { '/x': file('', stale), '/y': file() }, { '/': 'a', '/y': 'a' }],
    ['the root is "/"', '/ root\n/.+ rest', { '/x': file() }, { '/': 'root', '/x': 'rest' }],
    ['a rule matches the whole path', '/usr/li a\nusr b\n/us.$ c', { '/usr/lib': dir() }, { '/usr': 'c' }],
    ['optional ends and groups', '/usr(/.*)? a\n/var/(log|spool)/[^/]*\\.log b\n/o? c', { '/usr/x': file(), '/var/log/a.log': file(), '/var/log/alog': file(), '/var/spool/x/y.log': file(), '/o': file() }, { '/': 'c', '/o': 'c', '/usr': 'a', '/usr/x': 'a', '/var/log/a.log': 'b' }],
    ['comments and blank lines are skipped', '\n# /.* c\n   \n/x\t  --\t a  \n', { '/x': file() }, { '/x': 'a' }],
    ['look-around works', '/(?!b).* a', { '/a': file(), '/b': file() }, { '/': 'a', '/a': 'a' }],
    ['sets begin with what looks like their end', '/[]x]y a\n/[^]x]z b\n/[[:digit:].] c\n/\\s d', { '/]y': file(), '/az': file(), '/]z': file(), '/5': file(), '/.': file(), 'raw:\xa0': file(), '/ ': file() }, { '/]y': 'a', '/az': 'b', '/5': 'c', '/.': 'c', '/ ': 'd' }],
    ['a dot is any byte but a line break', '/a.b x', { '/a\rb': file(), '/a\nb': file(), 'raw:a\xffb': file() }, { '/a\\x0db': 'x', '/a\\xffb': 'x' }],
    ['alternatives at the top reach everywhere', '/a|/b x', { '/a': file(), '/b': file(), '/ab': file() }, { '/a': 'x', '/b': 'x' }],
  ])('%s', (_title, contexts, entries, expected) => {
    expect(labelled(contexts, entries)).toEqual(expected);
  }); // prettier-ignore

  test('local and home rules come after the main ones', () => {
    const entries = { [`${files}/file_contexts.local`]: policyFile('/b local\n/c local'), [`${files}/file_contexts.homedirs`]: policyFile('/c homes'), '/a': file(), '/b': file(), '/c': file() }; // prettier-ignore
    expect(labelled('/. main', entries)).toEqual({ '/a': 'main', '/b': 'local', '/c': 'homes' });
  });

  test('substitutions send a subtree elsewhere, the distribution’s last', () => {
    const entries = {
      [`${files}/file_contexts.subs`]: policyFile('/opt/x /wrong\n# c\n/srv /usr/'),
      [`${files}/file_contexts.subs_dist`]: policyFile('/opt/x /usr/lib\n/usr/lib/deep /usr/share\n'),
      '/opt/x/deep/f': file(),
      '/opt/y': file(),
      '/srv/share': dir(),
    };
    const contexts = '/usr a\n/usr/lib b\n/usr/share(/.*)? c\n/opt(/.*)? d\n/srv.* e';
    expect(labelled(contexts, entries)).toEqual({ '/opt': 'd', '/opt/x': 'b', '/opt/x/deep': 'c', '/opt/x/deep/f': 'c', '/opt/y': 'd', '/srv': 'a', '/srv/share': 'c' }); // prettier-ignore
  });

  test('a link whose label would differ becomes a file of its own', () => {
    const shared = file('x');
    const root = image('/a a\n/b b\n/c a\n/d b', {
      '/a': shared,
      '/b': link(shared),
      '/c': link(shared),
      '/d': link(shared),
    });
    relabel(root);
    const shown = listing(root);
    expect([['a', 'b', 'c', 'd'].map((name) => shown[name]), labels(root)]).toEqual([
      ['f644 x x2', 'f644 x', '= a', 'f644 x'],
      { '/a': 'a', '/b': 'b', '/c': 'a', '/d': 'b' },
    ]);
  });

  test('six thousand rules and sixty thousand paths take seconds', () => {
    const contexts = Array.from(
      { length: 6000 },
      (_, i) => `/usr/share/app${i % 600}/[^/]*${i}(/.*)? -- label${i}`,
    ).join('\n');
    const entries = Object.fromEntries(
      Array.from({ length: 60_000 }, (_, i) => [`/usr/share/app${i % 600}/f${i}`, file()]),
    );
    const start = process.cpuUsage();
    const found = labelled(`/.* base\n${contexts}`, entries);
    expect(found['/usr/share/app1/f1']).toBe('label1');
    expect(process.cpuUsage(start).user).toBeLessThan(20e6);
  });
});

describe('a policy that cannot be read is refused', () => {
  test.each<readonly [string, string, Record<string, TreeEntry>, string]>([
    ['a rule without label', '/a', {}, `image-invalid: "${files}/file_contexts": line 1: rule has 1 fields instead of 2 or 3`],
    ['a rule with a field too many', '/a -- b c', {}, `image-invalid: "${files}/file_contexts": line 1: rule has 4 fields instead of 2 or 3`],
    ['an unknown type', '\n/a -x b', {}, `image-invalid: "${files}/file_contexts": line 2: rule has the unknown file type "-x"`],
    ['a broken pattern', '/a( b', {}, `image-unsupported: "${files}/file_contexts": line 1: pattern "/a(" is not understood`],
    ['a possessive quantifier', '/a++ b', {}, `image-unsupported: "${files}/file_contexts": line 1: pattern "/a++" is not understood`],
    ['an escape of PCRE', '/\\Qa\\E b', {}, `image-unsupported: "${files}/file_contexts": line 1: pattern "/\\\\Qa\\\\E" has the escape "\\Q", which is not understood`],
    ['an option of PCRE', '/(?i)a b', {}, `image-unsupported: "${files}/file_contexts": line 1: pattern "/(?i)a" has a group of a kind that is not understood`],
    ['a set without end', '/[]a b', {}, `image-unsupported: "${files}/file_contexts": line 1: pattern "/[]a" has a set without end`],
    ['a substitution of one word', '/a b', { [`${files}/file_contexts.subs`]: file('/a') }, `image-invalid: "${files}/file_contexts.subs": line 1 has 1 fields instead of 2`],
    ['no contexts', '', { [files]: dir() }, `image-invalid: Image has no file "${files}/file_contexts"`],
    ['contexts that are a symlink', '', { [`${files}/file_contexts`]: symlink('x') }, `image-unsupported: "${files}/file_contexts" is a symlink instead of a file`],
    ['contexts whose content is not at hand', '', { [`${files}/file_contexts`]: file('#'.repeat(100)) }, `image-unsupported: Cannot label by "${files}/file_contexts": it is over 8388608 bytes or has another name`],
    ['a policy name that is a path', '', { '/etc/selinux/config': file('SELINUXTYPE=../../x') }, 'image-invalid: "/etc/selinux/config" names the policy "../../x", which is no name'],
  ])('%s', (_title, contexts, entries, expected) => {
    let message = 'accepted';
    try {
      relabel(image(contexts, entries));
    } catch (error) {
      message = error instanceof HostctlError ? `${error.code}: ${error.message}` : String(error);
    }
    expect(message).toBe(expected);
  }); // prettier-ignore
});

test('a pattern made to be matched without end is given up', () => {
  const root = image('/(a+)+b label', { [`/${'a'.repeat(60)}`]: file() });
  expect(() => relabel(root, 200)).toThrow("Labelling by the image's SELinux policy takes over 0.2 s");
});
