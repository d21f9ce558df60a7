/**
 * SELinux file contexts: which label a path gets. Rules are tried as composefs-rs does, since the digest of an image
 * depends on it: the last matching one wins, in plain order of the files. Paths and labels are bytes (latin1).
 */

import { HostctlError } from '../../errors.ts';
import { withContext } from '../error-context.ts';
import type { RawName } from '../../tree/name.ts';
import { translatePattern } from './pattern.ts';

/** How a rule names the type of a file. */
export type TypeLetter = 'b' | 'c' | 'd' | 'p' | 'l' | 's' | '-';

interface Rule {
  readonly order: number;
  readonly type: TypeLetter | undefined;
  /** Undefined for `<<none>>`. */
  readonly label: RawName | undefined;
  readonly literalPrefix: string;
  readonly source: string;
  compiled?: RegExp;
}

const MAX_RULES = 100_000;

/** Answers for one policy. Rules are indexed by the directory that all their matches lie in. */
export class FileContexts {
  /** Rules that match one path only, by path, and all others by literal directory; each list in order. */
  readonly #exact = new Map<string, Rule[]>();
  readonly #byDirectory = new Map<string, Rule[]>();
  #count = 0;

  /** Adds a file of rules; later rules win over earlier ones. `what` names it in messages. */
  add(text: string, what: string): void {
    for (const [i, line] of text.split('\n').entries()) {
      try {
        this.#addLine(line);
      } catch (error) {
        throw withContext(`${what}: line ${i + 1}`, error);
      }
    }
  }

  /** The label of a file, or undefined if it shall have none. */
  lookup(path: RawName, type: TypeLetter): RawName | undefined {
    let best: Rule | undefined;
    const consider = (rules: readonly Rule[] | undefined, isExact: boolean): void => {
      if (rules === undefined) return;
      for (let i = rules.length - 1; i >= 0; i--) {
        const rule = rules[i]!;
        if (best !== undefined && rule.order < best.order) return;
        if (rule.type !== undefined && rule.type !== type) continue;
        if (!isExact && (!path.startsWith(rule.literalPrefix) || !matches(rule, path))) continue;
        best = rule;
        return;
      }
    };
    consider(this.#exact.get(path), true);
    consider(this.#byDirectory.get(''), false);
    for (let slash = path.indexOf('/'); slash !== -1; slash = path.indexOf('/', slash + 1)) {
      consider(this.#byDirectory.get(path.slice(0, slash + 1)), false);
    }
    return best?.label;
  }

  #addLine(line: string): void {
    const fields = line.split(/[ \t\v\f\r]+/).filter((field) => field !== '');
    if (fields.length === 0 || fields[0]!.startsWith('#')) return;
    const [pattern, ...rest] = fields;
    const label = rest.pop();
    const type = rest.pop();
    if (label === undefined || rest.length > 0) {
      throw new HostctlError('image-invalid', `Rule has ${fields.length} fields instead of 2 or 3`);
    }
    if (type !== undefined && !/^-[bcdpls-]$/.test(type)) {
      throw new HostctlError('image-invalid', `Rule has the unknown file type ${JSON.stringify(type)}`);
    }
    if (++this.#count > MAX_RULES)
      throw new HostctlError('image-unsupported', `Policy has more than ${MAX_RULES} rules`);
    const { source, literalPrefix, isLiteral } = translatePattern(pattern!);
    const rule: Rule = {
      order: this.#count,
      type: type?.[1] as TypeLetter | undefined,
      label: label === '<<none>>' ? undefined : (label as RawName),
      literalPrefix,
      source,
    };
    const index = isLiteral ? this.#exact : this.#byDirectory;
    const key = isLiteral ? literalPrefix : literalPrefix.slice(0, literalPrefix.lastIndexOf('/') + 1);
    const rules = index.get(key);
    if (rules === undefined) index.set(key, [rule]);
    else rules.push(rule);
  }
}

function matches(rule: Rule, path: string): boolean {
  rule.compiled ??= new RegExp(`^(?:${rule.source})$`);
  return rule.compiled.test(path);
}

/** Reads a file of `ALIAS ORIGINAL` pairs into `aliases`; a later line for the same alias wins. */
export function addSubstitutions(aliases: Map<string, string>, text: string, what: string): void {
  for (const [i, line] of text.split('\n').entries()) {
    const fields = line.split(/[ \t\v\f\r]+/).filter((field) => field !== '');
    if (fields.length === 0 || fields[0]!.startsWith('#')) continue;
    const [alias, original] = fields;
    if (fields.length !== 2)
      throw new HostctlError('image-invalid', `${what}: line ${i + 1} has ${fields.length} fields instead of 2`);
    aliases.set(alias!, original!);
  }
}

/** The policy that `/etc/selinux/config` names, or undefined if it names none. */
export function parseSelinuxType(config: string): string | undefined {
  for (const line of config.split('\n')) {
    const equals = line.indexOf('=');
    if (equals !== -1 && line.slice(0, equals).trim().toUpperCase() === 'SELINUXTYPE')
      return line.slice(equals + 1).trim();
  }
  return undefined;
}
