import { expect, test } from 'vitest';
import { registryEndpoints } from '../../../src/format/containers/registries-conf.ts';

const at = (host: string, repository: string, insecure = false) => ({ host, repository, insecure });
const MIRRORED = `
unqualified-search-registries = ["docker.io"]
[[registry]]
location = "quay.io"
[[registry.mirror]]
location = "mirror.example:5000/quay"
insecure = true
[[registry.mirror]]
location = "other.example"
[[registry]]
prefix = "quay.io/own"
location = "own.example/os"
`;

test.each<readonly [string, readonly string[], string, unknown]>([
  ['no file', [], 'quay.io/a/b', [at('quay.io', 'a/b')]],
  ['Docker’s own registry', [], 'docker.io/debian', [at('registry-1.docker.io', 'library/debian')]],
  ['the same with a path', [], 'docker.io/a/b', [at('registry-1.docker.io', 'a/b')]],
  ['mirrors first', [MIRRORED], 'quay.io/a/b', [at('mirror.example:5000', 'quay/a/b', true), at('other.example', 'a/b'), at('quay.io', 'a/b')]],
  ['the longest prefix', [MIRRORED], 'quay.io/own/b', [at('own.example', 'os/b')]],
  ['a name that only begins alike', [MIRRORED], 'quay.io/owner/b', [at('mirror.example:5000', 'quay/owner/b', true), at('other.example', 'owner/b'), at('quay.io', 'owner/b')]],
  ['a drop-in that replaces', [MIRRORED, '[[registry]]\nlocation = "quay.io"\ninsecure = true\n'], 'quay.io/a', [at('quay.io', 'a', true)]],
  ['what is blocked', ['[[registry]]\nlocation = "quay.io"\nblocked = true\n'], 'quay.io/a', undefined],
  ['a wildcard', ['[[registry]]\nprefix = "*.example"\n'], 'a.example/a', undefined],
  ['mirrors for digests only', ['[[registry]]\nlocation = "quay.io"\nmirror-by-digest-only = true\n'], 'quay.io/a', undefined],
  ['a mirror with a word of its own', ['[[registry]]\nlocation = "q.io"\n[[registry.mirror]]\nlocation = "m"\npull-from-mirror = "tag-only"\n'], 'q.io/a', undefined],
  ['version 1', ['[registries.search]\nregistries = ["quay.io"]\n'], 'quay.io/a', undefined],
  ['no TOML', ['[[registry'], 'quay.io/a', undefined],
])('%s', (_title, texts, name, expected) => {
  expect(registryEndpoints(texts, name)).toEqual(expected);
}); // prettier-ignore
