/**
 * `policy.json`: which signatures an image needs, by where it comes from. A strict subset of containers-policy.json(5)
 * with one requirement type of our own, `hostctlSealed`. What is not known here makes the whole file invalid: a
 * requirement that is passed over would be no requirement.
 */

import { HostctlError } from '../errors.ts';
import { isJsonObject, parseJsonObject, type JsonObject, type JsonValue } from './oci/json.ts';
import type { ImageReference } from './oci/reference.ts';

/** Where the keys of a requirement are: files, or PEM in the policy itself. */
export type KeySource =
  { readonly kind: 'file'; readonly path: string } | { readonly kind: 'data'; readonly pem: string };

/** Which name a signature must give the image. */
export type SignedIdentity =
  | { readonly type: 'matchExact' | 'matchRepoDigestOrExact' | 'matchRepository' }
  /** Ours: the digest alone counts, for signatures and places that have no names. */
  | { readonly type: 'hostctlDigestOnly' }
  | { readonly type: 'exactReference' | 'exactRepository'; readonly name: string };

export type Requirement =
  | { readonly type: 'insecureAcceptAnything' }
  | { readonly type: 'reject' }
  | {
      readonly type: 'hostctlSealed';
      /** Undefined stands for `keys.d`. */
      readonly keys: readonly KeySource[] | undefined;
      readonly identity: SignedIdentity;
    }
  | { readonly type: 'sigstoreSigned'; readonly keys: readonly KeySource[]; readonly identity: SignedIdentity };

export interface Policy {
  readonly default: readonly Requirement[];
  /** Requirements by transport and scope. */
  readonly transports: ReadonlyMap<string, ReadonlyMap<string, readonly Requirement[]>>;
}

const MAX_BYTES = 1 << 20;
const TRANSPORTS = new Set(['docker', 'oci', 'oci-archive', 'docker-archive', 'dir', 'containers-storage']);

/** Throws 'config-invalid' naming what is wrong. */
export function parsePolicy(bytes: Uint8Array): Policy {
  let document: JsonObject;
  try {
    document = parseJsonObject(bytes, 'Policy', MAX_BYTES);
  } catch (error) {
    throw invalid(error instanceof Error ? error.message : String(error));
  }
  only(document, ['default', 'transports'], 'the policy');
  const transports = new Map<string, ReadonlyMap<string, readonly Requirement[]>>();
  for (const [transport, scopes] of objectIn(document, 'transports')) {
    // A name that is not known is a rule that would never hold.
    if (!TRANSPORTS.has(transport)) throw invalid(`there is no transport "${transport}"`);
    if (!isJsonObject(scopes)) throw invalid(`"${transport}" is no object`);
    transports.set(
      transport,
      new Map([...scopes].map(([scope, value]) => [scope, requirements(value, `"${transport}", "${scope}"`)])),
    );
  }
  return { default: requirements(document.get('default'), '"default"'), transports };
}

/** What an image from there must fulfil, all of it: the requirements of the most exact scope. */
export function requirementsFor(
  { default: otherwise, transports }: Policy,
  reference: ImageReference,
): readonly Requirement[] {
  const scopes = transports.get(reference.transport);
  for (const scope of scopesOf(reference)) {
    const found = scopes?.get(scope);
    if (found !== undefined) return found;
  }
  return otherwise;
}

/** Scopes that a reference lies in, the most exact first; the last one is the whole transport. */
function scopesOf(reference: ImageReference): string[] {
  switch (reference.transport) {
    case 'docker': {
      const { name, tag, digest } = reference;
      const version = digest === undefined ? `:${tag ?? 'latest'}` : `@${digest}`;
      const host = (name.split('/')[0] ?? '').replace(/:\d+$/, '');
      const wildcards = host.split('.').map((_, i, parts) => `*.${parts.slice(i + 1).join('.')}`);
      return [`${name}${version}`, ...parents(name, 1), ...wildcards.slice(0, -1), ''];
    }
    case 'containers-storage':
      return [reference.name, ''];
    default: {
      const tag = 'tag' in reference && reference.tag !== undefined ? [`${reference.path}:${reference.tag}`] : [];
      return [...tag, ...parents(reference.path, 2), ''];
    }
  }
}

/** A path and what it lies below, down to `least` parts. */
function parents(path: string, least: number): string[] {
  const parts = path.split('/');
  return parts.map((_, i) => parts.slice(0, parts.length - i).join('/')).slice(0, parts.length - least + 1);
}

