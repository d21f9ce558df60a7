import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { HookSandbox, type HookRun, reasonNoHook } from '../helpers/hook-sandbox.ts';
import { BOOT_CONFIGS, CONF } from '../helpers/boot-configs.ts';

const reason = reasonNoHook();
if (reason !== undefined) console.error(`Skipping the root hook's tests: ${reason}`);

const DIRECTORIES = ['etc', 'var', 'sysroot', 'usr', 'dev'];

let sandbox: HookSandbox | undefined;
afterEach(() => sandbox?.remove());

function sandboxWith(files: Readonly<Record<string, string>>): HookSandbox {
  sandbox = new HookSandbox('sha512', DIRECTORIES, { 'etc/name': 'of the image\n', 'var/name': 'image\n', ...files });
  return sandbox;
}

/** The mounts below /sysroot as `point type source options`, the disk's and the image's names made the same. */
function mountsOf(run: HookRun): string[] {
  return run.mounts
    .filter((line) => /^\/(sysroot|run\/hostctl)| erofs |hostctl-volatile/.test(line))
    .map((line) => line.replace(/composefs:\w+/, 'IMAGE').replace(/ \/dev\/\S+/, ' DISK'));
}

const SYSROOT = '/sysroot/sysroot ext4 DISK ro,relatime';
const ROOT = '/sysroot overlay IMAGE ro,relatime';
const ETC = '/sysroot/etc ext4 DISK rw,relatime';
const VAR = '/sysroot/var ext4 DISK rw,relatime';

interface Places {
  readonly name: string;
  readonly conf?: string;
  readonly cmdline?: string;
  readonly mounts: readonly string[];
  /** Which of /etc, /var, /usr and / take a new file. */
  readonly writable: readonly string[];
  /** Whose /etc and /var it is. */
  readonly etc: 'deployment' | 'image';
  readonly var: 'shared' | 'image';
}

const places: Places[] = [
  {
    name: 'no configuration',
    mounts: [SYSROOT, ROOT, ETC, VAR],
    writable: ['etc', 'var'],
    etc: 'deployment',
    var: 'shared',
  },
  {
    name: 'a transient /etc',
    conf: '[etc]\nmode = transient\n',
    mounts: [SYSROOT, ROOT, '/sysroot/etc overlay IMAGE rw,relatime', VAR],
    writable: ['etc', 'var'],
    etc: 'image',
    var: 'shared',
  },
  {
    name: 'a transient root',
    conf: '[root]\nmode=transient\n',
    mounts: [SYSROOT, '/sysroot overlay IMAGE rw,relatime', ETC, VAR],
    writable: ['etc', 'var', 'usr', '.'],
    etc: 'deployment',
    var: 'shared',
  },
  {
    name: 'everything transient but /var',
    conf: '[root]\nmode=transient\n[etc]\nmode=transient\n',
    mounts: [SYSROOT, '/sysroot overlay IMAGE rw,relatime', VAR],
    writable: ['etc', 'var', 'usr', '.'],
    etc: 'image',
    var: 'shared',
  },
  {
    name: 'a /var that the host mounts',
    conf: '[var]\nmode=mount\n',
    mounts: [SYSROOT, ROOT, ETC],
    writable: ['etc'],
    etc: 'deployment',
    var: 'image',
  },
  ...['systemd.volatile', 'systemd.volatile=yes', 'systemd.volatile=state', 'systemd.volatile=overlay'].map(
    (cmdline): Places => ({
      name: `${cmdline} on the command line`,
      cmdline,
      mounts: [SYSROOT, ROOT, ETC],
      writable: ['etc'],
      etc: 'deployment',
      var: 'image',
    }),
  ),
  ...['systemd.volatile=no', 'systemd.volatile=state systemd.volatile=0', 'systemd.volatile=', 'xsystemd.volatile'].map(
    (cmdline): Places => ({
      name: `${cmdline} on the command line`,
      cmdline,
      mounts: [SYSROOT, ROOT, ETC, VAR],
      writable: ['etc', 'var'],
      etc: 'deployment',
      var: 'shared',
    }),
  ),
];

