/**
 * The regular expressions of SELinux file contexts (PCRE) as JavaScript ones that match the same byte strings. What
 * the two dialects read differently is rewritten; what cannot be, or is unknown here, is refused rather than matched
 * in some other way.
 */

import { HostctlError } from '../../errors.ts';

/** ASCII sets, as PCRE has them without its UCP option; JavaScript's own \s would take 0xa0 as well. */
const SPACE = ' \\t\\n\\v\\f\\r';
const NAMED_SETS: Readonly<Record<string, string>> = {
  alpha: 'A-Za-z',
  digit: '0-9',
  alnum: 'A-Za-z0-9',
  upper: 'A-Z',
  lower: 'a-z',
  space: SPACE,
  blank: ' \\t',
  punct: '!-\\/:-@\\[-`{-~',
  xdigit: '0-9A-Fa-f',
  word: '\\w',
};
const META = /[\\^$.[\]|()?*+{}]/;

/** A pattern ready for use, and what every string it matches begins with. */
export interface ContextPattern {
  /** JavaScript source, to be anchored by the caller. */
  readonly source: string;
  readonly literalPrefix: string;
  /** It matches exactly `literalPrefix` and nothing else. */
  readonly isLiteral: boolean;
}

/** Translates a pattern. Throws 'image-unsupported' for what has no safe translation. */
export function translatePattern(pattern: string): ContextPattern {
  const source = new Translator(pattern).translate();
  try {
    new RegExp(source);
  } catch (cause) {
    throw unsupported(pattern, 'is not understood', cause);
  }
  return { source, ...literalPrefixOf(pattern) };
}

class Translator {
  readonly #pattern: string;
  #at = 0;

  constructor(pattern: string) {
    this.#pattern = pattern;
  }

  translate(): string {
    let source = '';
    while (this.#at < this.#pattern.length) source += this.#element();
    return source;
  }

  #element(): string {
    const char = this.#pattern[this.#at++]!;
    switch (char) {
      case '.':
        // JavaScript's dot leaves out \r too.
        return '[^\\n]';
      case '[':
        return this.#set();
      case '\\':
        return this.#escape(false);
      case '(':
        return this.#group();
      default:
        return char;
    }
  }

  #group(): string {
    if (this.#pattern[this.#at] !== '?') return '(?:';
    const kind = /^\?(?:[:=!]|<[=!])/.exec(this.#pattern.slice(this.#at, this.#at + 3))?.[0];
    if (kind === undefined) throw unsupported(this.#pattern, 'has a group of a kind that is not understood');
    this.#at += kind.length;
    return `(${kind}`;
  }

  #escape(inSet: boolean): string {
    const char = this.#pattern[this.#at++];
    if (char === undefined) throw unsupported(this.#pattern, 'ends with a backslash');
    if (!/[A-Za-z0-9]/.test(char)) return escapeLiteral(char);
    if (char === 's') return inSet ? SPACE : `[${SPACE}]`;
    if (char === 'S' && !inSet) return `[^${SPACE}]`;
    if (/[dDwWtnrfv]/.test(char) || (/[bB]/.test(char) && !inSet)) return `\\${char}`;
    throw unsupported(this.#pattern, `has the escape "\\${char}", which is not understood`);
  }

  #set(): string {
    let source = '[';
    if (this.#pattern[this.#at] === '^') {
      source += '^';
      this.#at++;
    }
    // A "]" that comes first stands for itself.
    const first = this.#at;
    for (;;) {
      const char = this.#pattern[this.#at++];
      if (char === undefined) throw unsupported(this.#pattern, 'has a set without end');
      if (char === ']' && this.#at - 1 > first) return `${source}]`;
      const named = char === '[' ? /^\[:([a-z]+):\]/.exec(this.#pattern.slice(this.#at - 1))?.[1] : undefined;
      if (named !== undefined) {
        const set = NAMED_SETS[named];
        if (set === undefined) throw unsupported(this.#pattern, `has the unknown set "[:${named}:]"`);
        source += set;
        this.#at += named.length + 3;
      } else if (char === '\\') {
        source += this.#escape(true);
      } else {
        source += char === '-' || char === '^' ? char : escapeLiteral(char);
      }
    }
  }
}

function escapeLiteral(char: string): string {
  return META.test(char) || char === '/' || char === '-' ? `\\${char}` : char;
}

/** What the pattern certainly begins with; empty when it has alternatives at the top. */
function literalPrefixOf(pattern: string): { literalPrefix: string; isLiteral: boolean } {
  if (hasTopAlternative(pattern)) return { literalPrefix: '', isLiteral: false };
  let prefix = '';
  for (let at = 0; at < pattern.length;) {
    let char = pattern[at]!;
    let next = at + 1;
    if (char === '\\') {
      char = pattern[at + 1] ?? '';
      next = at + 2;
      if (/[A-Za-z0-9]/.test(char)) return { literalPrefix: prefix, isLiteral: false };
    } else if (META.test(char)) {
      return { literalPrefix: prefix, isLiteral: false };
    }
    // What may be left out or repeated does not belong to the prefix.
    if (/[?*+{]/.test(pattern[next] ?? '')) return { literalPrefix: prefix, isLiteral: false };
    prefix += char;
    at = next;
  }
  return { literalPrefix: prefix, isLiteral: true };
}

/** Whether a "|" may stand outside of all groups; rather too often than too seldom. */
function hasTopAlternative(pattern: string): boolean {
  let depth = 0;
  for (let at = 0; at < pattern.length; at++) {
    const char = pattern[at];
    if (char === '\\') at++;
    else if (char === '(') depth++;
    else if (char === ')') depth--;
    else if (char === '[') return pattern.includes('|');
    else if (char === '|' && depth === 0) return true;
  }
  return false;
}

function unsupported(pattern: string, complaint: string, cause?: unknown): HostctlError {
  return new HostctlError('image-unsupported', `Pattern ${JSON.stringify(pattern)} ${complaint}`, { cause });
}
