import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { changeKargs, checkUserKarg, type KargChanges } from '../../src/deploy/change-kargs.ts';
import { buildCmdline, chosenKargs, mergeKargs, planCmdline, type KargSources } from '../../src/deploy/kargs.ts';
import { formatOrigin, parseOrigin, type Origin } from '../../src/deploy/origin.ts';
import { parseVerityDigest } from '../../src/format/fsverity/digest.ts';

const digest = parseVerityDigest('ab'.repeat(32), 'sha256');
const parameters = { formatVersion: 1, algorithm: 'sha256', logBlockSize: 12 } as const;
const pinned = { digest, parameters, verityRequired: true };
const pin = `composefs.digest=v1-sha256-12:${digest}`;

const sources = (parts: Partial<KargSources> = {}): KargSources => ({
  image: [],
  host: [],
  user: [],
  removed: [],
  ...parts,
});
const from = (file: string | undefined, ...kargs: string[]) => ({ file, kargs });
const changes = (parts: Partial<KargChanges>): KargChanges => ({ append: [], delete: [], replace: [], ...parts });

/** What of a command line is not hostctl's. */
function inEffect(kargs: KargSources): string[] {
  const cmdline = planCmdline({ pinned, stateName: digest, counted: true, kargs });
  return cmdline.filter(({ origin }) => origin !== 'hostctl').map(({ arg }) => arg);
}

describe('a command line', () => {
  const kargs = sources({
    image: [from('10-a.toml', 'console=ttyS0', 'quiet'), from('20-b.toml', 'x=1')],
    host: [from('50-here.toml', 'y=2', 'quiet')],
    user: ['rw', 'debug', 'x=1', 'root=UUID=1'],
    removed: ['y=2'],
  });

  test('says of every argument where it comes from, and repeats none', () => {
    expect(planCmdline({ pinned, stateName: `${digest}.7`, counted: true, kargs })).toEqual([
      { arg: 'rw', origin: 'root' },
      { arg: 'root=UUID=1', origin: 'root' },
      { arg: pin, origin: 'hostctl' },
      { arg: `hostctl.state=${digest}.7`, origin: 'hostctl' },
      { arg: 'panic=30', origin: 'hostctl' },
      { arg: 'rd.shell=0', origin: 'hostctl' },
      { arg: 'rd.emergency=reboot', origin: 'hostctl' },
      { arg: 'console=ttyS0', origin: 'image', file: '10-a.toml' },
      { arg: 'quiet', origin: 'image', file: '10-a.toml' },
      { arg: 'x=1', origin: 'image', file: '20-b.toml' },
      { arg: 'debug', origin: 'user' },
    ]);
  });

  test("without what is hostctl's is what was chosen, and has nothing that the user took away", () => {
    const chosen = chosenKargs(kargs).map(({ arg }) => arg);
    expect(new Set(chosen)).toEqual(new Set(inEffect(kargs)));
    expect(chosen).not.toContain('y=2');
  });

  test('of a good deployment has nothing that counts boots, and one of its first state no name of it', () => {
    expect(buildCmdline({ pinned, stateName: digest, counted: false, kargs }, 'x86_64')).toBe(
      `rw root=UUID=1 ${pin} panic=30 console=ttyS0 quiet x=1 debug`,
    );
  });

  test('longer than the kernel takes is refused', () => {
    const long = sources({ user: [`x=${'y'.repeat(2000)}`] });
    expect(() => buildCmdline({ pinned, stateName: digest, counted: false, kargs: long }, 'x86_64')).toThrow(
      expect.objectContaining({ code: 'format-invalid' }),
    );
  });
});

