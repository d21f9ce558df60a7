/** Cpio archives of the "newc" format, right or wrong: `cpio({ 'usr/bin/x': 'content' })`. */

/** Names with their contents, then the trailer. */
export function cpio(files: Readonly<Record<string, string>>): Buffer {
  const entries = Object.entries(files).map(([name, content]) => cpioEntry(name, content));
  return Buffer.concat([...entries, cpioEntry('TRAILER!!!')]);
}

export function cpioEntry(name: string, content = '', magic = '070701'): Buffer {
  const numbers = Array.from({ length: 13 }, () => 0);
  numbers[6] = content.length;
  numbers[11] = name.length + 1;
  const header = magic + numbers.map((number) => number.toString(16).padStart(8, '0')).join('');
  return Buffer.concat([padded(`${header}${name}\0`), padded(content)]);
}

function padded(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1');
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);
}
