import { expect, test } from 'vitest';
import { findCredentials } from '../../../src/format/containers/auth-json.ts';

const AUTHS = {
  auths: {
    'quay.io': { auth: 'aG9zdA==' },
    'quay.io/own': { auth: 'b3du' },
    'quay.io/own/os': { auth: 'b3M=' },
    'https://old.example': { auth: 'b2xk' },
    'token.example': { auth: 'eA==', identitytoken: 'x' },
  },
};

test.each<readonly [string, unknown, string, string, string]>([
  ['the host', AUTHS, 'quay.io', 'a/b', 'aG9zdA=='],
  ['the longest name that fits', AUTHS, 'quay.io', 'own/os', 'b3M='],
  ['a name above it', AUTHS, 'quay.io', 'own/other', 'b3du'],
  ['a name that only begins alike', AUTHS, 'quay.io', 'owner', 'aG9zdA=='],
  ['a URL, as Docker writes it', AUTHS, 'old.example', 'a', 'b2xk'],
  ['nothing', AUTHS, 'other.example', 'a', 'none'],
  ['nothing, whatever objects have by themselves', { auths: {} }, 'constructor', 'a', 'none'],
  ['an identity token', AUTHS, 'token.example', 'a', 'helper'],
  ['a helper for this host', { ...AUTHS, credHelpers: { 'quay.io': 'x' } }, 'quay.io', 'a', 'helper'],
  ['a helper for another host', { ...AUTHS, credHelpers: { 'other.io': 'x' } }, 'quay.io', 'a', 'aG9zdA=='],
  ['a helper for all', { credsStore: 'x' }, 'quay.io', 'a', 'helper'],
  ['no object', [], 'quay.io', 'a', 'helper'],
])('%s', (_title, document, host, repository, expected) => {
  expect(findCredentials(JSON.stringify(document), host, repository)).toBe(expected);
}); // prettier-ignore

test('what is no JSON is left to skopeo', () => {
  expect(findCredentials('{', 'quay.io', 'a')).toBe('helper');
});