describe('merging on upgrade', () => {
  test('new arguments of image and host come, old ones go, the rest stays', () => {
    const before = sources({
      image: [from('a.toml', 'old', 'kept')],
      host: [from('h.toml', 'here=1')],
      user: ['mine'],
    });
    const after = mergeKargs(before, {
      image: [from('a.toml', 'kept', 'new')],
      host: [from('h.toml', 'here=2')],
      added: ['mine', 'more'],
    });
    expect(inEffect(after)).toEqual(['kept', 'new', 'here=2', 'mine', 'more']);
  });

  test('what was taken away stays away as long as it is offered, and comes back when it is named', () => {
    const before = sources({ image: [from('a.toml', 'x', 'y')], removed: ['x', 'y'] });
    const same = mergeKargs(before, { image: before.image, host: [], added: [] });
    expect(inEffect(same)).toEqual([]);
    expect(inEffect(mergeKargs(before, { image: before.image, host: [], added: ['x'] }))).toEqual(['x']);
    const without = mergeKargs(before, { image: [from('a.toml', 'y')], host: [], added: [] });
    expect(without.removed).toEqual(['y']);
    expect(inEffect(mergeKargs(without, { image: before.image, host: [], added: [] }))).toEqual(['x']);
  });
});

describe('changing arguments', () => {
  const start = sources({
    image: [from('a.toml', 'console=tty0', 'console=ttyS0', 'quiet')],
    host: [from('h.toml', 'here=1')],
    user: ['root=UUID=1', 'debug', 'level=3'],
  });

  test.each<[string, Partial<KargChanges>, string[]]>([
    ['adds one', { append: ['new="a b"'] }, ['+new="a b"']],
    ['adds none that is there', { append: ['quiet', 'here=1', 'debug'] }, []],
    ['deletes one of the user', { delete: ['debug'] }, ['-debug']],
    ['deletes one of the image', { delete: ['quiet'] }, ['-quiet']],
    ['deletes one of the host by its key', { delete: ['here'] }, ['-here=1']],
    ['deletes one of two with the same key', { delete: ['console=tty0'] }, ['-console=tty0']],
    ['replaces one of the user', { replace: ['level=7'] }, ['-level=3', '+level=7']],
    ['replaces one of the host', { replace: ['here=2'] }, ['-here=1', '+here=2']],
    ['replaces the root', { replace: ['root=UUID=2'] }, ['-root=UUID=1', '+root=UUID=2']],
    ['replaces nothing by the same', { replace: ['level=3'] }, []],
    ['takes - and _ for the same in a key', { append: ['a-b=1'], replace: [] }, ['+a-b=1']],
    ['deletes before it adds', { delete: ['quiet'], append: ['quiet'] }, []],
    ['lets a default of ours be given another value', { append: ['panic=0'] }, ['+panic=0']],
  ])('%s', (_, parts, expected) => {
    const [before, after] = [inEffect(start), inEffect(changeKargs(start, changes(parts)))];
    const gone = before.filter((arg) => !after.includes(arg)).map((arg) => `-${arg}`);
    expect([...gone, ...after.filter((arg) => !before.includes(arg)).map((arg) => `+${arg}`)]).toEqual(expected);
    expect(new Set(after).size).toBe(after.length);
  });

  test('replaces in place', () => {
    expect(changeKargs(start, changes({ replace: ['debug=1'] })).user).toEqual(['root=UUID=1', 'debug=1', 'level=3']);
  });

  test.each<[string, Partial<KargChanges>, string]>([
    ['what is not there', { delete: ['nothing'] }, 'There is no kernel argument "nothing"'],
    ['a value that is not there', { delete: ['level=4'] }, 'There is no kernel argument "level=4"'],
    ['to replace what is not there', { replace: ['no=1'] }, 'There is no kernel argument "no"'],
    ['a key that two have', { delete: ['console'] }, '"console" fits 2 kernel arguments: console=tty0, console=ttyS0'],
    [
      'to replace one of two',
      { replace: ['console=x'] },
      '"console" fits 2 kernel arguments: console=tty0, console=ttyS0',
    ],
    ['to replace without a value', { replace: ['quiet'] }, '--replace takes KEY=VALUE, not "quiet"'],
    [
      'to delete the root',
      { delete: ['root'] },
      'The kernel argument "root=UUID=1" finds the root and cannot be deleted',
    ],
    ['to delete the pin', { delete: [pin] }, `The kernel argument "${pin}" is set by hostctl and cannot be deleted`],
    [
      'to delete a default',
      { delete: ['panic=30'] },
      'The kernel argument "panic=30" is set by hostctl and cannot be deleted',
    ],
    [
      'to add a pin',
      { append: ['composefs=00'] },
      'The kernel argument "composefs=00" is set by hostctl and cannot be given',
    ],
    [
      'to add a pin with the other dash',
      { append: ['hostctl.state=..'] },
      'The kernel argument "hostctl.state=.." is set by hostctl and cannot be given',
    ],
    [
      'what is two arguments',
      { append: ['a b'] },
      'Cannot use kernel argument "a b": it has blanks outside double quotes',
    ],
  ])('refuses %s', (_, parts, message) => {
    expect(() => changeKargs(start, changes(parts))).toThrow(expect.objectContaining({ code: 'usage', message }));
  });

  test('refuses an argument of nobody', () => {
    expect(() => checkUserKarg('')).toThrow(expect.objectContaining({ code: 'usage' }));
  });
});

