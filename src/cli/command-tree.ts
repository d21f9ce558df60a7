/**
 * What verbs, options and arguments there are, as a plain value, for shell completion and manual pages. It is read off
 * the same definitions that yargs parses by, by running them on a recorder: there is no second list.
 */

import type { Argv, CommandModule } from 'yargs';

export interface OptionSpec {
  readonly name: string;
  readonly alias: string | undefined;
  readonly describe: string;
  /** How many words follow it: none for a switch. */
  readonly values: number;
  readonly isRepeatable: boolean;
  readonly choices: readonly string[];
  /** As one would type it; undefined where leaving it out means nothing at all. */
  readonly default: string | undefined;
}

export interface ArgumentSpec {
  readonly name: string;
  readonly describe: string;
  readonly isOptional: boolean;
  readonly isRepeatable: boolean;
}

export interface VerbSpec {
  readonly name: string;
  readonly describe: string;
  readonly options: readonly OptionSpec[];
  readonly arguments: readonly ArgumentSpec[];
  readonly verbs: readonly VerbSpec[];
}

type Define = (argv: Argv) => unknown;

/** What the definition of an option says, as far as we use yargs. */
interface Definition {
  readonly type?: 'boolean' | 'string' | 'number';
  readonly alias?: string;
  readonly describe?: string;
  readonly array?: boolean;
  readonly nargs?: number;
  readonly choices?: readonly (string | number)[];
  readonly default?: unknown;
}

/** The whole program, as a verb without a name. */
export function recordProgram(define: Define): VerbSpec {
  return record('', '', define);
}

function record(usage: string, describe: string, define: Define | undefined): VerbSpec {
  const options: OptionSpec[] = [];
  const verbs: VerbSpec[] = [];
  const described = new Map<string, string>();
  const recorder: object = new Proxy(
    {},
    {
      get: (_, method) => {
        return (...args: unknown[]): object => {
          const [first, second] = args as [string, Definition];
          if (method === 'option') options.push(optionSpec(first, second));
          if (method === 'positional') described.set(first, second.describe ?? '');
          if (method === 'command') verbs.push(recordCommand(args[0] as CommandModule));
          return recorder;
        };
      },
    },
  );
  define?.(recorder as Argv);
  const [name = '', ...words] = usage.split(' ');
  const positionals = words.map((word) => argumentSpec(word, described));
  return { name, describe, options, arguments: positionals, verbs };
}

function recordCommand({ command, describe, builder }: CommandModule): VerbSpec {
  const define = typeof builder === 'function' ? (builder as Define) : undefined;
  return record(String(command), String(describe), define);
}

function optionSpec(name: string, definition: Definition): OptionSpec {
  const { alias, describe = '', type, array = false, nargs = 1, choices = [], default: value } = definition;
  return {
    name,
    alias,
    describe,
    values: type === 'boolean' ? 0 : nargs,
    isRepeatable: array,
    choices: choices.map(String),
    default: typeof value === 'string' || typeof value === 'number' ? String(value) : undefined,
  };
}

/** `<name>`, `[name]`, `<name..>` */
function argumentSpec(word: string, described: ReadonlyMap<string, string>): ArgumentSpec {
  const name = word.replace(/[<>[\].]/g, '');
  return {
    name,
    describe: described.get(name) ?? '',
    isOptional: word.startsWith('['),
    isRepeatable: word.includes('..'),
  };
}
