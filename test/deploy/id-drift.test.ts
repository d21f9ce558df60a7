import { expect, test } from 'vitest';
import { findIdDrift } from '../../src/deploy/id-drift.ts';

test('names with another number are found; new and gone names and what is no account are not', () => {
  const before = {
    passwd:
      'root:x:0:0:root:/root:/bin/sh\nweb:x:990:990::/:/sbin/nologin\ngone:x:5:5::/:\n+nis:x:1:1::/:\n#old:x:1:1\nbad:x:y:1\n',
    group: 'root:x:0:\nweb:x:990:a,b\nweb:x:7:\nkvm:x:36:\n',
  };
  const after = {
    passwd:
      'web:x:991:990::/:/sbin/nologin\nroot:x:0:0:root:/root:/bin/sh\nnew:x:6:6::/:\n+nis:x:2:2::/:\n#old:x:2:1\nbad:x:1:1\n\n:x:3:3',
    group: 'kvm:x:78:\nweb:x:992:\nroot:x:0:',
  };
  expect(findIdDrift(before, after)).toEqual([
    { kind: 'user', name: 'web', oldId: 990, newId: 991 },
    { kind: 'group', name: 'web', oldId: 990, newId: 992 },
    { kind: 'group', name: 'kvm', oldId: 36, newId: 78 },
  ]);
  expect(findIdDrift(before, before)).toEqual([]);
});
