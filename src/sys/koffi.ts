/** koffi, the foreign-function interface: an optional dependency, so that whoever calls C has another way too. */

import { createRequire } from 'node:module';

export interface CFunction {
  (...args: readonly unknown[]): number;
  /** In a thread of Node's pool; the last argument is called afterwards. */
  async(...args: readonly unknown[]): void;
}

export interface CLibrary {
  func(prototype: string): CFunction;
}

export interface Koffi {
  load(library: string): CLibrary;
  /** Names a type, which is possible once. */
  struct(name: string, fields: Readonly<Record<string, string>>): unknown;
  errno(): number;
}

/** A library of this host; undefined where koffi is not installed, has no build for this machine, or finds no library. */
export function loadLibrary(name: string): { readonly koffi: Koffi; readonly library: CLibrary } | undefined {
  try {
    const koffi = createRequire(import.meta.url)('koffi') as Koffi;
    return { koffi, library: koffi.load(name) };
  } catch {
    return undefined;
  }
}
