import { expect, test } from 'vitest';
import { hideSecrets, hideSecretsIn } from '../../src/format/secrets.ts';

test.each([
  ['quiet iscsi_password=hunter2 rw', 'quiet iscsi_password=(hidden) rw'],
  ['systemd.set_credential=passwd.hashed-password.root:$6$abc quiet', 'systemd.set_credential=(hidden) quiet'],
  ['"rd.secret=two words" quiet', '"rd.secret=(hidden)" quiet'],
  ['password = "two words"\nkeep = 3', 'password = (hidden)\nkeep = 3'],
  ["token: 'a b' end", 'token: (hidden) end'],
  ['{"auth": "dXNlcjpwYXNz"}', '{"auth": (hidden)}'],
  ['https://user:secret@registry.example/v2/', 'https://(hidden)@registry.example/v2/'],
  ['https://token-only@registry.example/', 'https://(hidden)@registry.example/'],
  ['Authorization: Bearer eyJhbGciOi.eyJz.dozj', 'Authorization: (hidden) (hidden)'],
  ['sent Bearer eyJhbGciOi.eyJz.dozj', 'sent Bearer (hidden)'],
  ['machine-id 0123456789abcdef0123456789abcdef', 'machine-id (hidden)'],
  ['systemd.machine_id=0123456789abcdef0123456789abcdef', 'systemd.machine_id=(hidden)'],
])('%s', (text, expected) => {
  expect(hideSecrets(text)).toBe(expected);
});

test.each([
  'root=UUID=6a2b1c0e-0000-4000-8000-000000000000 rw quiet console=ttyS0',
  `composefs.digest=v1-sha512-12:${'ab'.repeat(64)}`,
  'docker://registry.example:5000/os@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef',
  '[retention]\nkeep = 3',
])('%s stays', (text) => {
  expect(hideSecrets(text)).toBe(text);
});

test('Every text of a document is looked at, and nothing else of it changes', () => {
  expect(hideSecretsIn({ token: 7, list: ['a=1', { deep: 'token=x' }], none: null })).toEqual({
    token: 7,
    list: ['a=1', { deep: 'token=(hidden)' }],
    none: null,
  });
});
