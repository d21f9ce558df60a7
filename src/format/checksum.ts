/**
 * The last line of small text files of ours: a comment with the SHA-256 of everything before it. Readers pass over it;
 * `fsck` tells by it whether a file is as it was written, which the text alone cannot.
 */

import { hash } from 'node:crypto';

/** What begins a comment: `#` in boot entries; `;` in key files, since not every reader of these knows `#`. */
export type CommentMark = '#' | ';';

const LAST_LINE = /(?:^|\n)[#;] sha256 ([0-9a-f]{64})\n$/;

/** `text`, which ends with a line break, and its checksum. */
export function withChecksum(text: string, mark: CommentMark): string {
  return `${text}${mark} sha256 ${hash('sha256', text)}\n`;
}

/** Whether a text has its checksum, and is what that was made of. */
export function hasChecksum(text: string): boolean {
  const match = LAST_LINE.exec(text);
  if (match?.[1] === undefined) return false;
  const before = text.slice(0, text.lastIndexOf('\n', text.length - 2) + 1);
  return hash('sha256', before) === match[1];
}
