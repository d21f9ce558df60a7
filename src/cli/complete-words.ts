/**
 * What a shell may offer for the last word of a command line. Pure: what there is on the host comes in by `Sources`,
 * and is asked for only where it is offered.
 */

import type { ArgumentSpec, OptionSpec, VerbSpec } from './command-tree.ts';

export interface Candidate {
  readonly value: string;
  readonly describe: string;
}

/** What words can be that are not in the definitions. */
export interface Sources {
  deployments(): Promise<readonly Candidate[]>;
  /** Digests and names in the repository. */
  images(): Promise<readonly Candidate[]>;
  /** References that deployments track. */
  references(): Promise<readonly Candidate[]>;
  /** What there is in the file system that begins so; directories end in `/`. */
  paths(beginning: string): readonly string[];
}

export interface Completion {
  readonly candidates: readonly Candidate[];
  /** Whether the shell shall offer names of files as well. */
  readonly files: boolean;
}

const NOTHING: Completion = { candidates: [], files: false };

type Kind = 'deployment' | 'image' | 'deployment or image' | 'reference' | 'file' | 'text';

/** By `verb argument` or `verb --option`; what is not here is free text. */
const KINDS: Readonly<Record<string, Kind>> = {
  'deploy image': 'reference',
  'switch image': 'reference',
  'rollback --to': 'deployment',
  'pin id': 'deployment',
  'unpin id': 'deployment',
  'delete id': 'deployment',
  'config-diff id': 'deployment',
  'diff from': 'deployment or image',
  'diff to': 'deployment or image',
  'install to-disk target': 'file',
  'install to-disk image': 'reference',
  'install to-filesystem root': 'file',
  'install to-filesystem image': 'reference',
  'image pull image': 'reference',
  'image digest image': 'reference',
  'image lint image': 'reference',
  'image dump image': 'image',
  'image inspect image': 'image',
  'image ls image': 'image',
  'image cat image': 'image',
  'image mount image': 'image',
  'image remove name': 'image',
  'image mount directory': 'file',
  'image umount directory': 'file',
};
/** Wherever they stand. */
const FILE_OPTIONS = new Set(['sysroot', 'boot', 'repo', 'config', 'rw', 'digest-store', 'root-ssh-authorized-keys']);
const FILE_VERBS = new Set(['composefs', 'fsverity']);

/** How image references begin. */
const TRANSPORTS: readonly Candidate[] = [{ value: 'oci:', describe: 'OCI layout in a directory' }];
const PATH_REFERENCE = /^(oci:)([^:]*)$/;

/** The verb that the words have got to, and what is still open there. */
interface Position {
  readonly path: readonly string[];
  readonly verb: VerbSpec;
  /** Options that are known here: the verb's and those of the verbs before it. */
  readonly options: readonly OptionSpec[];
  readonly given: ReadonlySet<string>;
  readonly argumentsGiven: number;
  /** The option whose value the last word is. */
  readonly pending: OptionSpec | undefined;
  readonly isLiteral: boolean;
}

/** @param words - behind the program's name; the last one, which may be empty, is to be completed */
export async function completeWords(
  program: VerbSpec,
  words: readonly string[],
  sources: Sources,
): Promise<Completion> {
  const position = follow(program, words.slice(0, -1));
  const current = words.at(-1) ?? '';
  const { pending, verb, path, argumentsGiven } = position;
  if (pending !== undefined) return matching(current, await valuesOf(path, pending, current, sources));
  if (current.startsWith('-') && !position.isLiteral) return completeOption(position, current, sources);
  if (verb.verbs.length > 0) {
    return matching(current, {
      candidates: verb.verbs.map(({ name, describe }) => ({ value: name, describe })),
      files: false,
    });
  }
  const last = verb.arguments.at(-1);
  const argument = verb.arguments[argumentsGiven] ?? (last?.isRepeatable ? last : undefined);
  return argument === undefined ? NOTHING : matching(current, await argumentValues(path, argument, current, sources));
}

