/**
 * Manual pages: written by hand in `man/NAME.SECTION.in` as roff, with lines that stand for what the program's
 * definitions say, so that a page cannot list an option that is not there or leave one out:
 *
 *   @index          every verb with its one line
 *   @global         the options that every verb has
 *   @verb VERB      heading, usage, arguments and options of a verb; `@verb image` does so for each verb below it
 */

import { readdirSync, readFileSync } from 'node:fs';
import type { ArgumentSpec, OptionSpec, VerbSpec } from '../../src/cli/command-tree.ts';
import { recordedProgram } from './program-tree.ts';
import { projectPath, projectVersion } from './project.ts';

export interface ManualPage {
  /** `hostctl-image.8` */
  readonly file: string;
  readonly section: string;
  readonly roff: string;
  /** Top-level verbs that it describes. */
  readonly verbs: readonly string[];
}

/** Every page. Throws where one names a verb that does not exist. */
export function manualPages(program = recordedProgram()): ManualPage[] {
  return readdirSync(projectPath('man'))
    .filter((name) => name.endsWith('.in'))
    .sort()
    .map((name) => page(name.slice(0, -'.in'.length), readFileSync(projectPath('man', name), 'utf8'), program));
}

function page(file: string, source: string, program: VerbSpec): ManualPage {
  const [, name = '', section = ''] = /^(.+)\.([1-8])$/.exec(file) ?? [];
  const verbs: string[] = [];
  const body = source.split('\n').flatMap((line) => {
    if (!line.startsWith('@')) return line;
    const [directive, verb = ''] = line.split(' ');
    switch (directive) {
      case '@index':
        return program.verbs.flatMap(({ name: of, describe }) => ['.TP', `.B ${text(of)}`, text(describe)]);
      case '@global':
        return program.options.flatMap(optionLines);
      case '@verb': {
        const spec = program.verbs.find((one) => one.name === verb);
        if (spec === undefined) throw new Error(`"${file}" describes "${verb}", which is no verb of hostctl`);
        verbs.push(verb);
        return verbLines([], spec);
      }
      default:
        throw new Error(`"${file}" has a line "${line}" that means nothing`);
    }
  });
  const heading = `.TH ${name.toUpperCase()} ${section} "" "hostctl ${projectVersion()}"`;
  // A paragraph that nothing was written behind is none.
  const lines = [heading, ...body].filter((line, at, all) => line !== '.PP' || !/^\.S[HS]/.test(all[at + 1] ?? ''));
  return { file, section, roff: lines.join('\n'), verbs };
}

function verbLines(above: readonly string[], { name, describe, options, arguments: args, verbs }: VerbSpec): string[] {
  const path = [...above, name];
  if (verbs.length > 0) return verbs.flatMap((verb) => verbLines(path, verb));
  const usage = [`.B hostctl ${path.map(text).join(' ')}`];
  if (options.length > 0) usage.push('.RI [ options ]');
  usage.push(...args.map(usageOf));
  return [
    `.SS ${text(path.join(' '))}`,
    ...usage,
    '.PP',
    `${text(describe)}.`,
    ...args.flatMap((argument) => ['.TP', `.I ${text(argument.name.toUpperCase())}`, `${text(argument.describe)}.`]),
    ...options.flatMap(optionLines),
    '.PP',
  ];
}

function usageOf({ name, isOptional, isRepeatable }: ArgumentSpec): string {
  const word = text(name.toUpperCase());
  const dots = isRepeatable ? '\\|.\\|.\\|.' : '';
  return isOptional ? `.RI [ ${word} ]${dots}` : `.IR ${word} ${dots}`.trimEnd();
}

function optionLines({ name, alias, describe, values, choices, default: value }: OptionSpec): string[] {
  const names = [`\\fB\\-\\-${text(name)}\\fR`, ...(alias === undefined ? [] : [`\\fB\\-${text(alias)}\\fR`])];
  const what = choices.length > 0 ? choices.map(text).join('|') : `\\fI${VALUE}\\fR`;
  const shown = names.map((one) => one + ` ${what}`.repeat(values)).join(', ');
  const isTold = value === undefined || describe.includes(value);
  return ['.TP', shown, `${text(describe)}${isTold ? '' : ` (${text(value)})`}.`];
}

const VALUE = 'VALUE';

/** Text as roff takes it: no escapes, no requests, hyphens that can be copied. */
function text(plain: string): string {
  return plain.replaceAll('\\', '\\e').replaceAll('-', '\\-').replaceAll("'", '\\(aq').replace(/^\./, '\\&.');
}
