/** Completion as somebody at a terminal meets it: each shell in a terminal of its own, keys sent to it. */

import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { projectPath } from '../../scripts/lib/project.ts';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { missingPrograms } from '../helpers/requires.ts';
import { PROGRAM } from '../helpers/run-program.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { scratchSysroot } from '../helpers/scratch-sysroot.ts';

const missing = missingPrograms('tmux', 'bash', 'zsh', 'fish');
if (missing.length > 0) console.error(`Skipping shell completion: ${missing.join(', ')} missing`);

const DEADLINE_MS = 60_000;

/** How each shell is started with nothing of the machine's own, reading the script that the package installs. */
const SHELLS: Readonly<
  Record<string, (start: string) => { readonly file: string; readonly text: string; words: string[] }>
> = {
  bash: (start) => ({
    file: `${start}/bashrc`,
    text: `. /usr/share/bash-completion/bash_completion
. ${projectPath('completion/hostctl.bash')}
bind 'set show-all-if-ambiguous on'
bind 'set bell-style none'
PS1='ready> '`,
    words: ['bash', '--noprofile', '--rcfile', `${start}/bashrc`, '-i'],
  }),
  zsh: (start) => ({
    file: `${start}/.zshrc`,
    text: `fpath=(${projectPath('completion')} $fpath)
autoload -Uz compinit
compinit -u -d ${start}/dump
unsetopt beep
PROMPT='ready> '`,
    words: ['zsh', '--no-global-rcs', '-i'],
  }),
  fish: (start) => ({
    file: `${start}/fish/config.fish`,
    text: `source ${projectPath('completion/hostctl.fish')}
set -g fish_greeting
function fish_prompt; echo -n 'ready> '; end`,
    words: ['fish', '--interactive'],
  }),
};

interface Terminal {
  /** Types text and presses tab until the screen shows what is expected. */
  readonly complete: (text: string, expected: RegExp) => Promise<string>;
}

async function terminal(shell: string): Promise<Terminal> {
  const start = scratchDir();
  const { file, text, words } = SHELLS[shell]!(start);
  mkdirSync(`${start}/bin`);
  mkdirSync(`${start}/fish`);
  // Where it is missing, fish begins to read all manual pages.
  mkdirSync(`${start}/.local/share/fish/generated_completions`, { recursive: true });
  writeFileSync(`${start}/bin/hostctl`, `#!/bin/sh\nexec ${process.execPath} ${PROGRAM} "$@"\n`);
  chmodSync(`${start}/bin/hostctl`, 0o755);
  writeFileSync(file, `${text}\n`);
  const tmux = (...args: string[]): string =>
    execFileSync('tmux', ['-S', `${start}/socket`, '-f', '/dev/null', ...args], { encoding: 'utf8' });
  const env = [
    `PATH=${start}/bin:${process.env.PATH}`,
    `HOME=${start}`,
    `ZDOTDIR=${start}`,
    `XDG_CONFIG_HOME=${start}`,
  ];
  tmux('new-session', '-d', '-x', '160', '-y', '50', '-c', start, 'env', ...env, 'LC_ALL=C.UTF-8', ...words);
  onTestFinished(() => void tmux('kill-server'));
  const screen = (): string => tmux('capture-pane', '-p').trimEnd();
  /** @param keys - pressed again and again: a shell that is still at work loses them */
  const wait = async (expected: RegExp, keys: readonly string[] = []): Promise<string> => {
    for (const end = Date.now() + DEADLINE_MS; Date.now() < end; await setTimeout(100)) {
      if (expected.test(screen())) return screen();
      if (keys.length > 0) tmux('send-keys', ...keys);
    }
    throw new Error(`${String(expected)} never came:\n${screen()}`);
  };
  await wait(/ready>/);
  return {
    async complete(typed, expected) {
      tmux('send-keys', '-l', typed);
      await wait(new RegExp(typed.trimEnd().replace(/[.*+?^${}()|[\]\\]/g, '\\$&')));
      tmux('send-keys', 'Tab');
      const shown = await wait(expected);
      // A fresh line on an empty screen for the next one.
      await wait(/^ready>$/, ['C-u', 'C-l']);
      return shown;
    },
  };
}

describe.skipIf(missing.length > 0).each(Object.keys(SHELLS))('%s', (shell) => {
  test('completes verbs, options, values, deployments and images', async () => {
    const sysroot = scratchSysroot();
    const layout = bootableLayout();
    const { digest } = await sysroot.deploy(layout.reference);
    const { complete } = await terminal(shell);
    await complete('hostctl rollb', /ready> hostctl rollback/);
    await complete('hostctl install to-f', /ready> hostctl install to-filesystem/);
    await complete('hostctl upgrade --unch', /ready> hostctl upgrade --unchanged-exit-77/);
    await complete('hostctl status --format y', /ready> hostctl status --format yaml/);
    const verbs = await complete('hostctl u', /usr-overlay/);
    for (const verb of ['unpin', 'unstage', 'upgrade']) expect(verbs).toContain(verb);
    await complete(`hostctl --sysroot ${sysroot.path} pin `, /pin 1\b/);
    await complete(`hostctl --sysroot ${sysroot.path} image ls ${digest.slice(0, 8)}`, new RegExp(digest.slice(0, 40)));
    const beginning = layout.reference.slice(0, -3);
    await complete(`hostctl --sysroot ${sysroot.path} switch ${beginning}`, new RegExp(`switch ${layout.reference}`));
    writeFileSync(`${sysroot.path}/only-file`, '');
    await complete(`hostctl install to-disk ${sysroot.path}/only`, /only-file/);
  });
});
