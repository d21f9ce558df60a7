/**
 * How boot loaders choose the entry to boot, written from their published behaviour and apart from `src/format/bls`:
 * the referees of the order our names are made for. Each takes file names (and what the loader reads of the entry) and
 * answers with the file name it would boot. `test/conformance/loader-order.test.ts` holds them against real programs.
 */

export interface OracleEntry {
  readonly fileName: string;
  readonly version?: string | undefined;
  readonly sortKey?: string | undefined;
  readonly machineId?: string | undefined;
}

type Compare = (a: string, b: string) => number;

/** systemd-boot: used-up entries last, then as UAPI.1 "Sorting" has it; the file name counts without its counter. */
export function defaultOfSystemdBoot(entries: readonly OracleEntry[]): string | undefined {
  return highest(entries, (a, b) => {
    const [left, right] = [counted(a.fileName), counted(b.fileName)];
    const bySortKey = (): number =>
      a.sortKey === undefined || b.sortKey === undefined
        ? 0
        : -compareBytes(a.sortKey, b.sortKey) ||
          -compareBytes(a.machineId ?? '', b.machineId ?? '') ||
          compareUapi(a.version ?? '', b.version ?? '');
    return (
      Number(left.left !== 0) - Number(right.left !== 0) ||
      Number(a.sortKey !== undefined) - Number(b.sortKey !== undefined) ||
      bySortKey() ||
      compareUapi(left.id, right.id) ||
      compareCounters(left, right)
    );
  });
}

/** Fedora's GRUB: name-version-release split from the right, each part compared as RPM does. Highest first. */
export function defaultOfFedoraGrub(entries: readonly OracleEntry[]): string | undefined {
  return highest(entries, (a, b) => compareNvr(stripConf(a.fileName), stripConf(b.fileName)));
}

/** GRUB 2.14: the whole file name in the order of `sort -V`. Highest first; equal names are an error there. */
export function defaultOfUpstreamGrub(entries: readonly OracleEntry[]): string | undefined {
  return highest(entries, (a, b) => compareFileVersions(a.fileName, b.fileName));
}

/** The first GRUB with boot entries (2018): the `version` key as RPM compares, then the file name. Highest first. */
export function defaultOfVersionKeyGrub(entries: readonly OracleEntry[]): string | undefined {
  return highest(entries, (a, b) => {
    if (a.version !== undefined && b.version === undefined) return 1;
    if (a.version === undefined && b.version !== undefined) return -1;
    return compareRpm(a.version ?? '', b.version ?? '') || compareRpm(stripConf(a.fileName), stripConf(b.fileName));
  });
}

/** What systemd-boot renames a counted entry to before it starts it. */
export function countDown(fileName: string): string {
  return fileName.replace(/\+(\d+)-(\d+)(?=\.conf$)/, (_, left: string, done: string) => {
    const nextLeft = String(Math.max(0, Number(left) - 1)).padStart(left.length, '0');
    const nextDone = String(Math.min(10 ** done.length - 1, Number(done) + 1)).padStart(done.length, '0');
    return `+${nextLeft}-${nextDone}`;
  });
}

interface Counted {
  readonly id: string;
  readonly left: number | undefined;
  readonly done: number;
}

function counted(fileName: string): Counted {
  const match = /^(.+)\+(\d+)(?:-(\d+))?\.conf$/i.exec(fileName);
  if (match === null) return { id: stripConf(fileName), left: undefined, done: 0 };
  return { id: match[1] ?? '', left: Number(match[2]), done: Number(match[3] ?? 0) };
}

/** Only entries that both count are told apart: more tries left first, then fewer made. */
function compareCounters(a: Counted, b: Counted): number {
  if (a.left === undefined || b.left === undefined) return 0;
  return a.left - b.left || b.done - a.done;
}