describe('any changes', () => {
  const word = fc.constantFrom<string[]>('a', 'b', 'c=1', 'c=2', 'd="x y"', 'rw');
  const files = fc.array(
    fc.record({ file: fc.constantFrom('1.toml', 'ü :%.toml'), kargs: fc.array(word, { minLength: 1, maxLength: 3 }) }),
    { maxLength: 2 },
  );
  const step = fc.oneof(
    fc.record({ kind: fc.constant('append' as const), arg: word }),
    fc.record({ kind: fc.constant('delete' as const), arg: word }),
    fc.record({ kind: fc.constant('upgrade' as const), image: files, host: files }),
  );

  test('give what a plain list of arguments gives', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
        let kargs = sources();
        // The rule as it is written: a set to which the new ones are added and from which the old ones are taken.
        const model = new Set<string>();
        const mine = new Set<string>();
        let offered = new Set<string>();
        for (const each of steps) {
          if (each.kind === 'upgrade') {
            const next = new Set([...each.image, ...each.host].flatMap((file) => file.kargs));
            for (const arg of offered) if (!next.has(arg) && !mine.has(arg)) model.delete(arg);
            for (const arg of next) if (!offered.has(arg)) model.add(arg);
            offered = next;
            kargs = mergeKargs(kargs, { image: each.image, host: each.host, added: [] });
          } else if (each.kind === 'append') {
            if (!model.has(each.arg) && (!offered.has(each.arg) || each.arg === 'rw')) mine.add(each.arg);
            model.add(each.arg);
            kargs = changeKargs(kargs, changes({ append: [each.arg] }));
          } else if (model.has(each.arg)) {
            model.delete(each.arg);
            mine.delete(each.arg);
            kargs = changeKargs(kargs, changes({ delete: [each.arg] }));
          }
          expect(inEffect(kargs).sort()).toEqual([...model].sort());
          expect(parseOrigin(formatOrigin(originWith(kargs))).kargs).toEqual(kargs);
        }
      }),
      { numRuns: 1000 },
    );
  });
});

function originWith(kargs: KargSources): Origin {
  return {
    id: 3,
    digest,
    parameters,
    verityRequired: true,
    reference: 'oci:/x',
    manifestDigest: `sha256:${'0'.repeat(64)}`,
    kernel: 'f'.repeat(64),
    title: 'Example',
    version: undefined,
    created: undefined,
    kargs,
    bound: [{ reference: 'oci:/a path', digest }],
    securityVersion: 0,
    seal: undefined,
    signedBy: [],
  };
}

test('an origin without file names, or with counts that do not fit, still gives the arguments', () => {
  const text = formatOrigin(originWith(sources({ image: [from('a.toml', 'x', 'y')], user: ['z'] })));
  const expected = sources({ image: [from(undefined, 'x', 'y')], user: ['z'] });
  expect(text).toContain('kargs-image-files = a.toml:2\n');
  for (const files of [
    '',
    'kargs-image-files = a.toml:1\n',
    'kargs-image-files = a.toml:3\n',
    'kargs-image-files = :2\n',
  ]) {
    const other = text.replace('kargs-image-files = a.toml:2\n', files);
    if (files.includes(':2')) expect(parseOrigin(other).kargs.image[0]?.kargs).toEqual(['x', 'y']);
    else expect(parseOrigin(other).kargs).toEqual(expected);
  }
});
