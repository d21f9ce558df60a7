/** What the root hook has the boot loader start instead of an image that it refuses, and when it leaves that alone. */

import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { withChecksum } from '../../src/format/checksum.ts';
import { HookSandbox, type HookRun, reasonNoHook } from '../helpers/hook-sandbox.ts';

const reason = reasonNoHook();
if (reason !== undefined) console.error(`Skipping the root hook's tests: ${reason}`);

const GOOD = 'cd'.repeat(64);
const OLDER = 'ef'.repeat(64);
const FEATURES = { LoaderFeatures: 'x' };
const counted = (name: string): Record<string, string> => ({
  ...FEATURES,
  LoaderBootCountPath: `\\loader\\entries\\${name}`,
});

let sandbox: HookSandbox;
beforeEach(() => {
  if (reason === undefined) sandbox = new HookSandbox();
});
afterEach(() => {
  if (reason === undefined) sandbox.remove();
});

const hostState = (name: string): string => join(sandbox.physical, 'state/hostctl', name);

/** The list of a host with these deployments, images and all. */
function offer(...list: readonly (readonly [entry: string, name: string])[]): void {
  mkdirSync(hostState(''), { recursive: true });
  writeFileSync(hostState('fallback'), withChecksum(list.map(([entry, name]) => `${entry} ${name}\n`).join(''), '#'));
  for (const [, name] of list) {
    writeFileSync(join(sandbox.physical, 'composefs/images', name.slice(0, 128)), '');
    if (name.slice(0, 128) !== sandbox.digest) sandbox.addDeployment(name);
  }
}

/** Boots an image that is refused. */
function refused(variables: Record<string, string> | undefined): HookRun {
  return sandbox.run(`composefs=${sandbox.digest}`, {
    measured: 'other',
    probes: ['ls /run'],
    ...(variables && { variables }),
  });
}

function oneShot(): string | undefined {
  return sandbox.variable('LoaderEntryOneShot')?.subarray(4).toString('utf16le');
}

describe.skipIf(reason !== undefined)('Instead of an image that is refused', () => {
  test('the newest good entry of another one boots, once', () => {
    offer(['hostctl-00000007.conf', GOOD], ['hostctl-00000001.conf', OLDER]);
    const run = refused(FEATURES);
    expect(run.status).toBe(1);
    expect(run.stderr).toContain('Booting "hostctl-00000007.conf" once instead');
    // Kept over a boot, read by the firmware and by the system: 7; the name ends with a NUL.
    expect(sandbox.variable('LoaderEntryOneShot')?.subarray(0, 4)).toEqual(Buffer.from([7, 0, 0, 0]));
    expect(oneShot()).toBe('hostctl-00000007.conf\0');
    expect(run.probes[0]).toContain('hostctl-fallback');
    expect(existsSync(hostState('fallback-tried'))).toBe(true);
  });

  test('its own entries, and what is not there any more, are passed over', () => {
    offer(
      ['hostctl-00000009.conf', sandbox.digest],
      ['hostctl-00000008.conf', `${sandbox.digest}.8`],
      ['hostctl-00000007.conf', GOOD],
      ['hostctl-00000006.conf', 'ab'.repeat(64)],
      ['hostctl-00000001.conf', `${OLDER}.1`],
    );
    rmSync(join(sandbox.physical, 'composefs/images', GOOD));
    rmSync(join(sandbox.physical, 'state/deploy', 'ab'.repeat(64)), { recursive: true });
    refused(FEATURES);
    expect(oneShot()).toBe('hostctl-00000001.conf\0');
  });

  test('nothing else boots a second time, until a boot was good', () => {
    offer(['hostctl-00000007.conf', GOOD]);
    refused(FEATURES);
    const again = refused(FEATURES);
    expect([oneShot(), again.probes[0]]).toEqual([undefined, expect.not.stringContaining('hostctl-fallback')]);
    rmSync(hostState('fallback-tried'));
    refused(FEATURES);
    expect(oneShot()).toBe('hostctl-00000007.conf\0');
  });

  test.each([
    ['hostctl-00000009+2-1.conf', undefined],
    ['hostctl-00000009+1-8.conf', undefined],
    ['hostctl-00000009+0-3.conf', 'hostctl-00000007.conf\0'],
    ['hostctl-00000009+0-12.conf', 'hostctl-00000007.conf\0'],
  ])('a counted boot goes to its next try as long as it has one: %s', (entry, expected) => {
    offer(['hostctl-00000007.conf', GOOD]);
    const run = refused(counted(entry));
    expect(oneShot()).toBe(expected);
    expect(run.probes[0]?.includes('hostctl-fallback')).toBe(expected !== undefined);
  });

  test.each<[string, () => Record<string, string> | undefined]>([
    ['there is no list', () => FEATURES],
    [
      'the list is empty',
      () => {
        offer();
        return FEATURES;
      },
    ],
    [
      'the list names something that is no entry',
      () => {
        offer(['../../x%s', GOOD]);
        return FEATURES;
      },
    ],
    [
      'the boot loader says nothing of itself',
      () => {
        offer(['hostctl-00000007.conf', GOOD]);
        return {};
      },
    ],
    [
      'there is no EFI',
      () => {
        offer(['hostctl-00000007.conf', GOOD]);
        return undefined;
      },
    ],
    [
      'the variable cannot be written',
      () => {
        offer(['hostctl-00000007.conf', GOOD]);
        return FEATURES;
      },
    ],
  ])('nothing boots where %s, and the reason is recorded all the same', (name, prepare) => {
    const variables = prepare();
    if (name === 'the variable cannot be written') sandbox.lockedVariable = 'LoaderEntryOneShot';
    const run = refused(variables);
    expect([run.status, oneShot()]).toEqual([1, undefined]);
    expect(run.probes[0]).not.toContain('hostctl-fallback');
    expect(run.stderr).toMatch(/^hostctl: Refusing to boot: .*\(image-mismatch\)$/m);
    expect(sandbox.failure(`boot-failure-${sandbox.digest}`)).toContain('\nreason=image-mismatch\n');
  });
});
