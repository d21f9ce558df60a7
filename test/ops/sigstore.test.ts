/** Signatures in the forms of cosign, made here by openssl as its specifications say. */

import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { parseOciDigest } from '../../src/format/oci/digest.ts';
import { parseImageReference } from '../../src/format/oci/reference.ts';
import type { SignedIdentity } from '../../src/format/policy.ts';
import { parsePublicKey } from '../../src/format/seal/key.ts';
import { BUNDLE_TYPE, COSIGN_PAYLOAD_TYPE, COSIGN_SIGNATURE_ANNOTATION } from '../../src/format/sigstore.ts';
import type { Referrer, Referrers } from '../../src/image/referrers.ts';
import { checkSigstore } from '../../src/ops/sigstore.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { testKey, writeKey, type TestKey } from '../helpers/seal-keys.ts';

const ours = testKey('p256');
const foreign = testKey('p256');
const HEX = 'ab'.repeat(32);
const MANIFEST = parseOciDigest(`sha256:${HEX}`, 'Digest');
const NAME = 'registry.example/os/base';

/** What `cosign sign --key` does: a SHA-256 ECDSA signature in DER. */
function opensslSign(bytes: Uint8Array, key: TestKey): string {
  const directory = scratchDir();
  const path = writeKey(directory, 'k', key);
  writeFileSync(`${directory}/in`, bytes);
  execFileSync('openssl', ['dgst', '-sha256', '-sign', path, '-out', `${directory}/sig`, `${directory}/in`]);
  return readFileSync(`${directory}/sig`).toString('base64');
}

const payloadFor = (digest: string, reference: string, type = 'cosign container image signature'): Buffer =>
  Buffer.from(
    JSON.stringify({
      critical: { identity: { 'docker-reference': reference }, image: { 'docker-manifest-digest': digest }, type },
      optional: null,
    }),
  );

function version2(payload: Uint8Array, signature: string): Referrer {
  const annotations = new Map([[COSIGN_SIGNATURE_ANNOTATION, signature]]);
  return { digest: MANIFEST, parts: [{ mediaType: COSIGN_PAYLOAD_TYPE, annotations, bytes: payload }] };
}

function version3(
  statement: object,
  key: TestKey,
  edit: (bundle: { dsseEnvelope: Record<string, unknown> }) => void = () => undefined,
): Referrer {
  const type = 'application/vnd.in-toto+json';
  const payload = Buffer.from(JSON.stringify(statement));
  const signed = Buffer.concat([Buffer.from(`DSSEv1 ${type.length} ${type} ${payload.length} `), payload]);
  const bundle = {
    mediaType: BUNDLE_TYPE,
    verificationMaterial: { publicKey: { hint: 'x' }, tlogEntries: [] },
    dsseEnvelope: {
      payload: payload.toString('base64'),
      payloadType: type,
      signatures: [{ sig: opensslSign(signed, key) }],
    } as Record<string, unknown>,
  };
  edit(bundle);
  return {
    digest: MANIFEST,
    parts: [{ mediaType: BUNDLE_TYPE, annotations: new Map(), bytes: Buffer.from(JSON.stringify(bundle)) }],
  };
}

const statementFor = (hex: string, predicateType = 'https://sigstore.dev/cosign/sign/v1'): object => ({
  _type: 'https://in-toto.io/Statement/v1',
  subject: [{ digest: { sha256: hex } }],
  predicateType,
  predicate: {},
});

function check(
  found: { readonly tagged?: Referrer; readonly bundles?: readonly Referrer[] },
  identity: SignedIdentity = { type: 'matchRepository' },
  reference = `docker://${NAME}:1`,
): Promise<string> {
  const asked: string[] = [];
  const referrers: Referrers = {
    ofType: (type) => Promise.resolve(type === BUNDLE_TYPE ? (found.bundles ?? []) : []),
    tagged: (tag) => {
      asked.push(tag);
      return Promise.resolve(tag === `sha256-${HEX}.sig` ? found.tagged : undefined);
    },
  };
  const source = { referrers, manifestDigest: MANIFEST, reference: parseImageReference(reference) };
  return checkSigstore(source, [parsePublicKey(ours.publicPem)], identity);
}

const good = (reference = NAME): Referrer => {
  const payload = payloadFor(MANIFEST, reference);
  return version2(payload, opensslSign(payload, ours));
};