function requirements(value: JsonValue | undefined, where: string): Requirement[] {
  if (!Array.isArray(value) || value.length === 0) throw invalid(`${where} is no list of requirements`);
  return (value as readonly JsonValue[]).map((each) => {
    if (!isJsonObject(each)) throw invalid(`${where} has a requirement that is no object`);
    return requirement(each, where);
  });
}

const KEY_FIELDS = ['keyPath', 'keyPaths', 'keyData', 'keyDatas'] as const;

function requirement(object: JsonObject, where: string): Requirement {
  const type = object.get('type');
  switch (type) {
    case 'insecureAcceptAnything':
    case 'reject':
      only(object, ['type'], where);
      return { type };
    case 'hostctlSealed':
    case 'sigstoreSigned': {
      only(object, ['type', 'signedIdentity', ...KEY_FIELDS], where);
      const keys = keySources(object, where);
      const identity = object.get('signedIdentity');
      if (type === 'hostctlSealed') {
        return {
          type,
          keys,
          identity: identity === undefined ? { type: 'matchRepository' } : sealIdentity(identity, where),
        };
      }
      if (keys === undefined) throw invalid(`${where} has a "sigstoreSigned" without keys`);
      return {
        type,
        keys,
        identity: identity === undefined ? { type: 'matchRepoDigestOrExact' } : signedIdentity(identity, where),
      };
    }
    default:
      throw invalid(`${where} has the unknown requirement ${JSON.stringify(type ?? null)}`);
  }
}

function keySources(object: JsonObject, where: string): readonly KeySource[] | undefined {
  const given = KEY_FIELDS.filter((field) => object.has(field));
  if (given.length > 1) throw invalid(`${where} has both "${given[0]}" and "${given[1]}"`);
  const [field] = given;
  if (field === undefined) return undefined;
  const value = object.get(field);
  const values: readonly (JsonValue | undefined)[] = field.endsWith('s') && Array.isArray(value) ? value : [value];
  if (values.length === 0) throw invalid(`${where} has an empty "${field}"`);
  return values.map((each) => {
    if (typeof each !== 'string') throw invalid(`${where} has a "${field}" that is no text`);
    if (field.startsWith('keyData')) return { kind: 'data', pem: Buffer.from(each, 'base64').toString('latin1') };
    if (!/^\/etc\/[^/]/.test(each) || each.split('/').some((part) => part === '..' || part === '.')) {
      throw invalid(`${where} has the key file "${each}", which does not lie below /etc`);
    }
    return { kind: 'file', path: each };
  });
}

function signedIdentity(value: JsonValue, where: string): SignedIdentity {
  const type = isJsonObject(value) ? value.get('type') : undefined;
  if (!isJsonObject(value)) throw invalid(`${where} has a "signedIdentity" that is no object`);
  switch (type) {
    case 'matchExact':
    case 'matchRepoDigestOrExact':
    case 'matchRepository':
    case 'hostctlDigestOnly':
      only(value, ['type'], where);
      return { type };
    case 'exactReference':
    case 'exactRepository': {
      const field = type === 'exactReference' ? 'dockerReference' : 'dockerRepository';
      only(value, ['type', field], where);
      const name = value.get(field);
      if (typeof name !== 'string' || name === '') throw invalid(`${where} has a "${type}" without "${field}"`);
      return { type, name };
    }
    default:
      throw invalid(`${where} has the unknown identity ${JSON.stringify(type ?? null)}`);
  }
}

/** A seal names a repository and never a tag. */
function sealIdentity(value: JsonValue, where: string): SignedIdentity {
  const identity = signedIdentity(value, where);
  if (['matchRepository', 'exactRepository', 'hostctlDigestOnly'].includes(identity.type)) return identity;
  throw invalid(`${where} has the identity "${identity.type}": a seal names a repository only`);
}

function objectIn(object: JsonObject, name: string): JsonObject {
  const value = object.get(name) ?? new Map<string, JsonValue>();
  if (isJsonObject(value)) return value;
  throw invalid(`"${name}" is no object`);
}

function only(object: JsonObject, known: readonly string[], where: string): void {
  const other = [...object.keys()].find((name) => !known.includes(name));
  if (other !== undefined) throw invalid(`${where} has the unknown field "${other}"`);
}

function invalid(problem: string): HostctlError {
  return new HostctlError('config-invalid', `Cannot use the policy: ${problem}`, {
    hint: 'See docs/seals.md for what a policy can say; nothing is accepted under one that cannot be read',
  });
}
