/**
 * Signatures of cosign by key pairs: the payload of version 2 ("simple signing" JSON with a detached signature) and the
 * bundle of version 3 (a DSSE envelope around an in-toto statement). Only what a signature covers is read, and only
 * after it was found good. Certificates, logs and timestamps are no part of it: the keys are the policy's.
 */

import { isSignedBy, type PublicKey } from './seal/key.ts';
import { isJsonObject, parseJsonObject, type JsonObject, type JsonValue } from './oci/json.ts';

/** What a good signature says. */
export interface SignedStatement {
  readonly keyId: string;
  /** `sha256:…` of the manifest. */
  readonly manifestDigests: readonly string[];
  /** The name that was signed along; undefined for a form without names. */
  readonly reference: string | undefined;
}

export const COSIGN_PAYLOAD_TYPE = 'application/vnd.dev.cosign.simplesigning.v1+json';
export const COSIGN_SIGNATURE_ANNOTATION = 'dev.cosignproject.cosign/signature';
export const BUNDLE_TYPE = 'application/vnd.dev.sigstore.bundle.v0.3+json';
const PAYLOAD_TYPE = 'cosign container image signature';
const STATEMENT_TYPE = 'application/vnd.in-toto+json';
const SIGN_PREDICATE = 'https://sigstore.dev/cosign/sign/v1';
const MAX_BYTES = 65536;

/** Undefined unless one of the keys signed the payload. Throws 'image-invalid' for one that was signed and says nothing. */
export function readPayload(
  payload: Uint8Array,
  signature: string,
  keys: readonly PublicKey[],
): SignedStatement | undefined {
  const signer = signerOf(payload, signature, keys);
  if (signer === undefined) return undefined;
  const critical = field(parseJsonObject(payload, 'Signature payload', MAX_BYTES), 'critical');
  if (textField(critical, 'type') !== PAYLOAD_TYPE) return undefined;
  return {
    keyId: signer.id,
    manifestDigests: [textField(field(critical, 'image'), 'docker-manifest-digest') ?? ''],
    reference: textField(field(critical, 'identity'), 'docker-reference') ?? '',
  };
}

/** The same for a bundle, which names no repository. */
export function readBundle(bundle: Uint8Array, keys: readonly PublicKey[]): SignedStatement | undefined {
  const document = parseJsonObject(bundle, 'Signature bundle', MAX_BYTES);
  const envelope = field(document, 'dsseEnvelope');
  const type = textField(envelope, 'payloadType');
  const signatures = envelope.get('signatures');
  if (textField(document, 'mediaType') !== BUNDLE_TYPE || type !== STATEMENT_TYPE) return undefined;
  const payload = Buffer.from(textField(envelope, 'payload') ?? '', 'base64');
  const signed = preAuthEncoding(type, payload);
  const signer = (Array.isArray(signatures) ? (signatures as readonly JsonValue[]) : [])
    .slice(0, MAX_SIGNATURES)
    .map((each) => signerOf(signed, (isJsonObject(each) ? textField(each, 'sig') : undefined) ?? '', keys))
    .find((found) => found !== undefined);
  if (signer === undefined) return undefined;
  const statement = parseJsonObject(payload, 'Signed statement', MAX_BYTES);
  const subjects = statement.get('subject');
  if (textField(statement, 'predicateType') !== SIGN_PREDICATE || !Array.isArray(subjects)) return undefined;
  return {
    keyId: signer.id,
    manifestDigests: (subjects as readonly JsonValue[]).flatMap((subject) =>
      isJsonObject(subject) ? `sha256:${textField(field(subject, 'digest'), 'sha256') ?? ''}` : [],
    ),
    reference: undefined,
  };
}

const MAX_SIGNATURES = 16;

/** What DSSE signs: type and payload, each with its length, so that neither can be taken for the other. */
function preAuthEncoding(type: string, payload: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from(`DSSEv1 ${type.length} ${type} ${payload.length} `), payload]);
}

function signerOf(bytes: Uint8Array, signature: string, keys: readonly PublicKey[]): PublicKey | undefined {
  const decoded = Buffer.from(signature, 'base64');
  return decoded.length === 0 ? undefined : keys.find((key) => isSignedBy(bytes, decoded, key));
}

function field(object: JsonObject, name: string): JsonObject {
  const value = object.get(name);
  return isJsonObject(value) ? value : new Map();
}

function textField(object: JsonObject, name: string): string | undefined {
  const value = object.get(name);
  return typeof value === 'string' ? value : undefined;
}
