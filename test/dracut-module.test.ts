import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { scratchDir } from './helpers/scratch-dir.ts';
import { commandsOf } from './helpers/shell-commands.ts';

const text = (path: string): string => readFileSync(new URL(`../${path}`, import.meta.url), 'utf8');
const read = (name: string): string => text(`dracut/50hostctl/${name}`);
const hook = read('hostctl-root.sh');
const module = read('module-setup.sh');
/** Everything of ours that runs in the initramfs; what one sources the others may call. */
const scripts = [
  hook,
  ...['hostctl-counter.sh', 'hostctl-emergency.sh', 'hostctl-waiting.sh'].map(read),
  text('systemd/hostctl-generator'),
];
/** Functions of dracut, in what dracut sources. */
const DRACUTS = ['getargbool'];

const installed = [...module.matchAll(/inst_multiple ([a-z ]+)$/gm)].flatMap((match) => match[1]?.split(' ') ?? []);

test('The programs of a script are found wherever a command can stand', () => {
  const script = `#!/bin/sh
# rm is not called
own() {
    ls
}
if ! error=$(mount -o x "$(stat -c %i y)" 2>&1); then sync; fi
case $1 in
cat | cp) own && mkdir z || exit ;;
esac
value=tail command exec 3<"grep"
read -r line <<END
rmdir
END
`;
  expect(commandsOf(script)).toEqual(['ls', 'mkdir', 'mount', 'stat', 'sync']);
});

test('Every program that a script calls is installed into the initramfs, and nothing else', () => {
  const called = commandsOf(scripts.join('\n')).filter((name) => !DRACUTS.includes(name));
  expect(called).toEqual([...installed].filter((name) => name !== 'sh').sort());
});

test('The scripts run with the shell that the module installs', () => {
  const programs = [hook, read('hostctl-waiting.sh'), text('systemd/hostctl-generator')];
  expect(programs.map((script) => script.split('\n')[0])).toEqual(['#!/bin/sh', '#!/bin/sh', '#!/bin/sh']);
  expect(installed).toContain('sh');
});

test('The initramfs cannot go on where the root hook failed', () => {
  expect(module).toContain('add-requires initrd-root-fs.target hostctl-root.service');
  expect(read('hostctl-root.service')).toMatch(/^OnFailure=emergency\.target\nOnFailureJobMode=replace-irreversibly$/m);
});

/** What the console is told, two minutes into a boot with these jobs. */
function waiting(jobs: string): string {
  const script = new URL('../dracut/50hostctl/hostctl-waiting.sh', import.meta.url).pathname;
  const stubs = `sleep() { :; }; systemctl() { printf '%b' '${jobs}'; }; . "$1"`;
  return spawnSync('sh', ['-c', stubs, 'sh', script], { encoding: 'utf8' }).stdout;
}

test('A boot that waits says for what, and another one nothing', () => {
  const jobs = ['1 initrd.target start waiting', '2 dev-root.device start running', '34 a.service start running'];
  expect(waiting(jobs.map((job) => `  ${job}\\n`).join(''))).toMatch(/there or done: dev-root\.device a\.service\n/);
  expect(waiting('1 initrd.target start waiting\\n')).toBe('');
  expect(waiting('')).toBe('');
  expect(module).toContain('add-wants initrd.target hostctl-waiting.service');
});

test('The root hook is not passed over where the initramfs has keys, or the command line asks for a seal', () => {
  const conditions = read('hostctl-root.service').match(/^Condition.*$/gm);
  expect(conditions).toEqual([
    'ConditionKernelCommandLine=|composefs',
    'ConditionKernelCommandLine=|composefs.digest',
    'ConditionKernelCommandLine=|hostctl.require-seal',
    'ConditionPathExists=|/etc/hostctl/keys.d',
  ]);
});

/** Runs a function of the module with dracut's own replaced by ones that only tell, and `openssl` there or not. */
function dracut(
  call: string,
  root: string,
  hasOpenssl = true,
): { readonly status: number | null; readonly told: string[] } {
  const script = `
    require_binaries() { for name; do [ "$name" != openssl ] || ${hasOpenssl}; done; }
    inst_multiple() { echo "multiple $*"; }
    inst_simple() { echo "simple $1"; }
    inst_script() { :; }
    SYSTEMCTL=true moddir=/m initdir=/i systemdsystemunitdir=/u dracutsysrootdir=$1
    . "$2"
    ${call}`;
  const setup = new URL('../dracut/50hostctl/module-setup.sh', import.meta.url).pathname;
  const { status, stdout } = spawnSync('bash', ['-c', script, 'bash', root, setup], { encoding: 'utf8' });
  return { status, told: stdout.split('\n').filter((line) => /openssl|\/etc\//.test(line)) };
}

test('Keys of the image go into its initramfs with the program that checks by them', () => {
  const root = scratchDir();
  expect(dracut('install', root)).toEqual({ status: 0, told: [] });
  mkdirSync(`${root}/etc/hostctl/keys.d`, { recursive: true });
  writeFileSync(`${root}/etc/hostctl/keys.d/README`, '');
  expect(dracut('install', root)).toEqual({ status: 0, told: [] });
  expect(dracut('check', root, false).status).toBe(0);
  for (const name of ['a', 'b']) writeFileSync(`${root}/etc/hostctl/keys.d/${name}.pub`, '');
  expect(dracut('install', root).told).toEqual([
    'multiple openssl',
    'simple /etc/hostctl/keys.d/a.pub',
    'simple /etc/hostctl/keys.d/b.pub',
    'multiple -o /etc/hostctl/revoked /etc/hostctl/revoked.sig',
  ]);
  expect([dracut('check', root).status, dracut('check', root, false).status]).toEqual([0, 1]);
});
