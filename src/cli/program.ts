/** The command line: global options, verbs, and what an error becomes. Verbs load what they need when they run. */

import yargs, { type Argv } from 'yargs';
import { HostctlError } from '../errors.ts';
import { checkBootCommand, countBootCommand, markFailedCommand, markGoodCommand } from './commands/assess-boot.ts';
import { composefsCommand, fsverityCommand } from './commands/composefs.ts';
import { deployCommand } from './commands/deploy.ts';
import { finalizeStagedCommand } from './commands/finalize-staged.ts';
import { historyCommand } from './commands/history.ts';
import { configDiffCommand, diffCommand } from './commands/diff.ts';
import { fsckCommand } from './commands/fsck.ts';
import { deleteCommand, gcCommand } from './commands/gc.ts';
import { imageCommand } from './commands/image.ts';
import { installCommand } from './commands/install.ts';
import { kargsCommand } from './commands/kargs.ts';
import { pinCommand, unpinCommand } from './commands/pin.ts';
import { reportCommand } from './commands/report.ts';
import { rollbackCommand } from './commands/rollback.ts';
import { statusCommand } from './commands/status.ts';
import { unstageCommand } from './commands/unstage.ts';
import { switchCommand, upgradeCommand } from './commands/upgrade.ts';
import { usrOverlayCommand } from './commands/usr-overlay.ts';
import type { Restart } from '../ops/writable.ts';
import { restartInPrivateMounts } from '../sys/restart.ts';
import { loadYaml, type GlobalOptions } from './context.ts';
import { reportError } from './report-error.ts';
import { version } from './version.ts';

/** What the shells' completion scripts call us with, and the words so far behind it. */
const COMPLETION_FLAG = '--get-completions';

/** Runs one command and returns its exit status. */
export async function runCli(args: readonly string[], signal: AbortSignal): Promise<number> {
  let exitCode = 0;
  const setExitCode = (code: number): void => {
    exitCode = code;
  };
  const run: Run = { signal, setExitCode, ...restartInPrivateMounts(args, signal) };
  if (args[0] === COMPLETION_FLAG) {
    const { complete } = await import('./complete.ts');
    await complete(args.slice(1), (argv) => defineProgram(argv, run), signal);
    return exitCode;
  }
  // What the options said, for the form of an error that comes before they are parsed.
  const json =
    args.includes('--json') ||
    args.some((arg, at) => arg === '--format=json' || (args[at - 1] === '--format' && arg === 'json'));
  try {
    await defineProgram(withoutUnusedHelp(yargs()), run).parseAsync([...args]);
  } catch (error) {
    const report = reportError(error, { json, debug: args.includes('--debug') });
    process.stderr.write(report.text);
    return report.exitCode;
  }
  return exitCode;
}

/**
 * yargs puts the text of the help together whenever a command has been started, for those who ask for it afterwards,
 * which takes as long as a short command itself. That it does cannot be said by its public interface.
 */
function withoutUnusedHelp(argv: Argv): Argv {
  const usage = (argv as Partial<YargsInternals>).getInternalMethods?.().getUsageInstance?.();
  if (usage !== undefined) usage.cacheHelpMessage = () => undefined;
  return argv;
}

interface YargsInternals {
  getInternalMethods(): { getUsageInstance?(): { cacheHelpMessage: () => void } };
}

/** What a command gets beside its options. */
export interface Run extends Restart {
  readonly signal: AbortSignal;
}

/** Options that may be given several times. */
const REPEATABLE = new Set(['karg', 'file', 'rw', 'append', 'delete', 'replace', 'key', 'digest']);

const TOO_FEW = 'Too few arguments: %s given, %s needed';
/**
 * By yargs' text; the same words in every locale, and some that say more than yargs' own. Where it has forms for one and
 * for more these are an object, which its type leaves out.
 */
const STRINGS = {
  'Did you mean %s?': 'There is no such verb; did you mean "%s"?',
  'Not enough non-option arguments: got %s, need at least %s': { one: TOO_FEW, other: TOO_FEW },
};

/** Says to `argv` what there is: yargs, which then parses it, or something that only wants to know. */
export function defineProgram(argv: Argv, run: Run): Argv<GlobalOptions> {
  return argv
    .scriptName('hostctl')
    .usage('$0 VERB\n\nDeploys bootable container images as one verified root.')
    .option('sysroot', { type: 'string', describe: 'Physical root to work on', requiresArg: true })
    .option('boot', { type: 'string', describe: 'Where boot entries and kernels go', requiresArg: true })
    .option('repo', { type: 'string', describe: 'Object repository (SYSROOT/composefs)', requiresArg: true })
    .option('config', { type: 'string', describe: 'Configuration file to use alone', requiresArg: true })
    .option('json', { type: 'boolean', default: false, describe: 'Same as --format json' })
    .option('format', {
      choices: ['human', 'json', 'yaml'] as const,
      default: 'human' as const,
      describe: 'Form of the result',
    })
    .option('format-version', { choices: [1] as const, default: 1 as const, describe: 'Version of that form' })
    .option('quiet', { type: 'boolean', default: false, describe: 'Only warnings and errors on stderr' })
    .option('debug', { type: 'boolean', default: false, describe: 'Log what is done; stack traces' })
    .option('color', { choices: ['auto', 'always', 'never'] as const, default: 'auto' as const, describe: 'Colours' })
    .option('progress-fd', {
      type: 'number',
      describe: 'Write progress as JSON Lines to this descriptor',
      requiresArg: true,
    })
    .option('wait', {
      type: 'string',
      default: '10',
      describe: 'Seconds to wait for a lock, or "forever"',
      requiresArg: true,
    })
    .middleware(async (argv) => {
      if (argv.json) argv.format = 'json';
      for (const [name, value] of Object.entries(argv)) {
        if (Array.isArray(value) && name !== '_' && !REPEATABLE.has(name)) {
          throw new HostctlError('usage', `--${name} is given more than once`);
        }
      }
      if (argv.format === 'yaml') await loadYaml();
    })
    .command(deployCommand(run))
    .command(upgradeCommand(run))
    .command(switchCommand(run))
    .command(rollbackCommand(run))
    .command(unstageCommand(run))
    .command(statusCommand(run))
    .command(historyCommand(run))
    .command(kargsCommand(run))
    .command(diffCommand(run))
    .command(configDiffCommand(run))
    .command(usrOverlayCommand(run))
    .command(pinCommand(run))
    .command(unpinCommand(run))
    .command(deleteCommand(run))
    .command(gcCommand(run))
    .command(fsckCommand(run))
    .command(reportCommand(run))
    .command(installCommand(run))
    .command(imageCommand(run))
    .command(composefsCommand(run))
    .command(fsverityCommand(run))
    .command(countBootCommand(run))
    .command(checkBootCommand(run))
    .command(markGoodCommand(run))
    .command(markFailedCommand(run))
    .command(finalizeStagedCommand(run))
    .demandCommand(1, 'Name a verb')
    .locale('en')
    .updateStrings(STRINGS as unknown as Record<string, string>)
    .strict()
    .recommendCommands()
    .version(version)
    .help()
    .parserConfiguration({
      'duplicate-arguments-array': true,
      'parse-positional-numbers': false,
      'greedy-arrays': false,
    })
    .exitProcess(false)
    .fail((message: string | undefined, error: Error | undefined) => {
      // Some of yargs' messages have several lines.
      const line = message?.replaceAll(/\s*\n\s*/g, ' ') ?? 'Wrong usage';
      throw error ?? new HostctlError('usage', line, { hint: 'See "hostctl --help"' });
    });
}
