/**
 * Content descriptors (image-spec descriptor.md): media type, digest and size of a blob, and the check of content
 * against them. Content is looked at only after its size, then its digest, were found right.
 */

import { HostctlError } from '../../errors.ts';
import { digestLike, parseOciDigest, type OciDigest } from './digest.ts';
import { optionalObject, optionalString, optionalStringMap, requiredSize, requiredString } from './fields.ts';
import { isJsonObject, type JsonObject, type JsonValue } from './json.ts';

/** The platform an index entry or a config is for, in Go's names. */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
}

export interface Descriptor {
  /** As stated, parameters and case included. */
  readonly mediaType: string;
  readonly digest: OciDigest;
  /** Bytes. */
  readonly size: number;
  readonly annotations: ReadonlyMap<string, string>;
  readonly platform?: Platform;
  readonly artifactType?: string;
  /** The content itself, base64, not yet compared with size and digest. */
  readonly data?: string;
}

/** Reads a descriptor; `where` names it in messages. */
export function parseDescriptor(value: JsonValue | undefined, where: string): Descriptor {
  if (!isJsonObject(value)) throw new HostctlError('image-invalid', `${where} is not a descriptor`);
  const platform = optionalObject(value, 'platform', where);
  const artifactType = optionalString(value, 'artifactType', where);
  const data = optionalString(value, 'data', where);
  return {
    mediaType: requiredString(value, 'mediaType', where),
    digest: parseOciDigest(requiredString(value, 'digest', where), `${where}: digest`),
    size: requiredSize(value, 'size', where),
    annotations: optionalStringMap(value, 'annotations', where),
    ...(platform === undefined ? {} : { platform: parsePlatform(platform, `${where}: platform`) }),
    ...(artifactType === undefined ? {} : { artifactType }),
    ...(data === undefined ? {} : { data }),
  };
}

/** Reads `os`, `architecture` and `variant` of an index entry or a config; an empty variant is none. */
export function parsePlatform(object: JsonObject, where: string): Platform {
  const variant = optionalString(object, 'variant', where);
  return {
    os: requiredString(object, 'os', where),
    architecture: requiredString(object, 'architecture', where),
    ...(variant === undefined || variant === '' ? {} : { variant }),
  };
}

/** Refuses content that does not have the descriptor's size and digest; `what` opens the message. */
export function checkContent(bytes: Uint8Array, descriptor: Descriptor, what: string): void {
  if (bytes.length !== descriptor.size) {
    throw new HostctlError('size-mismatch', `${what} has ${bytes.length} bytes instead of ${descriptor.size}`);
  }
  const digest = digestLike(descriptor.digest, bytes);
  if (digest !== descriptor.digest) {
    throw new HostctlError('digest-mismatch', `${what} has the digest "${digest}" instead of "${descriptor.digest}"`);
  }
}

/** The content a descriptor carries in its `data` field, checked, or undefined without one. */
export function embeddedContent(descriptor: Descriptor, what: string): Uint8Array | undefined {
  if (descriptor.data === undefined) return undefined;
  const bytes = Buffer.from(descriptor.data, 'base64');
  if (bytes.toString('base64') !== descriptor.data) {
    throw new HostctlError('image-invalid', `${what} is embedded in its descriptor, but not as base64`);
  }
  checkContent(bytes, descriptor, `${what} embedded in its descriptor`);
  return bytes;
}
