import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parseOciDigest } from '../../src/format/oci/digest.ts';
import { formatRevoked } from '../../src/format/seal/revoked.ts';
import { formatSeal, parseSealedDigest, type Seal } from '../../src/format/seal/seal.ts';
import { HookSandbox, reasonNoHook, type HookOptions, type HookRun } from '../helpers/hook-sandbox.ts';
import { flipped, signatures, testKey, type TestKey } from '../helpers/seal-keys.ts';

const reason = reasonNoHook();
if (reason !== undefined) console.error(`Skipping the root hook's tests of seals: ${reason}`);

const ours = testKey();
const curve = testKey('p256');
const foreign = testKey();
const OTHER = 'ab'.repeat(64);
const KEYS = { 'keys.d/ours.pub': ours.publicPem, 'keys.d/curve.pub': curve.publicPem };

let sandbox: HookSandbox;
beforeEach(() => {
  if (reason === undefined) sandbox = new HookSandbox();
});
afterEach(() => {
  if (reason === undefined) sandbox.remove();
});

function sealText(
  digests: readonly string[] = [`v1-sha512-12:${sandbox.digest}`],
  more: Partial<Seal> = {},
): Uint8Array {
  return formatSeal({
    digests: digests.map(parseSealedDigest),
    xattrs: 'allowlist-only',
    manifest: parseOciDigest(`sha256:${'0'.repeat(64)}`, 'Digest'),
    name: 'registry.example/os',
    securityVersion: 0,
    expires: undefined,
    ...more,
  });
}

function put(name: string, bytes: Uint8Array | undefined, signed: Uint8Array | undefined): void {
  const directory = join(sandbox.physical, 'composefs/seals');
  mkdirSync(directory, { recursive: true });
  if (bytes !== undefined) writeFileSync(join(directory, name), bytes);
  if (signed !== undefined) writeFileSync(join(directory, `${name}.sig`), signed);
}

function putSeal(bytes: Uint8Array, ...keys: readonly TestKey[]): void {
  put(sandbox.digest, bytes, signatures(bytes, ...keys));
}

function boot(options: HookOptions = {}, cmdline = `composefs.digest=v1-sha512-12:${sandbox.digest}`): HookRun {
  return sandbox.run(cmdline, { trust: KEYS, ...options });
}

describe.skipIf(reason !== undefined)('With keys in the initramfs the root hook boots', () => {
  test.each([
    ['ed25519', ours],
    ['ECDSA P-256', curve],
  ])('an image sealed by a key of %s', (_, key) => {
    putSeal(sealText(), key);
    const run = boot({ probes: ['cat /sysroot/usr/marker', 'ls /run'] });
    expect({ stderr: run.stderr, status: run.status }).toEqual({ stderr: '', status: 0 });
    expect(run.probes[0]).toBe('from the image\n');
    expect(run.probes[1]).not.toContain('hostctl');
  });

  test('an image whose seal an unknown key signed too', () => {
    putSeal(sealText(), foreign, ours);
    expect(boot().status).toBe(0);
  });

  test('an image whose seal has its digest in the second line only', () => {
    putSeal(sealText([`v1-sha256-12:${'cd'.repeat(32)}`, `v1-sha512-12:${sandbox.digest}`]), ours);
    expect(boot().status).toBe(0);
  });

  test('an image named the old way, sealed by the parameters that this means', () => {
    putSeal(sealText([`v2-sha512-12:${sandbox.digest}`]), ours);
    expect(boot({}, `composefs=${sandbox.digest}`).status).toBe(0);
  });

  test('an image that a list revokes which no key of ours signed, and says so', () => {
    const list = formatRevoked({ number: 1, digests: [parseSealedDigest(`v1-sha512-12:${sandbox.digest}`)] });
    put('revoked', list, signatures(list, foreign));
    putSeal(sealText(), ours);
    const run = boot();
    expect(run.status).toBe(0);
    expect(run.stderr).toMatch(/^hostctl: The list of revoked images composefs\/seals\/revoked is not signed .*\n$/);
  });

  test('another image than those that are revoked', () => {
    const list = formatRevoked({ number: 1, digests: [parseSealedDigest(`v1-sha512-12:${OTHER}`)] });
    put('revoked', list, signatures(list, ours));
    putSeal(sealText(), ours);
    expect(boot()).toMatchObject({ status: 0, stderr: '' });
  });
});

interface Refusal {
  readonly name: string;
  readonly before?: () => void;
  readonly cmdline?: (digest: string) => string;
  readonly trust?: Readonly<Record<string, string | Uint8Array>> | undefined;
  readonly reason: string;
  readonly message: RegExp;
}

const good = (): void => putSeal(sealText(), ours);
const pinned = (parameters: string): string => `composefs.digest=${parameters}:${sandbox.digest}`;

