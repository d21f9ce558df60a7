/** containers-auth.json(5), as far as credentials stand in it. */

/** `user:password` in base64, as HTTP's Basic has it. */
export type BasicCredentials = string & { readonly __brand: 'BasicCredentials' };

/** How a place may be spoken to: with what stands in the file, or without; `helper` where only a program can tell. */
export type FoundCredentials = BasicCredentials | 'none' | 'helper';

const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;

/**
 * The credentials for `host/repository`, the longest name that fits. A file that is no such file is left to skopeo to
 * complain of: `helper`.
 */
export function findCredentials(text: string, host: string, repository: string): FoundCredentials {
  const document = tableOf(parsed(text));
  if (document === undefined) return 'helper';
  const helpers = tableOf(document['credHelpers'] ?? {});
  if (document['credsStore'] !== undefined || helpers === undefined || Object.hasOwn(helpers, host)) return 'helper';
  const auths = tableOf(document['auths'] ?? {});
  if (auths === undefined) return 'helper';
  const parts = repository.split('/');
  const names = [...parts.map((_, i) => [host, ...parts.slice(0, parts.length - i)].join('/')), host];
  for (const name of names) {
    // Docker writes URLs.
    const found = [name, `https://${name}`].find((key) => Object.hasOwn(auths, key));
    if (found === undefined) continue;
    const { auth, identitytoken } = tableOf(auths[found]) ?? {};
    if (identitytoken !== undefined || typeof auth !== 'string' || !BASE64.test(auth)) return 'helper';
    return auth as BasicCredentials;
  }
  return 'none';
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function tableOf(value: unknown): Record<string, unknown> | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : undefined;
}
