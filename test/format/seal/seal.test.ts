import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseOciDigest } from '../../../src/format/oci/digest.ts';
import { isSignedBy, parsePrivateKey, parsePublicKey } from '../../../src/format/seal/key.ts';
import { formatRevoked, isRevoked, parseRevoked } from '../../../src/format/seal/revoked.ts';
import { formatSeal, parseSeal, parseSealedDigest, type Seal } from '../../../src/format/seal/seal.ts';
import { formatSignatures, parseSignatures, signersOf } from '../../../src/format/seal/signatures.ts';
import { scratchDir } from '../../helpers/scratch-dir.ts';
import { flipped, signatures, testKey, writeKey } from '../../helpers/seal-keys.ts';

const HEX = '0123456789abcdef'.repeat(8);
const MANIFEST = parseOciDigest(`sha256:${'ab'.repeat(32)}`, 'Digest');
const seal: Seal = {
  digests: [parseSealedDigest(`v1-sha512-12:${HEX}`), parseSealedDigest(`v1-sha256-12:${HEX.slice(64)}`)],
  xattrs: 'allowlist-only',
  manifest: MANIFEST,
  name: 'registry.example/os/base',
  securityVersion: 42,
  expires: '2027-03-01T00:00:00Z',
};
const text = Buffer.from(formatSeal(seal)).toString();

describe('a seal', () => {
  test('is lines that a shell can read, in one order', () => {
    expect(text).toBe(`hostctl-seal 1
digest v1-sha512-12:${HEX}
digest v1-sha256-12:${HEX.slice(64)}
xattrs allowlist-only
manifest ${MANIFEST}
name registry.example/os/base
security-version 42
expires 2027-03-01T00:00:00Z
`);
  });

  test('comes back as itself, with and without what is optional', () => {
    expect(parseSeal(Buffer.from(text))).toEqual(seal);
    const least = { ...seal, name: undefined, expires: undefined, securityVersion: 0 };
    expect(parseSeal(formatSeal(least))).toEqual(least);
  });

  test('may have digests by parameters of a later version, beside one that is known', () => {
    const later = text.replace('v1-sha512-12', 'v9-sha512-12');
    expect(parseSeal(Buffer.from(later)).digests).toEqual(seal.digests.slice(1));
  });

  const wrong: [string, (good: string) => string][] = [
    ['of another version', (good) => good.replace('seal 1', 'seal 2')],
    ['of another kind', (good) => good.replace('hostctl-seal', 'hostctl-revoked')],
    ['with a key that is not known', (good) => `${good}must-not-boot yes\n`],
    ['with a key twice', (good) => `${good}security-version 43\n`],
    ['without its last line end', (good) => good.slice(0, -1)],
    ['cut in the middle of a digest', (good) => good.slice(0, 60)],
    ['without a digest', (good) => good.replaceAll(/digest .*\n/g, '')],
    ['without a manifest', (good) => good.replace(/manifest .*\n/, '')],
    ['without xattrs', (good) => good.replace(/xattrs .*\n/, '')],
    ['with a digest in capitals', (good) => good.replace(HEX, HEX.toUpperCase())],
    ['with a digest of the other length', (good) => good.replace('v1-sha256', 'v1-sha512')],
    ['with a digest that may do without fs-verity', (good) => good.replace('digest v1', 'digest ?v1')],
    ['with a version below 0', (good) => good.replace('42', '-1')],
    ['with a version that is no integer', (good) => good.replace('42', '4e1')],
    ['with a time in another form', (good) => good.replace('T00:00:00Z', '')],
    ['with a day that does not exist', (good) => good.replace('03-01', '13-41')],
    ['with a carriage return', (good) => good.replaceAll('\n', '\r\n')],
    ['with a byte that is no ASCII', (good) => good.replace('base', 'b\u00e4se')],
    ['with two blanks', (good) => good.replace('name ', 'name  ')],
    ['with an empty line', (good) => good.replace('xattrs', '\nxattrs')],
  ];
  test.each(wrong)('%s is refused', (_, damage) => {
    expect(damage(text)).not.toBe(text);
    expect(() => parseSeal(Buffer.from(damage(text)))).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/format-invalid|image-invalid/) as string }),
    );
  });

  test('of more than 64 KiB is refused before anything of it is read', () => {
    expect(() => parseSeal(Buffer.concat([Buffer.from(text), Buffer.alloc(65536, 'name x\n')]))).toThrow('65536');
  });
});

