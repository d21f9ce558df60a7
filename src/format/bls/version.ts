/**
 * Version order of the UAPI.10 Version Format Specification: what systemd-boot, bootctl and
 * `systemd-analyze compare-versions` sort entries by. A total preorder on any two strings; never throws.
 */

/** Negative when `a` is the lower version, positive when it is the higher one, 0 when neither is. */
export function compareVersions(a: string, b: string): number {
  let i = 0;
  let j = 0;
  for (;;) {
    i = skip(a, i, isSeparator);
    j = skip(b, j, isSeparator);

    // A pre-release mark is lower than anything, the end of the string included.
    if (a[i] === '~' || b[j] === '~') {
      if (a[i] !== b[j]) return a[i] === '~' ? -1 : 1;
      i += 1;
      j += 1;
    }
    if (i >= a.length || j >= b.length) return Number(i < a.length) - Number(j < b.length);
    for (const mark of '-^.') {
      if (a[i] === mark || b[j] === mark) {
        if (a[i] !== b[j]) return a[i] === mark ? -1 : 1;
        i += 1;
        j += 1;
      }
    }

    const numeric = isDigit(a[i]) || isDigit(b[j]);
    const nextI = skip(a, i, numeric ? isDigit : isLetter);
    const nextJ = skip(b, j, numeric ? isDigit : isLetter);
    const runA = a.slice(i, nextI);
    const runB = b.slice(j, nextJ);
    const order = numeric ? compareNumbers(runA, runB) : compareWords(runA, runB);
    if (order !== 0) return order;
    i = nextI;
    j = nextJ;
  }
}

/** Digits against digits by value; a missing number is lower than any number, zero included. */
function compareNumbers(a: string, b: string): number {
  if (a === '' || b === '') return Number(a !== '') - Number(b !== '');
  const x = a.replace(/^0+/, '');
  const y = b.replace(/^0+/, '');
  return x.length - y.length || compareCodes(x, y);
}

/** Letters against letters in ASCII order, so capitals first; of two that begin alike the longer is higher. */
function compareWords(a: string, b: string): number {
  const shared = Math.min(a.length, b.length);
  return compareCodes(a.slice(0, shared), b.slice(0, shared)) || a.length - b.length;
}

function compareCodes(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function skip(text: string, from: number, test: (char: string | undefined) => boolean): number {
  let index = from;
  while (index < text.length && test(text[index])) index += 1;
  return index;
}

function isDigit(char: string | undefined): boolean {
  return char !== undefined && char >= '0' && char <= '9';
}

function isLetter(char: string | undefined): boolean {
  return char !== undefined && ((char >= 'a' && char <= 'z') || (char >= 'A' && char <= 'Z'));
}

function isSeparator(char: string | undefined): boolean {
  return char !== undefined && !isDigit(char) && !isLetter(char) && !'-.~^'.includes(char);
}
