/**
 * os-release(5): assignments with shell-like quoting and no expansion. Reading is tolerant, as systemd is: a line that
 * is no assignment is passed over, so that an odd image can still be shown.
 */

export interface OsRelease {
  /** `linux` when the file does not say. */
  readonly id: string;
  /** `Linux` when the file does not say. */
  readonly prettyName: string;
  readonly version?: string;
  readonly versionId?: string;
  readonly imageId?: string;
  readonly imageVersion?: string;
  readonly buildId?: string;
  readonly variantId?: string;
}

const MAX_CHARS = 65_536;

/** Reads os-release text (of which the first 64 KiB count). Never throws. */
export function parseOsRelease(text: string): OsRelease {
  const fields = parseAssignments(text.slice(0, MAX_CHARS));
  return {
    id: fields.get('ID') ?? 'linux',
    prettyName: fields.get('PRETTY_NAME') ?? 'Linux',
    ...optional('version', fields.get('VERSION')),
    ...optional('versionId', fields.get('VERSION_ID')),
    ...optional('imageId', fields.get('IMAGE_ID')),
    ...optional('imageVersion', fields.get('IMAGE_VERSION')),
    ...optional('buildId', fields.get('BUILD_ID')),
    ...optional('variantId', fields.get('VARIANT_ID')),
  };
}

function optional<K extends string>(key: K, value: string | undefined): { [P in K]?: string } {
  return value === undefined ? {} : ({ [key]: value } as { [P in K]: string });
}

/** Every assignment; the last one of a name wins, an empty value counts as none. */
export function parseAssignments(text: string): Map<string, string> {
  const fields = new Map<string, string>();
  // A quoted value may run over several lines, so lines are not split first.
  const assignment = /^[ \t]*(?:([A-Za-z_][A-Za-z0-9_]*)=)?/my;
  let at = 0;
  while (at < text.length) {
    assignment.lastIndex = at;
    const match = assignment.exec(text);
    const name = match?.[1];
    if (name === undefined) {
      at = endOfLine(text, at);
      continue;
    }
    const { value, end } = readValue(text, assignment.lastIndex);
    if (value === undefined || value === '') fields.delete(name);
    else fields.set(name, value);
    at = end;
  }
  return fields;
}

function endOfLine(text: string, from: number): number {
  const newline = text.indexOf('\n', from);
  return newline < 0 ? text.length : newline + 1;
}

/** A value is undefined when its quote is never closed or text follows it: then only this line is lost. */
function readValue(text: string, from: number): { value: string | undefined; end: number } {
  const lost = { value: undefined, end: endOfLine(text, from) };
  let value = '';
  let quote = '';
  let at = from;
  for (; at < text.length; at += 1) {
    const char = text.charAt(at);
    if (char === '\0') return lost;
    if (quote === "'") {
      if (char === "'") quote = '';
      else value += char;
    } else if (char === '\\') {
      at += 1;
      const next = text.charAt(at);
      if (quote === '"' && !'"\\`$\n'.includes(next)) value += char;
      if (next !== '\n') value += next;
    } else if (quote === '"') {
      if (char === '"') quote = '';
      else value += char;
    } else if (char === '"' || char === "'") {
      quote = char;
    } else if (/\s/.test(char)) {
      break;
    } else {
      value += char;
    }
  }
  if (quote !== '') return lost;
  const end = endOfLine(text, at);
  const rest = text.slice(at, end).trim();
  return rest === '' || rest.startsWith('#') ? { value, end } : lost;
}
