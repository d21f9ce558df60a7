/**
 * What the GRUBs in use would start: there are three orders of boot entries among them, none of which knows `sort-key`
 * or boot counters. Names of ours come out the same in all; an entry of somebody else may not, and then the machine's
 * own loader decides what boots. Pure.
 */

export interface GrubEntry {
  readonly file: string;
  readonly version?: string | undefined;
  /** GRUB leaves out entries without it. */
  readonly linux?: string | undefined;
}

/** The first entry in the order of each generation of GRUB, without repetitions. */
export function grubDefaults<T extends GrubEntry>(entries: readonly T[]): T[] {
  const bootable = entries.filter(({ linux }) => linux !== undefined);
  const firsts = [compareFedora, compareUpstream, compareVersionKey].flatMap(
    (compare) => [...bootable].sort((a, b) => compare(b, a))[0] ?? [],
  );
  return [...new Set(firsts)];
}

/** Fedora's patches: `name-version-release` of the file name, cut at its last two dashes. */
function compareFedora(a: GrubEntry, b: GrubEntry): number {
  const [partsA, partsB] = [nameParts(stem(a.file)), nameParts(stem(b.file))];
  return compareAsRpm(partsA[0], partsB[0]) || compareAsRpm(partsA[1], partsB[1]) || compareAsRpm(partsA[2], partsB[2]);
}

function nameParts(id: string): [name: string, version: string, release: string] {
  const parts = id.split('-');
  if (parts.length < 3) return [parts[0] ?? '', parts[1] ?? '', ''];
  return [parts.slice(0, -2).join('-'), parts.at(-2) ?? '', parts.at(-1) ?? ''];
}

/** GRUB 2.14: the file name as `sort -V` has it, its suffix looked at last. */
function compareUpstream(a: GrubEntry, b: GrubEntry): number {
  return (
    compareNaturally(withoutSuffixes(a.file), withoutSuffixes(b.file)) ||
    compareNaturally(a.file, b.file) ||
    compareText(a.file, b.file)
  );
}

/** The first GRUB with boot entries: the `version` key, an entry without one being lower, then the file name. */
function compareVersionKey(a: GrubEntry, b: GrubEntry): number {
  return (
    Number(a.version !== undefined) - Number(b.version !== undefined) ||
    compareAsRpm(a.version ?? '', b.version ?? '') ||
    compareAsRpm(stem(a.file), stem(b.file))
  );
}

function stem(file: string): string {
  return file.replace(/\.conf$/i, '');
}

function withoutSuffixes(file: string): string {
  return file.replace(/(?:\.[A-Za-z~][A-Za-z0-9~]*)*$/, '');
}

/** Runs of digits and of letters, and `~`; all else separates. A number is above letters, `~` below the end. */
function compareAsRpm(a: string, b: string): number {
  const [left, right] = [tokens(a, /~|\d+|[A-Za-z]+/g), tokens(b, /~|\d+|[A-Za-z]+/g)];
  for (let at = 0; at < Math.max(left.length, right.length); at += 1) {
    const [x, y] = [left[at] ?? '', right[at] ?? ''];
    const order = rpmRank(x) - rpmRank(y) || (isNumber(x) ? compareNumbers(x, y) : compareText(x, y));
    if (order !== 0) return order;
  }
  return 0;
}

function rpmRank(token: string): number {
  if (token === '~') return -1;
  if (token === '') return 0;
  return isNumber(token) ? 2 : 1;
}

/** Characters that are no digits one by one (`~`, the end, letters, the rest), numbers by value, a missing one as 0. */
function compareNaturally(a: string, b: string): number {
  const [left, right] = [tokens(a, /\d+|\D/g), tokens(b, /\d+|\D/g)];
  for (let i = 0, j = 0; i < left.length || j < right.length; i += 1, j += 1) {
    const [x, y] = [left[i] ?? '', right[j] ?? ''];
    const areNumbers = (x === '' || isNumber(x)) && (y === '' || isNumber(y));
    const order = areNumbers ? compareNumbers(x, y) : naturalRank(x) - naturalRank(y);
    if (order !== 0) return order;
  }
  return 0;
}

function naturalRank(token: string): number {
  if (token === '~') return -2;
  if (token === '') return -1;
  if (isNumber(token)) return 0;
  return token.charCodeAt(0) + (/[A-Za-z]/.test(token) ? 0 : 256);
}

function tokens(text: string, form: RegExp): readonly string[] {
  return text.match(form) ?? [];
}

function isNumber(token: string): boolean {
  return /^\d/.test(token);
}

function compareNumbers(a: string, b: string): number {
  const [x, y] = [a.replace(/^0+/, ''), b.replace(/^0+/, '')];
  return x.length - y.length || compareText(x, y);
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