/** UAPI.10 "Version Format Specification", one numbered rule after the other. */
export const compareUapi: Compare = (a, b) => {
  let x = a;
  let y = b;
  const cut = (mark: string): number => {
    const order = Number(y.startsWith(mark)) - Number(x.startsWith(mark));
    if (order === 0 && x.startsWith(mark)) [x, y] = [x.slice(1), y.slice(1)];
    return order;
  };
  for (;;) {
    x = x.replace(/^[^-a-zA-Z0-9.~^]+/, '');
    y = y.replace(/^[^-a-zA-Z0-9.~^]+/, '');
    const before = cut('~');
    if (before !== 0) return before;
    if (x === '' || y === '') return Number(x !== '') - Number(y !== '');
    const mark = cut('-') || cut('^') || cut('.');
    if (mark !== 0) return mark;
    const isNumber = /^\d/.test(x) || /^\d/.test(y);
    const run = isNumber ? /^\d*/ : /^[a-zA-Z]*/;
    const [runX, runY] = [run.exec(x)?.[0] ?? '', run.exec(y)?.[0] ?? ''];
    const order = isNumber
      ? Number(runX !== '') - Number(runY !== '') || compareBig(runX, runY)
      : compareText(runX, runY);
    if (order !== 0) return order;
    [x, y] = [x.slice(runX.length), y.slice(runY.length)];
  }
};

function compareBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

function highest<T extends OracleEntry>(entries: readonly T[], compare: (a: T, b: T) => number): string | undefined {
  return [...entries].sort((a, b) => compare(b, a))[0]?.fileName;
}

function stripConf(fileName: string): string {
  return fileName.endsWith('.conf') ? fileName.slice(0, -5) : fileName;
}

function compareNvr(a: string, b: string): number {
  const left = splitNvr(a);
  const right = splitNvr(b);
  for (let i = 0; i < 3; i += 1) {
    const order = compareRpm(left[i] ?? '', right[i] ?? '');
    if (order !== 0) return order;
  }
  return 0;
}

/** `name-version-release` cut at the last two dashes; what is missing is missing at the end. */
function splitNvr(id: string): string[] {
  const parts = id.split('-');
  return parts.length <= 3 ? parts : [parts.slice(0, -2).join('-'), ...parts.slice(-2)];
}

/** RPM's version comparison without `^`. */
export const compareRpm: Compare = (a, b) => {
  let x = a;
  let y = b;
  for (;;) {
    x = x.replace(/^[^a-zA-Z0-9~]+/, '');
    y = y.replace(/^[^a-zA-Z0-9~]+/, '');
    if (x.startsWith('~') || y.startsWith('~')) {
      if (!x.startsWith('~')) return 1;
      if (!y.startsWith('~')) return -1;
      x = x.slice(1);
      y = y.slice(1);
      continue;
    }
    if (x === '' || y === '') return x === y ? 0 : x === '' ? -1 : 1;
    const pattern = /^\d/.test(x) ? /^\d+/ : /^[a-zA-Z]+/;
    const runX = pattern.exec(x)?.[0] ?? '';
    const runY = pattern.exec(y)?.[0] ?? '';
    // Runs of different kinds: the number is higher.
    if (runY === '') return /^\d/.test(x) ? 1 : -1;
    const order = /^\d/.test(x) ? compareBig(runX, runY) : compareText(runX, runY);
    if (order !== 0) return order;
    x = x.slice(runX.length);
    y = y.slice(runY.length);
  }
};

/** gnulib's filevercmp: suffixes set aside, Debian's order on the rest, then the bytes of the whole name. */
export const compareFileVersions: Compare = (a, b) =>
  compareDebian(withoutSuffix(a), withoutSuffix(b)) || compareDebian(a, b) || compareText(a, b);

function withoutSuffix(name: string): string {
  return name.replace(/(\.[A-Za-z~][A-Za-z0-9~]*)*$/, '');
}

function compareDebian(a: string, b: string): number {
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    while ((i < a.length && !/\d/.test(a.charAt(i))) || (j < b.length && !/\d/.test(b.charAt(j)))) {
      const order = debianWeight(a.charAt(i)) - debianWeight(b.charAt(j));
      if (order !== 0) return order;
      i += 1;
      j += 1;
    }
    const runA = /^\d*/.exec(a.slice(i))?.[0] ?? '';
    const runB = /^\d*/.exec(b.slice(j))?.[0] ?? '';
    const order = compareBig(runA, runB);
    if (order !== 0) return order;
    i += runA.length;
    j += runB.length;
  }
  return 0;
}

function debianWeight(char: string): number {
  if (char === '') return -1;
  if (char === '~') return -2;
  if (/\d/.test(char)) return 0;
  return /[a-zA-Z]/.test(char) ? char.charCodeAt(0) : char.charCodeAt(0) + 256;
}

function compareBig(a: string, b: string): number {
  const x = BigInt(a === '' ? 0 : a);
  const y = BigInt(b === '' ? 0 : b);
  return x < y ? -1 : x > y ? 1 : 0;
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
