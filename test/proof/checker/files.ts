/**
 * How the checker looks at one file system: read-only, no symlink followed, absence told apart from damage. Absence is
 * undefined; damage (an unreadable sector, a broken cluster chain) is a thrown `Damage`.
 */

export type Kind = 'file' | 'directory' | 'symlink' | 'other';

export interface Files {
  kind(path: string): Kind | undefined;
  /** The whole content of a regular file. */
  read(path: string): Buffer | undefined;
  /** Names in a directory, without "." and "..". */
  list(path: string): string[] | undefined;
  readlink(path: string): string | undefined;
}

/** What is on the disk cannot be read as it should. */
export class Damage extends Error {}

/** Joins path components, dropping empty ones: every path is relative to the top of its file system. */
export function join(...parts: string[]): string {
  return parts
    .join('/')
    .split('/')
    .filter((part) => part !== '' && part !== '.')
    .join('/');
}

/** Remembers every answer: for a file system that does not change while it is looked at more than once. */
export function rememberedFiles(files: Files): Files {
  const remember = <T>(ask: (path: string) => T): ((path: string) => T) => {
    const answers = new Map<string, T>();
    return (path) => {
      const known = answers.get(path);
      if (known !== undefined || answers.has(path)) return known as T;
      const answer = ask(path);
      answers.set(path, answer);
      return answer;
    };
  };
  return {
    kind: remember((path) => files.kind(path)),
    read: remember((path) => files.read(path)),
    list: remember((path) => files.list(path)),
    readlink: remember((path) => files.readlink(path)),
  };
}
