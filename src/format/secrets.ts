/**
 * Takes out of a text what looks like a secret, for reports that are handed on: values of settings and kernel arguments
 * whose name says so, user and password in addresses, tokens of HTTP headers, and the machine's id, which
 * machine-id(5) calls confidential. Pure. Rather too much than too little.
 */

export const HIDDEN = '(hidden)';

const NAMES = 'pass|passwd|password|passphrase|pwd|rootpw|secret|token|credential|psk|private|apikey|auth';
const RULES: readonly (readonly [RegExp, string])[] = [
  [/\b(Bearer|Basic)\s+[\w+/=.~-]{8,}/gi, `$1 ${HIDDEN}`],
  // A kernel argument quoted as a whole.
  [new RegExp(`"([\\w.-]*(?:${NAMES})[\\w.-]*=)[^"]*"`, 'gi'), `"$1${HIDDEN}"`],
  // The word after the name, or what stands in quotes there.
  [new RegExp(`([\\w.-]*(?:${NAMES})[\\w.-]*"?\\s*[=:]\\s*)(?:"[^"]*"|'[^']*'|[^\\s"]+)`, 'gi'), `$1${HIDDEN}`],
  [/(\/\/)[^\s/@]+@/g, `$1${HIDDEN}@`],
  [/\b(machine[-_.]id\s*[=:]?\s*)[0-9a-f]{32}\b/gi, `$1${HIDDEN}`],
];

export function hideSecrets(text: string): string {
  return RULES.reduce((rest, [pattern, replacement]) => rest.replace(pattern, replacement), text);
}

/** The same for every text in a document; names of fields stay. */
export function hideSecretsIn(value: unknown): unknown {
  if (typeof value === 'string') return hideSecrets(value);
  if (Array.isArray(value)) return value.map(hideSecretsIn);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, hideSecretsIn(field)]));
}