describe.skipIf(reason !== undefined)('The root hook makes writable what the image says, with', () => {
  test.each(places)('$name', ({ conf, cmdline = '', mounts, writable, etc, var: var_ }) => {
    const { digest, run } = bound(sandboxWith(conf === undefined ? {} : { [CONF]: conf }));
    const result = run(`composefs=${digest} ${cmdline}`, {
      probes: [
        ...['etc', 'var', 'usr', '.'].map((name) => `touch /sysroot/${name}/new && echo written`),
        'cat /sysroot/etc/name',
        'ls /sysroot/var',
        'stat -c "%a %u" /sysroot /sysroot/etc',
      ],
    });
    expect({ stderr: result.stderr, status: result.status }).toEqual({ stderr: '', status: 0 });
    expect(mountsOf(result)).toEqual(mounts);
    const tried = ['etc', 'var', 'usr', '.'].filter((_, at) => result.probes[at] === 'written\n');
    expect(tried).toEqual(writable);
    expect(result.probes.slice(4)).toEqual([
      etc === 'image' ? 'of the image\n' : `${digest}\n`,
      var_ === 'image' ? 'name\n' : 'kept\nnew\n',
      '755 0\n755 0\n',
    ]);
  });

  test('verity required of every layer, also of the transient one', () => {
    const { digest, run } = bound(sandboxWith({ [CONF]: '[root]\nmode=transient\n[etc]\nmode=transient\n' }));
    const result = run(`composefs=${digest}`);
    expect(result.overlayOptions).toMatch(/verity=require/);
  });

  test('nothing of a transient place left in the deployment', () => {
    const used = sandboxWith({ [CONF]: '[etc]\nmode=transient\n' });
    used.run(`composefs=${used.digest}`, { probes: ['echo lost >/sysroot/etc/name', 'echo lost >/sysroot/etc/new'] });
    const after = used.run(`composefs=${used.digest}`, {
      probes: ['cat /sysroot/etc/name', 'ls /sysroot/etc', `ls /sysroot/sysroot/state/deploy/${used.digest}/etc`],
    });
    expect(after.probes).toEqual(['of the image\n', 'name\n', 'name\n']);
  });

  test('/var left alone where the host mounts it, also when the shared one is missing', () => {
    const used = sandboxWith({ [CONF]: '[var]\nmode=mount\n' });
    rmSync(join(used.physical, 'state/os'), { recursive: true });
    expect(used.run(`composefs=${used.digest}`).status).toBe(0);
  });
});

/** Methods of a sandbox as functions. */
function bound(used: HookSandbox): { digest: string; run: HookSandbox['run'] } {
  return { digest: used.digest, run: used.run.bind(used) };
}

describe.skipIf(reason !== undefined)('The root hook reads hostctl.conf as the deploying side does:', () => {
  test.each(BOOT_CONFIGS)('$name', ({ files, expected }) => {
    const used = sandboxWith(files);
    const run = used.run(`composefs=${used.digest}`, { probes: ['cat /sysroot/etc/name', 'ls /sysroot/var'] });
    if (expected === 'refused') {
      expect(run.status).toBe(1);
      expect(run.stderr).toMatch(/^hostctl: Refusing to boot: .*\(config-invalid\)\n$/);
      expect(used.failure(`boot-failure-${used.digest}`)).toMatch(/\nreason=config-invalid\n/);
      return;
    }
    expect(run.stderr).toBe('');
    const points = run.mounts.filter((line) => /^\/sysroot/.test(line)).map((line) => line.split(' '));
    const root = points.find(([point]) => point === '/sysroot');
    expect({
      etc: run.probes[0] === 'of the image\n' ? 'transient' : 'persistent',
      root: root?.at(-1)?.startsWith('rw') ? 'transient' : 'read-only',
      var: points.some(([point]) => point === '/sysroot/var') ? 'shared' : 'mount',
    }).toEqual({ etc: 'persistent', root: 'read-only', var: 'shared', ...expected });
  });
});
