/** How a boot ends that fails: what dracut's emergency hook and the generator make of the boot loader's counter. */

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { HookSandbox, reasonNoHook } from '../helpers/hook-sandbox.ts';

const reason = reasonNoHook();
if (reason !== undefined) console.error(`Skipping the tests of failed boots: ${reason}`);

const counted = (name: string): Record<string, string> => ({ LoaderBootCountPath: `\\loader\\entries\\${name}` });

let sandbox: HookSandbox;
beforeEach(() => {
  if (reason === undefined) sandbox = new HookSandbox();
});
afterEach(() => {
  if (reason === undefined) sandbox.remove();
});

/** What the emergency hook does: `returned` leaves it to rd.shell= and rd.emergency=. */
function emergency(
  cmdline: string,
  variables: Record<string, string> | undefined,
  { shell = false, fallback = false } = {},
): string {
  const run = sandbox.run(cmdline, {
    measured: 'other',
    ...(variables && { variables }),
    probes: [
      [
        ...(fallback ? [': >/run/hostctl-fallback'] : []),
        `getargbool() { return ${shell ? 0 : 1}; }`,
        // It is sourced: these are called in place of the programs.
        'reboot() { echo reboot "$@"; }',
        'sleep() { echo stopped; exit; }',
        // Not the test machine's console.
        "sed 's:/dev/console:/run/console:' /etc/emergency >/run/emergency",
        '. /run/emergency',
        'echo returned',
      ].join('\n'),
    ],
  });
  return run.probes[0]?.trim() ?? '';
}

describe.skipIf(reason !== undefined)('In the emergency of', () => {
  test.each<[string, string | undefined, { shell?: boolean; fallback?: boolean }, string]>([
    ['a counted boot, dracut reboots', 'x+2-1.conf', {}, 'returned'],
    ['a last try, dracut reboots', 'x+0-3.conf', {}, 'returned'],
    ['a last try of nine, dracut reboots', 'x+0-9.conf', {}, 'returned'],
    ['a boot that its loader never gives up, it stops', 'x+0-10.conf', {}, 'stopped'],
    ['a boot that is not counted, it stops whatever rd.emergency= says', undefined, {}, 'stopped'],
    ['a boot that is not counted and may have a shell, that is left to dracut', undefined, { shell: true }, 'returned'],
    ['a boot that another one follows once, it reboots', undefined, { fallback: true }, 'reboot -f\nstopped'],
  ])('%s', (_, entry, options, expected) => {
    const variables = entry === undefined ? {} : counted(entry);
    expect(emergency(`composefs=${sandbox.digest} rd.emergency=reboot`, variables, options)).toBe(expected);
  });

  test.each([
    ['hostctl.counted=2/3', 'returned'],
    ['hostctl.counted=0/3', 'returned'],
    ['hostctl.counted=x', 'stopped'],
  ])('a boot that GRUB counted (%s), dracut reboots', (argument, expected) => {
    expect(emergency(`composefs=${sandbox.digest} ${argument} rd.emergency=reboot`, undefined)).toBe(expected);
  });

  test('a machine without EFI variables, it stops', () => {
    expect(emergency(`composefs=${sandbox.digest}`, undefined)).toBe('stopped');
  });

  test('a system that hostctl did not deploy, nothing is done', () => {
    expect(emergency('root=/dev/sda1', undefined)).toBe('returned');
  });
});

/** What the generator writes, by file. */
function generated(cmdline: string, entry: string | undefined, { initramfs = false } = {}): Record<string, string> {
  const run = sandbox.run(cmdline, {
    measured: 'other',
    variables: entry === undefined ? {} : counted(entry),
    probes: [
      [
        initramfs ? ': >/etc/initrd-release' : 'rm -f /etc/initrd-release',
        'mkdir /run/units',
        'sh /etc/generator /run/units /run/early /run/late && cd /run/units',
        'for file in */*; do [ ! -f "$file" ] || { echo "== $file"; grep -v "^#" "$file"; }; done',
      ].join('\n'),
    ],
  });
  const files = (run.probes[0] ?? '').split('== ').slice(1);
  return Object.fromEntries(
    files.map((text) => [text.slice(0, text.indexOf('\n')), text.slice(text.indexOf('\n') + 1)]),
  );
}

const ON_HOST = [
  'boot-complete.target.d/55-hostctl-counted.conf',
  'emergency.target.d/55-hostctl-counted.conf',
  'hostctl-mark-failed.service.d/55-hostctl-counted.conf',
  'timers.target.d/55-hostctl-counted.conf',
];

describe.skipIf(reason !== undefined)('The generator', () => {
  test('ends a counted boot that takes too long, fails to be judged, or ends in emergency mode', () => {
    const units = generated(`composefs.digest=v1-sha512-12:${sandbox.digest}`, 'x+2-1.conf');
    expect(units).toEqual({
      [ON_HOST[0] ?? '']: '[Unit]\nJobTimeoutSec=15min\n',
      [ON_HOST[1] ?? '']: '[Unit]\nWants=hostctl-mark-failed.service\n',
      [ON_HOST[2] ?? '']: '[Unit]\nFailureAction=reboot\nJobTimeoutSec=5min\nJobTimeoutAction=reboot\n',
      [ON_HOST[3] ?? '']: '[Unit]\nWants=hostctl-mark-failed.timer\n',
    });
  });

  test('ends a counted initramfs that takes too long', () => {
    expect(generated(`composefs=${sandbox.digest}`, 'x+2-1.conf', { initramfs: true })).toEqual({
      'initrd.target.d/55-hostctl-counted.conf': '[Unit]\nJobTimeoutSec=10min\nJobTimeoutAction=reboot-force\n',
    });
  });

  test('takes the place of no drop-in that is installed', () => {
    const installed = readdirSync(new URL('../../systemd/boot-complete.target.d', import.meta.url));
    expect(ON_HOST.map((file) => basename(file)).filter((name) => installed.includes(name))).toEqual([]);
  });

  test.each<[string, string, string | undefined]>([
    ['that is not counted', '', undefined],
    ['of other arguments, once', 'hostctl.once=1', 'x+0-1.conf'],
    ['into emergency mode', 'emergency', 'x+2-1.conf'],
    ['of a unit somebody named', 'systemd.unit=rescue.target', 'x+2-1.conf'],
  ])('leaves a boot alone %s', (_, argument, entry) => {
    expect(generated(`composefs=${sandbox.digest} ${argument}`, entry)).toEqual({});
  });

  test('leaves a system alone that hostctl did not deploy', () => {
    expect(generated('root=/dev/sda1', 'x+2-1.conf')).toEqual({});
  });

  test.each([
    ['', 'yes', []],
    ['', 'no', ON_HOST],
    ['.7', 'yes', []],
    ['.8', 'yes', ON_HOST],
  ])('leaves a deployment alone that was given up (state%s of one, failed = %s)', (suffix, failed, expected) => {
    const name = suffix === '' ? sandbox.digest : `${sandbox.digest}.7`;
    mkdirSync(join(sandbox.physical, 'state/hostctl'), { recursive: true });
    writeFileSync(join(sandbox.physical, `state/hostctl/trial-${name}`), `[trial]\nattempts = 4\nfailed = ${failed}\n`);
    const state = suffix === '' ? '' : `hostctl.state=${sandbox.digest}${suffix}`;
    expect(Object.keys(generated(`composefs=${sandbox.digest} ${state}`, 'x+0-4.conf')).sort()).toEqual(expected);
  });
});
