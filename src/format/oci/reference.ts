/**
 * Image references as users write them (containers-transports(5)). Parsing says what a reference means; whether its
 * transport can be carried out is for the opener.
 */

import { HostctlError } from '../../errors.ts';
import { displayRaw, rawFromText } from '../../tree/name.ts';
import { parseOciDigest, type OciDigest } from './digest.ts';

export type ImageReference =
  | {
      readonly transport: 'docker';
      /** `host[:port]/path`. */
      readonly name: string;
      readonly tag?: string;
      readonly digest?: OciDigest;
    }
  | { readonly transport: 'oci' | 'oci-archive'; readonly path: string; readonly tag?: string }
  | { readonly transport: 'docker-archive'; readonly path: string; readonly tag?: string }
  | { readonly transport: 'dir'; readonly path: string }
  | { readonly transport: 'containers-storage'; readonly name: string };

const component = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*';
const host =
  '(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\\[[0-9a-fA-F:]+\\])(?::[0-9]{1,5})?';
const registryName = new RegExp(`^(${host})((?:/${component})+)$`);
const tagPattern = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/;

/** Parses a reference; refuses what is not one with code 'usage'. */
export function parseImageReference(text: string): ImageReference {
  if (/[\u0000-\u001f\u007f]/.test(text)) throw invalid(text, 'holds control characters');
  const match = /^(docker|oci|oci-archive|docker-archive|dir|containers-storage):(.*)$/.exec(text);
  if (match === null) return parseRegistryReference(text, text);
  const rest = match[2]!;
  if (rest === '') throw invalid(text, 'names nothing');
  switch (match[1]) {
    case 'docker':
      if (!rest.startsWith('//')) throw invalid(text, 'has no "//" behind "docker:"');
      return parseRegistryReference(rest.slice(2), text);
    case 'oci':
      return { transport: 'oci', ...splitTag(rest, text) };
    case 'oci-archive':
      return { transport: 'oci-archive', ...splitTag(rest, text) };
    case 'docker-archive': {
      // The tag is a whole image name here, so the path ends at the first colon.
      const colon = rest.indexOf(':');
      if (colon === -1) return { transport: 'docker-archive', path: rest };
      return { transport: 'docker-archive', path: rest.slice(0, colon), tag: rest.slice(colon + 1) };
    }
    case 'dir':
      return { transport: 'dir', path: rest };
    default:
      return { transport: 'containers-storage', name: rest };
  }
}

/** The reference as text that parses to the same. */
export function formatImageReference(reference: ImageReference): string {
  switch (reference.transport) {
    case 'docker': {
      const tag = reference.tag === undefined ? '' : `:${reference.tag}`;
      const digest = reference.digest === undefined ? '' : `@${reference.digest}`;
      return `docker://${reference.name}${tag}${digest}`;
    }
    case 'oci':
    case 'oci-archive':
    case 'docker-archive':
      return `${reference.transport}:${reference.path}${reference.tag === undefined ? '' : `:${reference.tag}`}`;
    case 'dir':
      return `dir:${reference.path}`;
    case 'containers-storage':
      return `containers-storage:${reference.name}`;
  }
}

function parseRegistryReference(rest: string, text: string): ImageReference {
  const at = rest.indexOf('@');
  const digest = at === -1 ? undefined : parseDigest(rest.slice(at + 1), text);
  const named = at === -1 ? rest : rest.slice(0, at);
  const colon = named.lastIndexOf(':');
  const hasTag = colon > named.lastIndexOf('/');
  const name = hasTag ? named.slice(0, colon) : named;
  const tag = hasTag ? named.slice(colon + 1) : undefined;
  if (!registryName.test(name) || name.length > 255) throw invalid(text, 'is not HOST/NAME');
  const registry = name.slice(0, name.indexOf('/'));
  if (!/[.:]/.test(registry) && registry !== 'localhost') {
    throw invalid(text, `does not say which registry it is on ("${registry}" is no host name)`);
  }
  if (tag !== undefined && !tagPattern.test(tag)) throw invalid(text, 'has an invalid tag');
  return {
    transport: 'docker',
    name,
    ...(tag === undefined ? {} : { tag }),
    ...(digest === undefined ? {} : { digest }),
  };
}

function parseDigest(digest: string, text: string): OciDigest {
  try {
    return parseOciDigest(digest, 'Digest');
  } catch (cause) {
    throw invalid(text, 'has an invalid digest', cause);
  }
}

/** `path:tag` splits at the last colon unless a slash follows it. */
function splitTag(rest: string, text: string): { path: string; tag?: string } {
  const colon = rest.lastIndexOf(':');
  if (colon === -1 || rest.indexOf('/', colon) !== -1) return { path: rest };
  const path = rest.slice(0, colon);
  const tag = rest.slice(colon + 1);
  if (path === '' || tag === '') throw invalid(text, path === '' ? 'has no path' : 'has an empty tag');
  return { path, tag };
}

function invalid(text: string, complaint: string, cause?: unknown): HostctlError {
  const shown = displayRaw(rawFromText(text.slice(0, 500)));
  return new HostctlError('usage', `Image reference "${shown}" ${complaint}`, {
    hint: 'Write docker://HOST/NAME[:TAG|@DIGEST] or oci:DIR[:TAG].',
    cause,
  });
}
