import { describe, expect, test } from 'vitest';
import { parseImageReference } from '../../src/format/oci/reference.ts';
import { parsePolicy, requirementsFor } from '../../src/format/policy.ts';

const parse = (value: unknown): ReturnType<typeof parsePolicy> =>
  parsePolicy(Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)));
const ACCEPT = { type: 'insecureAcceptAnything' };
const KEY = '/etc/hostctl/publisher.pub';

describe('a policy', () => {
  test('says by transport and scope what is asked for', () => {
    const policy = parse({
      default: [{ type: 'reject' }],
      transports: {
        docker: {
          'registry.example': [ACCEPT],
          'registry.example/os': [
            { type: 'hostctlSealed' },
            { type: 'sigstoreSigned', keyPaths: [KEY, '/etc/b'], signedIdentity: { type: 'matchRepository' } },
          ],
        },
      },
    });
    expect(policy.default).toEqual([{ type: 'reject' }]);
    expect(policy.transports.get('docker')?.get('registry.example/os')).toEqual([
      { type: 'hostctlSealed', keys: undefined, identity: { type: 'matchRepository' } },
      {
        type: 'sigstoreSigned',
        keys: [
          { kind: 'file', path: KEY },
          { kind: 'file', path: '/etc/b' },
        ],
        identity: { type: 'matchRepository' },
      },
    ]);
  });

  test('may hold the keys itself', () => {
    const data = Buffer.from('-----BEGIN').toString('base64');
    expect(parse({ default: [{ type: 'hostctlSealed', keyData: data }] }).default).toEqual([
      { type: 'hostctlSealed', keys: [{ kind: 'data', pem: '-----BEGIN' }], identity: { type: 'matchRepository' } },
    ]);
  });

  const wrong: [string, unknown, RegExp][] = [
    ['no JSON', '{', /JSON|string/],
    ['a list', '[]', /object/],
    ['no default', { transports: {} }, /"default" is no list/],
    ['an empty list of requirements', { default: [] }, /no list/],
    [
      'a requirement that hostctl does not know',
      { default: [{ type: 'signedBy', keyType: 'GPGKeys' }] },
      /unknown requirement "signedBy"/,
    ],
    ['a requirement without a type', { default: [{}] }, /unknown requirement null/],
    ['a field that is not known', { default: [ACCEPT], default2: [] }, /unknown field "default2"/],
    ['a field twice', '{"default":[{"type":"reject"}],"default":[{"type":"insecureAcceptAnything"}]}', /twice/],
    ['a field too many in a requirement', { default: [{ ...ACCEPT, keyPath: KEY }] }, /unknown field "keyPath"/],
    ['keyless signatures', { default: [{ type: 'sigstoreSigned', fulcio: {} }] }, /unknown field "fulcio"/],
    [
      'a transparency log',
      { default: [{ type: 'sigstoreSigned', keyPath: KEY, rekorPublicKeyPath: KEY }] },
      /unknown field/,
    ],
    ['signatures without keys', { default: [{ type: 'sigstoreSigned' }] }, /without keys/],
    [
      'two kinds of keys',
      { default: [{ type: 'hostctlSealed', keyPath: KEY, keyData: 'x' }] },
      /both "keyPath" and "keyData"/,
    ],
    ['an empty list of keys', { default: [{ type: 'hostctlSealed', keyPaths: [] }] }, /empty "keyPaths"/],
    ['a key outside of /etc', { default: [{ type: 'hostctlSealed', keyPath: '/var/key' }] }, /below \/etc/],
    ['a key by a way out of /etc', { default: [{ type: 'hostctlSealed', keyPath: '/etc/../var/key' }] }, /below \/etc/],
    ['a transport that does not exist', { default: [ACCEPT], transports: { dokcer: {} } }, /no transport "dokcer"/],
    [
      'an identity that is not known',
      { default: [{ type: 'sigstoreSigned', keyPath: KEY, signedIdentity: { type: 'remapIdentity' } }] },
      /unknown identity/,
    ],
    [
      'a tag for a seal',
      { default: [{ type: 'hostctlSealed', signedIdentity: { type: 'matchExact' } }] },
      /names a repository only/,
    ],
    [
      'an identity without its name',
      { default: [{ type: 'hostctlSealed', signedIdentity: { type: 'exactRepository' } }] },
      /without "dockerRepository"/,
    ],
  ];
  test.each(wrong)('with %s is refused as a whole', (_, value, message) => {
    expect(() => parse(value)).toThrow(
      expect.objectContaining({ code: 'config-invalid', message: expect.stringMatching(message) as string }),
    );
  });
});

describe('the scope of a reference is', () => {
  const found = (reference: string, transport: string, scopes: readonly string[]): string | undefined => {
    const policy = parse({
      default: [ACCEPT],
      transports: {
        [transport]: Object.fromEntries(
          scopes.map((scope) => [scope, [{ type: 'hostctlSealed', keyPath: `/etc/${scopes.indexOf(scope)}` }]]),
        ),
      },
    });
    const [first] = requirementsFor(policy, parseImageReference(reference));
    const key = first?.type === 'hostctlSealed' ? first.keys?.[0] : undefined;
    return key?.kind === 'file' ? scopes[Number(key.path.slice('/etc/'.length))] : undefined;
  };
  test.each<[string, string, readonly string[], string | undefined]>([
    [
      'docker://r.example/os/base:1',
      'docker',
      ['', 'r.example', 'r.example/os', 'r.example/os/base', 'r.example/os/base:1'],
      'r.example/os/base:1',
    ],
    [
      'docker://r.example/os/base',
      'docker',
      ['r.example/os/base:latest', 'r.example/os/base'],
      'r.example/os/base:latest',
    ],
    ['docker://r.example/os/base:1', 'docker', ['', 'r.example/os', 'r.example/o'], 'r.example/os'],
    ['docker://r.example:5000/os:1', 'docker', ['r.example', 'r.example:5000'], 'r.example:5000'],
    ['docker://a.b.example/os:1', 'docker', ['*.example', '*.b.example', 'b.example'], '*.b.example'],
    ['docker://a.b.example/os:1', 'docker', ['*.a.b.example', '*.example'], '*.example'],
    ['docker://r.example/os:1', 'docker', ['other.example'], undefined],
    ['docker://r.example/os:1', 'oci', [''], undefined],
    [
      'oci:/srv/os/images:v1',
      'oci',
      ['', '/srv', '/srv/os', '/srv/os/images', '/srv/os/images:v1'],
      '/srv/os/images:v1',
    ],
    ['oci:/srv/os/images', 'oci', ['', '/srv', '/srv/o'], '/srv'],
    ['oci:/srv/os', 'oci', ['', '/var'], ''],
  ])('%s among %s %j: %s', (reference, transport, scopes, expected) => {
    expect(found(reference, transport, scopes)).toBe(expected);
  });
});
