/**
 * The seal: one small signed text that binds an image manifest to the digest that its root has on a host
 * (docs/seals.md). One digest line for each set of parameters; every line is checked, and one that is not known is
 * refused, since it might say what must not be ignored.
 */

import { HostctlError, isHostctlError } from '../../errors.ts';
import { formatImageParameters, parseDigestArgument, type ImageParameters } from '../cmdline.ts';
import { parseOciDigest, type OciDigest } from '../oci/digest.ts';
import type { VerityDigest } from '../../tree/node.ts';
import { formatLines, invalid, parseLines } from './lines.ts';

export interface SealedDigest {
  readonly parameters: ImageParameters;
  readonly digest: VerityDigest;
}

export interface Seal {
  readonly digests: readonly SealedDigest[];
  readonly xattrs: string;
  readonly manifest: OciDigest;
  /** Repository that the publisher claims, `HOST/NAME` without a tag. */
  readonly name: string | undefined;
  readonly securityVersion: number;
  /** ISO 8601 in UTC. */
  readonly expires: string | undefined;
}

const KIND = 'hostctl-seal';
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/;
/** Keys that may be given several times. */
const REPEATED = new Set(['digest']);

export function formatSealedDigest({ parameters, digest }: SealedDigest): string {
  return `${formatImageParameters(parameters)}:${digest}`;
}

/** Reads `v1-sha512-12:HEX`. Throws 'format-invalid'. */
export function parseSealedDigest(text: string): SealedDigest {
  const stated = text.startsWith('v') ? parseDigestArgument(`composefs.digest=${text}`) : undefined;
  if (stated === undefined) throw new HostctlError('format-invalid', `"${text.slice(0, 200)}" is no image digest`);
  return { parameters: stated.parameters, digest: stated.digest };
}

export function formatSeal({ digests, xattrs, manifest, name, securityVersion, expires }: Seal): Uint8Array {
  return formatLines(KIND, [
    ...digests.map((digest) => ['digest', formatSealedDigest(digest)] as const),
    ['xattrs', xattrs],
    ['manifest', manifest],
    ...(name === undefined ? [] : ([['name', name]] as const)),
    ['security-version', String(securityVersion)],
    ...(expires === undefined ? [] : ([['expires', expires]] as const)),
  ]);
}

/** Reads a seal whose signature was found good. Throws 'format-invalid' or 'image-unsupported'. */
export function parseSeal(bytes: Uint8Array): Seal {
  const digests: SealedDigest[] = [];
  const values = new Map<string, string>();
  for (const [key, value] of parseLines(bytes, KIND)) {
    if (values.has(key) && !REPEATED.has(key)) throw invalid(KIND, `it gives "${key}" twice`);
    values.set(key, value);
    if (key === 'digest') digests.push(...knownDigest(value));
    else if (!KNOWN.has(key)) throw invalid(KIND, `it has the unknown key "${key}"`);
  }
  if (!values.has('digest')) throw invalid(KIND, 'it has no "digest"');
  const xattrs = values.get('xattrs');
  const manifest = values.get('manifest');
  const expires = values.get('expires');
  if (xattrs === undefined || manifest === undefined) throw invalid(KIND, 'it lacks "xattrs" or "manifest"');
  if (expires !== undefined && !isSealTime(expires)) {
    throw invalid(KIND, '"expires" is no time such as 2027-03-01T00:00:00Z');
  }
  return {
    digests,
    xattrs,
    manifest: parseOciDigest(manifest, 'Manifest of the seal'),
    name: values.get('name'),
    securityVersion: parseSecurityVersion(values.get('security-version') ?? '0'),
    expires,
  };
}

const KNOWN = new Set(['xattrs', 'manifest', 'name', 'security-version', 'expires']);

/** A digest by parameters of a later hostctl is for that one; another line may be for us. */
function knownDigest(value: string): SealedDigest[] {
  try {
    return [parseSealedDigest(value)];
  } catch (error) {
    if (isHostctlError(error, 'image-unsupported')) return [];
    throw error;
  }
}

/** An integer from 0. Throws 'format-invalid'. */
export function parseSecurityVersion(text: string): number {
  const value = Number(text);
  if (/^(0|[1-9]\d{0,15})$/.test(text) && Number.isSafeInteger(value)) return value;
  throw new HostctlError('format-invalid', `The security version "${text.slice(0, 40)}" is no whole number from 0`);
}

/** Whether text is a time in the one form that a seal has. */
export function isSealTime(text: string): boolean {
  return TIME.test(text) && !Number.isNaN(Date.parse(text));
}
