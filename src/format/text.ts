/**
 * What keeps foreign text (labels, names, versions) from changing the shape of a line-based file it is written into.
 */

/** Control characters, every line break of Unicode, and halves of surrogate pairs. */
const UNSAFE = /[\x00-\x1f\x7f-\x9f\u2028\u2029\p{Surrogate}]/u;
const ALL_UNSAFE = new RegExp(UNSAFE, 'gu');

/** Whether text holds a control character, a line break or a lone surrogate. */
export function hasUnsafeCharacter(text: string): boolean {
  return UNSAFE.test(text);
}

/** Text with `substitute` for each unsafe character. */
export function replaceUnsafeCharacters(text: string, substitute: string): string {
  return text.replace(ALL_UNSAFE, substitute);
}