const refusals: Refusal[] = [
  { name: 'an image without a seal', reason: 'seal-missing', message: /has no seal/ },
  {
    name: 'a seal without its signatures',
    before: () => put(sandbox.digest, sealText(), undefined),
    reason: 'seal-missing',
    message: /has no seal/,
  },
  {
    name: 'signatures without their seal',
    before: () => put(sandbox.digest, undefined, signatures(sealText(), ours)),
    reason: 'seal-missing',
    message: /has no seal/,
  },
  {
    name: 'a seal by a key that is not here',
    before: () => putSeal(sealText(), foreign),
    reason: 'seal-invalid',
    message: /not signed by a known key/,
  },
  {
    name: 'a seal by a key that is not here under the name of one that is',
    before: () => putSeal(sealText(), { ...foreign, id: ours.id }),
    reason: 'seal-invalid',
    message: /not signed by a known key/,
  },
  {
    name: 'a seal with one bit changed',
    before: () => put(sandbox.digest, flipped(sealText(), 200), signatures(sealText(), ours)),
    reason: 'seal-invalid',
    message: /not signed by a known key/,
  },
  {
    name: 'a signature with one bit changed',
    before: () => put(sandbox.digest, sealText(), flipped(signatures(sealText(), ours), 80)),
    reason: 'seal-invalid',
    message: /not signed by a known key/,
  },
  {
    name: 'a seal that the power cut short',
    before: () => put(sandbox.digest, sealText().subarray(0, 40), signatures(sealText(), ours)),
    reason: 'seal-invalid',
    message: /not signed by a known key/,
  },
  {
    name: 'signatures that the power cut short',
    before: () => put(sandbox.digest, sealText(), new Uint8Array()),
    reason: 'seal-invalid',
    message: /not signed by a known key/,
  },
  {
    name: 'a good seal of another image',
    before: () => putSeal(sealText([`v1-sha512-12:${OTHER}`]), ours),
    reason: 'seal-invalid',
    message: /is not for v1-sha512-12:/,
  },
  {
    name: 'a seal of the same digest by another format version',
    before: good,
    cmdline: () => pinned('v2-sha512-12'),
    reason: 'seal-invalid',
    message: /is not for v2-sha512-12:/,
  },
  {
    name: 'a signed list that names the digest, in place of a seal',
    before: () => {
      const list = formatRevoked({ number: 1, digests: [parseSealedDigest(`v1-sha512-12:${sandbox.digest}`)] });
      put(sandbox.digest, list, signatures(list, ours));
    },
    reason: 'seal-invalid',
    message: /is not for v1-sha512-12:/,
  },
  {
    name: 'fs-verity that is optional',
    before: good,
    cmdline: () => pinned('?v1-sha512-12'),
    reason: 'cmdline-invalid',
    message: /cannot be optional/,
  },
  {
    name: 'fs-verity that is optional for another image only',
    before: good,
    cmdline: () => `${pinned('v1-sha512-12')} composefs=?${OTHER}`,
    reason: 'cmdline-invalid',
    message: /cannot be optional/,
  },
  {
    name: 'a command line without any digest',
    before: good,
    cmdline: () => 'root=/dev/vda2 rw quiet',
    reason: 'cmdline-invalid',
    message: /names no composefs digest/,
  },
  {
    name: 'a digest of another length',
    before: good,
    cmdline: () => `composefs.digest=v1-sha256-12:${sandbox.digest}`,
    reason: 'cmdline-invalid',
    message: /wrong form/,
  },
  {
    name: 'a folder of keys without any',
    before: good,
    trust: { 'keys.d/README': 'Keys go here' },
    reason: 'seal-invalid',
    message: /not signed by a known key/,
  },
  {
    name: 'an initramfs without keys where the command line asks for a seal',
    before: good,
    cmdline: () => `${pinned('v1-sha512-12')} hostctl.require-seal`,
    trust: undefined,
    reason: 'seal-invalid',
    message: /not signed by a known key/,
  },
  {
    name: 'the same in the other spelling',
    before: good,
    cmdline: () => `${pinned('v1-sha512-12')} hostctl.require_seal=1`,
    trust: undefined,
    reason: 'seal-invalid',
    message: /not signed by a known key/,
  },
  {
    name: 'an image that the list on the disk revokes',
    before: () => {
      const list = formatRevoked({ number: 1, digests: [parseSealedDigest(`v1-sha512-12:${sandbox.digest}`)] });
      put('revoked', list, signatures(list, ours));
      good();
    },
    reason: 'image-revoked',
    message: /is revoked/,
  },
];

describe.skipIf(reason !== undefined)('With keys in the initramfs the root hook refuses', () => {
  test.each(refusals)('$name', (refusal) => {
    refusal.before?.();
    const trust = 'trust' in refusal ? refusal.trust : KEYS;
    const run = boot({ trust }, refusal.cmdline?.(sandbox.digest));
    expect(run.status).toBe(1);
    expect(run.stderr.split('\n').filter(Boolean)).toEqual([
      expect.stringMatching(new RegExp(`^hostctl: Refusing to boot: .* \\(${refusal.reason}\\)$`)),
    ]);
    expect(run.stderr).toMatch(refusal.message);
    expect(run.mounts.filter((mount) => /overlay composefs|erofs|hostctl-root/.test(mount))).toEqual([]);
  });

  test('an image that the list in the initramfs revokes', () => {
    const list = formatRevoked({ number: 1, digests: [parseSealedDigest(`v1-sha512-12:${sandbox.digest}`)] });
    good();
    const run = boot({ trust: { ...KEYS, revoked: list, 'revoked.sig': signatures(list, ours) } });
    expect(run.stderr).toMatch(/is revoked \(image-revoked\)/);
  });

  test('a seal that is a link, whatever it leads to', () => {
    good();
    const seal = join(sandbox.physical, 'composefs/seals', sandbox.digest);
    writeFileSync(`${seal}.real`, sealText());
    rmSync(seal);
    symlinkSync(`${seal}.real`, seal);
    expect(boot().stderr).toMatch(/has no seal .*\(seal-missing\)/);
  });
});

describe.skipIf(reason !== undefined)('Without keys in the initramfs', () => {
  test('no seal is asked for, and a wrong one is nobody’s concern', () => {
    putSeal(sealText(), foreign);
    expect(boot({ trust: undefined })).toMatchObject({ status: 0, stderr: '' });
  });
});
