import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { commandsOf } from './helpers/shell-commands.ts';

const read = (name: string): string => readFileSync(new URL(`../dracut/50hostctl/${name}`, import.meta.url), 'utf8');
const hook = read('hostctl-root.sh');
const module = read('module-setup.sh');

const installed = /inst_multiple (.*)/.exec(module)?.[1]?.split(' ') ?? [];

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

test('Every program the root hook calls is installed into the initramfs, and nothing else', () => {
  expect(commandsOf(hook)).toEqual([...installed].filter((name) => name !== 'sh').sort());
});

test('The root hook runs with the shell that the module installs', () => {
  expect(hook.split('\n')[0]).toBe('#!/bin/sh');
  expect(installed).toContain('sh');
});

test('The initramfs cannot go on where the root hook failed', () => {
  expect(module).toContain('add-requires initrd-root-fs.target hostctl-root.service');
  expect(read('hostctl-root.service')).toMatch(/^OnFailure=emergency\.target\nOnFailureJobMode=replace-irreversibly$/m);
});
