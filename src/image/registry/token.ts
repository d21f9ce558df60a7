/** Bearer tokens of registries (distribution's token authentication). */

import { HostctlError } from '../../errors.ts';
import type { BasicCredentials } from '../../format/containers/auth-json.ts';
import { parseUrl, shownUrl, type HttpAnswer } from '../../sys/http.ts';
import { readBody } from './body.ts';

export interface Challenge {
  /** In lower case. */
  readonly scheme: string;
  readonly parameters: ReadonlyMap<string, string>;
}

const MAX_TOKEN_BYTES = 64 << 10;

/** Parses a `WWW-Authenticate` header of one challenge. */
export function parseChallenge(header: string): Challenge | undefined {
  const match = /^\s*([A-Za-z]+)(?:\s+(.*))?$/.exec(header);
  if (match === null) return undefined;
  const pairs = (match[2] ?? '').matchAll(/([A-Za-z_]+)\s*=\s*(?:"([^"]*)"|([^\s,"]+))/g);
  return {
    scheme: match[1]!.toLowerCase(),
    parameters: new Map([...pairs].map(([, name = '', quoted, bare]) => [name.toLowerCase(), quoted ?? bare ?? ''])),
  };
}

export interface TokenRequest {
  readonly credentials: BasicCredentials | undefined;
  readonly scope: string;
  /** Whether the registry itself is spoken to without TLS. */
  readonly isPlain: boolean;
  readonly send: (url: URL, headers: Readonly<Record<string, string>>) => Promise<HttpAnswer>;
}

/** Asks the token server that a challenge names. */
export async function fetchToken({ parameters }: Challenge, request: TokenRequest): Promise<string> {
  const url = parseUrl(parameters.get('realm') ?? '');
  if (url === undefined || !(url.protocol === 'https:' || (url.protocol === 'http:' && request.isPlain))) {
    throw new HostctlError('registry', 'The registry names a token server that is no https URL');
  }
  const service = parameters.get('service');
  if (service !== undefined) url.searchParams.set('service', service);
  // What is asked for is ours to say, not the registry's.
  url.searchParams.set('scope', request.scope);
  const { credentials, send } = request;
  const answer = await send(url, credentials === undefined ? {} : { authorization: `Basic ${credentials}` });
  if (answer.status !== 200) {
    answer.discard();
    throw new HostctlError('registry', `Token server "${shownUrl(url)}" refuses with status ${answer.status}`, {
      hint: 'Are the credentials right? See containers-auth.json(5)',
    });
  }
  const token = tokenOf(await readBody(answer, shownUrl(url), MAX_TOKEN_BYTES, 'registry'));
  if (token !== undefined) return token;
  throw new HostctlError('registry', `Token server "${shownUrl(url)}" gives no token`);
}

function tokenOf(bytes: Uint8Array): string | undefined {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch {
    return undefined;
  }
  const { token, access_token: other } = Object(value) as { token?: unknown; access_token?: unknown };
  const found = token ?? other;
  // Whatever it is, it becomes part of a header.
  return typeof found === 'string' && /^[\x21-\x7e]+$/.test(found) ? found : undefined;
}