describe('a signature of cosign 2', () => {
  test('by a key of the policy holds', async () => {
    expect(await check({ tagged: good() })).toBe(ours.id);
  });

  test.each<[string, () => Referrer, string]>([
    [
      'by another key',
      () => ((p) => version2(p, opensslSign(p, foreign)))(payloadFor(MANIFEST, NAME)),
      'no key of the policy',
    ],
    [
      'over another payload',
      () => version2(payloadFor(MANIFEST, NAME), opensslSign(payloadFor('sha256:00', NAME), ours)),
      'no key of the policy',
    ],
    ['that is no base64', () => version2(payloadFor(MANIFEST, NAME), '????'), 'no key of the policy'],
    [
      'for another image',
      () => ((p) => version2(p, opensslSign(p, ours)))(payloadFor(`sha256:${'cd'.repeat(32)}`, NAME)),
      'it is for sha256:cd',
    ],
    [
      'for something else than images',
      () => ((p) => version2(p, opensslSign(p, ours)))(payloadFor(MANIFEST, NAME, 'atomic container signature')),
      'no key of the policy',
    ],
    ['for another name', () => good('registry.example/other'), 'it names "registry.example/other"'],
  ])('%s does not', async (_, make, message) => {
    await expect(check({ tagged: make() })).rejects.toMatchObject({
      code: 'signature-invalid',
      message: expect.stringContaining(message) as string,
    });
  });

  test('that is missing is asked for', async () => {
    await expect(check({})).rejects.toMatchObject({ code: 'image-unsigned' });
  });

  test.each<[SignedIdentity, string, string, boolean]>([
    [{ type: 'matchRepository' }, NAME, `docker://${NAME}:2`, true],
    [{ type: 'matchRepository' }, `${NAME}:1`, `docker://${NAME}:2`, true],
    [{ type: 'matchRepository' }, NAME, 'oci:/srv/os', false],
    [{ type: 'matchExact' }, `${NAME}:1`, `docker://${NAME}:1`, true],
    [{ type: 'matchExact' }, NAME, `docker://${NAME}:1`, false],
    [{ type: 'matchRepoDigestOrExact' }, `${NAME}:1`, `docker://${NAME}:1`, true],
    [{ type: 'matchRepoDigestOrExact' }, NAME, `docker://${NAME}@${MANIFEST}`, true],
    [{ type: 'matchRepoDigestOrExact' }, NAME, `docker://${NAME}:1`, false],
    [{ type: 'exactReference', name: `${NAME}:1` }, `${NAME}:1`, 'oci:/srv/os', true],
    [{ type: 'exactReference', name: `${NAME}:1` }, `${NAME}:2`, 'oci:/srv/os', false],
    [{ type: 'exactRepository', name: NAME }, `${NAME}:7`, 'oci:/srv/os', true],
    [{ type: 'exactRepository', name: 'r:5000/os' }, 'r:5000/os', 'oci:/srv/os', true],
    [{ type: 'exactRepository', name: NAME }, 'registry.example/os', 'oci:/srv/os', false],
    [{ type: 'hostctlDigestOnly' }, 'anything', 'oci:/srv/os', true],
  ])('under %j names "%s" for %s: %s', async (identity, signed, reference, fits) => {
    const attempt = check({ tagged: good(signed) }, identity, reference);
    if (fits) expect(await attempt).toBe(ours.id);
    else await expect(attempt).rejects.toMatchObject({ code: 'signature-invalid' });
  });
});

describe('a bundle of cosign 3', () => {
  const digestOnly = { type: 'hostctlDigestOnly' } as const;

  test('by a key of the policy holds where no name is asked for, and only there', async () => {
    const bundles = [version3(statementFor(HEX), ours)];
    expect(await check({ bundles }, digestOnly)).toBe(ours.id);
    await expect(check({ bundles })).rejects.toMatchObject({ code: 'signature-invalid' });
  });

  test('holds beside another one that is none', async () => {
    const broken = {
      digest: MANIFEST,
      parts: [{ mediaType: BUNDLE_TYPE, annotations: new Map<string, string>(), bytes: Buffer.from('{') }],
    };
    expect(await check({ bundles: [broken, version3(statementFor(HEX), ours)] }, digestOnly)).toBe(ours.id);
  });

  test.each<[string, () => Referrer]>([
    ['by another key', () => version3(statementFor(HEX), foreign)],
    ['for another image', () => version3(statementFor('cd'.repeat(32)), ours)],
    ['that attests something else', () => version3(statementFor(HEX, 'https://slsa.dev/provenance/v1'), ours)],
    [
      'whose payload was changed',
      () =>
        version3(statementFor('cd'.repeat(32)), ours, ({ dsseEnvelope }) => {
          dsseEnvelope['payload'] = Buffer.from(JSON.stringify(statementFor(HEX))).toString('base64');
        }),
    ],
    [
      'whose payload is said to be of another type',
      () =>
        version3(statementFor(HEX), ours, ({ dsseEnvelope }) => {
          dsseEnvelope['payloadType'] = 'text/plain';
        }),
    ],
    [
      'without signatures',
      () =>
        version3(statementFor(HEX), ours, ({ dsseEnvelope }) => {
          dsseEnvelope['signatures'] = [];
        }),
    ],
  ])('%s does not hold', async (_, make) => {
    await expect(check({ bundles: [make()] }, digestOnly)).rejects.toMatchObject({ code: 'signature-invalid' });
  });
});