function follow(program: VerbSpec, words: readonly string[]): Position {
  const path: string[] = [];
  let verb = program;
  let options = program.options;
  const given = new Set<string>();
  let argumentsGiven = 0;
  let pending: OptionSpec | undefined;
  let open = 0;
  let isLiteral = false;
  for (const word of words) {
    if (open > 0) {
      open -= 1;
      continue;
    }
    pending = undefined;
    if (word === '--') isLiteral = true;
    else if (word.startsWith('-') && !isLiteral) {
      const [flag = ''] = word.split('=', 1);
      const option = options.find((one) => isCalled(one, flag));
      if (option === undefined) continue;
      given.add(option.name);
      if (option.values === 0 || word.includes('=')) continue;
      pending = option;
      open = option.values;
    } else {
      const next = verb.verbs.find(({ name }) => name === word);
      if (next === undefined) argumentsGiven += 1;
      else {
        path.push(word);
        verb = next;
        options = [...next.options, ...options];
      }
    }
  }
  return { path, verb, options, given, argumentsGiven, pending: open > 0 ? pending : undefined, isLiteral };
}

function isCalled({ name, alias }: OptionSpec, flag: string): boolean {
  return flag === `--${name}` || (alias !== undefined && flag === `-${alias}`);
}

async function completeOption(
  { path, options, given }: Position,
  current: string,
  sources: Sources,
): Promise<Completion> {
  const equals = current.indexOf('=');
  if (equals > 0) {
    const flag = current.slice(0, equals);
    const option = options.find((one) => isCalled(one, flag));
    if (option === undefined || option.values !== 1) return NOTHING;
    const value = current.slice(equals + 1);
    const { candidates } = matching(value, await valuesOf(path, option, value, sources));
    return {
      candidates: candidates.map((one) => ({ ...one, value: `${flag}=${one.value}` })),
      files: false,
    };
  }
  const open = options.filter(({ name, isRepeatable }) => isRepeatable || !given.has(name));
  return matching(current, {
    candidates: [...open.map(({ name, describe }) => ({ value: `--${name}`, describe })), HELP],
    files: false,
  });
}

const HELP: Candidate = { value: '--help', describe: 'Show help' };

async function valuesOf(
  path: readonly string[],
  option: OptionSpec,
  current: string,
  sources: Sources,
): Promise<Completion> {
  if (option.choices.length > 0) {
    return { candidates: option.choices.map((value) => ({ value, describe: '' })), files: false };
  }
  if (FILE_OPTIONS.has(option.name)) return { candidates: [], files: true };
  return ofKind(KINDS[[...path, `--${option.name}`].join(' ')] ?? 'text', current, sources);
}

async function argumentValues(
  path: readonly string[],
  { name }: ArgumentSpec,
  current: string,
  sources: Sources,
): Promise<Completion> {
  if (FILE_VERBS.has(path[0] ?? '')) return { candidates: [], files: true };
  return ofKind(KINDS[[...path, name].join(' ')] ?? 'text', current, sources);
}

async function ofKind(kind: Kind, current: string, sources: Sources): Promise<Completion> {
  switch (kind) {
    case 'deployment':
      return { candidates: await sources.deployments(), files: false };
    case 'image':
      return { candidates: await sources.images(), files: false };
    case 'deployment or image':
      return { candidates: [...(await sources.deployments()), ...(await sources.images())], files: false };
    case 'reference':
      return { candidates: await referencesTo(current, sources), files: false };
    case 'file':
      return { candidates: [], files: true };
    case 'text':
      return NOTHING;
  }
}

async function referencesTo(current: string, sources: Sources): Promise<Candidate[]> {
  const [, transport = '', path] = PATH_REFERENCE.exec(current) ?? [];
  const paths = path === undefined ? [] : sources.paths(path);
  return [
    ...(await sources.references()),
    ...TRANSPORTS,
    ...paths.map((name) => ({ value: transport + name, describe: '' })),
  ];
}

function matching(current: string, { candidates, files }: Completion): Completion {
  return { candidates: candidates.filter(({ value }) => value.startsWith(current)), files };
}
