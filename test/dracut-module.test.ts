import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { commandsOf } from './helpers/shell-commands.ts';

const text = (path: string): string => readFileSync(new URL(`../${path}`, import.meta.url), 'utf8');
const read = (name: string): string => text(`dracut/50hostctl/${name}`);
const hook = read('hostctl-root.sh');
const module = read('module-setup.sh');
/** Everything of ours that runs in the initramfs; what one sources the others may call. */
const scripts = [hook, ...['hostctl-counter.sh', 'hostctl-emergency.sh'].map(read), text('systemd/hostctl-generator')];
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
  expect([hook, text('systemd/hostctl-generator')].map((script) => script.split('\n')[0])).toEqual([
    '#!/bin/sh',
    '#!/bin/sh',
  ]);
  expect(installed).toContain('sh');
});

test('The initramfs cannot go on where the root hook failed', () => {
  expect(module).toContain('add-requires initrd-root-fs.target hostctl-root.service');
  expect(read('hostctl-root.service')).toMatch(/^OnFailure=emergency\.target\nOnFailureJobMode=replace-irreversibly$/m);
});