describe.each(['ed25519', 'p256'] as const)('a signature by %s', (kind) => {
  const key = testKey(kind);
  const other = testKey(kind);
  const bytes = Buffer.from(text);
  const parsed = parsePublicKey(key.publicPem);

  test('is that of exactly these bytes and this key', () => {
    const signed = parseSignatures(signatures(bytes, key));
    expect(signersOf(bytes, signed, [parsed, parsePublicKey(other.publicPem)])).toEqual([parsed]);
    fc.assert(
      fc.property(fc.nat(bytes.length * 8 - 1), (bit) => {
        const changed = Uint8Array.from(bytes);
        changed[bit >> 3]! ^= 1 << (bit & 7);
        expect(signersOf(changed, signed, [parsed])).toEqual([]);
      }),
      { numRuns: 60 },
    );
    const [one] = signed;
    for (const at of [0, 20, one!.bytes.length - 1]) {
      expect(isSignedBy(bytes, flipped(one!.bytes, at), parsed)).toBe(false);
    }
  });

  test('by a key under another id, or another key under its id, is none', () => {
    const [one] = parseSignatures(signatures(bytes, key));
    expect(signersOf(bytes, [{ ...one!, keyId: other.id }], [parsed])).toEqual([]);
    const [foreign] = parseSignatures(signatures(bytes, other));
    expect(signersOf(bytes, [{ ...foreign!, keyId: key.id }], [parsed])).toEqual([]);
  });

  test('is checked by openssl, and one of openssl is as good', () => {
    const directory = scratchDir();
    writeKey(directory, 'k', key);
    const at = (name: string): string => `${directory}/${name}`;
    writeFileSync(at('seal'), bytes);
    writeFileSync(at('ours'), parseSignatures(signatures(bytes, key))[0]!.bytes);
    const verify = ['pkeyutl', '-verify', '-pubin', '-inkey', at('k.pub'), '-rawin', '-in', at('seal')];
    expect(spawnSync('openssl', [...verify, '-sigfile', at('ours')]).status).toBe(0);
    execFileSync('openssl', [
      'pkeyutl',
      '-sign',
      '-inkey',
      at('k.key'),
      '-rawin',
      '-in',
      at('seal'),
      '-out',
      at('theirs'),
    ]);
    expect(isSignedBy(bytes, readFileSync(at('theirs')), parsed)).toBe(true);
    writeFileSync(at('seal'), flipped(bytes, 3));
    expect(spawnSync('openssl', [...verify, '-sigfile', at('ours')]).status).toBe(1);
  });
});

describe('a key', () => {
  test('has the hash of its public half as openssl prints it for an id', () => {
    const key = testKey();
    const der = execFileSync('openssl', ['pkey', '-pubin', '-outform', 'DER'], { input: key.publicPem });
    const [digest] = execFileSync('sha256sum', { input: der, encoding: 'utf8' }).split(' ');
    expect(key.id).toBe(digest);
    expect(parsePrivateKey(key.privatePem).publicKey.id).toBe(digest);
  });

  test.each([
    ['RSA', ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048']],
    ['another curve', ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:secp384r1']],
    ['ed448', ['-algorithm', 'ed448']],
  ])('of %s is refused', (_, args) => {
    const pem = execFileSync('openssl', ['genpkey', ...args], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const pub = execFileSync('openssl', ['pkey', '-pubout'], { input: pem, encoding: 'utf8' });
    expect(() => parsePublicKey(pub)).toThrow('not ed25519 or ECDSA P-256');
  });

  test('that is private, or no key at all, is no public key', () => {
    for (const pem of [testKey().privatePem, 'ssh-ed25519 AAAA', '', '-----BEGIN PUBLIC KEY-----\nAAAA\n']) {
      expect(() => parsePublicKey(pem)).toThrow(expect.objectContaining({ code: 'format-invalid' }));
    }
  });
});

describe('signatures', () => {
  const bytes = Buffer.from(text);
  const keys = [testKey(), testKey()];

  test('of several keys stand beside each other and come back', () => {
    const file = signatures(bytes, ...keys);
    expect(formatSignatures(parseSignatures(file))).toEqual(Buffer.from(file));
    expect(parseSignatures(file).map(({ keyId }) => keyId)).toEqual(keys.map(({ id }) => id));
  });

  const good = Buffer.from(signatures(bytes, keys[0]!)).toString();
  test.each<[string, string]>([
    ['nothing', ''],
    ['a line without its end', good.slice(0, -1)],
    ['an id that is too short', good.slice(1)],
    ['an id in capitals', good.toUpperCase()],
    ['no base64', good.replace(/.{8}\n$/, '????????\n')],
    ['base64 with something behind it', good.replace('\n', ' x\n')],
    ['seventeen lines', good.repeat(17)],
  ])('that are %s are refused', (_, file) => {
    expect(() => parseSignatures(Buffer.from(file))).toThrow(expect.objectContaining({ code: 'format-invalid' }));
  });
});

describe('a list of revoked images', () => {
  const list = { number: 7, digests: seal.digests };

  test('comes back as itself and has what it lists', () => {
    expect(parseRevoked(formatRevoked(list))).toEqual(list);
    expect(isRevoked(list, HEX)).toBe(true);
    expect(isRevoked(list, HEX.slice(64))).toBe(true);
    expect(isRevoked(list, HEX.slice(0, 127))).toBe(false);
  });

  test('is no seal, and a seal is no list', () => {
    expect(() => parseSeal(formatRevoked(list))).toThrow('first line');
    expect(() => parseRevoked(formatSeal(seal))).toThrow('first line');
  });

  test.each(['number 0', 'number x', `digest v1-sha512-12:${HEX}`, 'number 1\nname x'])(
    'that begins with "%s" is refused',
    (lines) => {
      expect(() => parseRevoked(Buffer.from(`hostctl-revoked 1\n${lines}\n`))).toThrow(
        expect.objectContaining({ code: 'format-invalid' }),
      );
    },
  );
});
