/** Image references of every transport, and what is none. */

import { describe, expect, test } from 'vitest';
import { HostctlError } from '../../../src/errors.ts';
import { parseOciDigest } from '../../../src/format/oci/digest.ts';
import { formatImageReference, parseImageReference, type ImageReference } from '../../../src/format/oci/reference.ts';

const text = `sha256:${'a'.repeat(64)}`;
const digest = parseOciDigest(text, 'Digest');

describe('image references', () => {
  test.each<readonly [string, ImageReference]>([
    ['docker://quay.io/a/b', { transport: 'docker', name: 'quay.io/a/b' }],
    ['quay.io/a/b:1.0', { transport: 'docker', name: 'quay.io/a/b', tag: '1.0' }],
    ['localhost:5000/a', { transport: 'docker', name: 'localhost:5000/a' }],
    ['localhost/a:b', { transport: 'docker', name: 'localhost/a', tag: 'b' }],
    [`docker://r.example/a@${text}`, { transport: 'docker', name: 'r.example/a', digest }],
    [`r.example:1/a:t@${text}`, { transport: 'docker', name: 'r.example:1/a', tag: 't', digest }],
    ['[::1]:5000/a_b__c-d.e', { transport: 'docker', name: '[::1]:5000/a_b__c-d.e' }],
    ['oci:dir', { transport: 'oci', path: 'dir' }],
    ['oci:/a/b:c', { transport: 'oci', path: '/a/b', tag: 'c' }],
    ['oci:/a:b/c', { transport: 'oci', path: '/a:b/c' }],
    ['oci:/a:b:c', { transport: 'oci', path: '/a:b', tag: 'c' }],
    ['oci-archive:x.tar:t', { transport: 'oci-archive', path: 'x.tar', tag: 't' }],
    ['docker-archive:x.tar:r.example/a:t', { transport: 'docker-archive', path: 'x.tar', tag: 'r.example/a:t' }],
    ['docker-archive:x.tar', { transport: 'docker-archive', path: 'x.tar' }],
    ['dir:/a:b', { transport: 'dir', path: '/a:b' }],
    ['containers-storage:a:b', { transport: 'containers-storage', name: 'a:b' }],
  ])('%s', (text, reference) => {
    expect(parseImageReference(text)).toEqual(reference);
    expect(parseImageReference(formatImageReference(reference))).toEqual(reference);
  });

  test.each([
    ['', 'is not HOST/NAME'],
    ['fedora', 'is not HOST/NAME'],
    ['library/fedora', 'does not say which registry it is on ("library" is no host name)'],
    ['docker:quay.io/a', 'has no "//" behind "docker:"'],
    ['docker://', 'is not HOST/NAME'],
    ['quay.io/A', 'is not HOST/NAME'],
    ['quay.io/a/../b', 'is not HOST/NAME'],
    ['quay.io/a:', 'has an invalid tag'],
    ['quay.io/a:-x', 'has an invalid tag'],
    ['quay.io/a@sha256:b', 'has an invalid digest'],
    ['oci:', 'names nothing'],
    ['oci:a:', 'has an empty tag'],
    ['oci::a', 'has no path'],
    ['oci:a\nb', 'holds control characters'],
  ])('%j is refused', (text, complaint) => {
    expect(() => parseImageReference(text)).toThrow(HostctlError);
    expect(() => parseImageReference(text)).toThrow(complaint);
  });
});
