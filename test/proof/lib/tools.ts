/** What the proof builds before it runs: its C programs and bundles of hostctl, whole or deliberately broken. */

import { build, type Plugin } from 'esbuild';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, symlinkSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { basename, relative } from 'node:path';
import { bundleProgram } from '../../../scripts/lib/bundle.ts';
import { projectPath } from '../../../scripts/lib/project.ts';
import { run } from '../../../scripts/lib/run.ts';

const BUILD = projectPath('build/proof');

/** Compiles a C program of the proof; one that was compiled from the same text is reused. Returns its path. */
export async function compile(source: string): Promise<string> {
  const path = projectPath('test/proof', source);
  const hash = createHash('sha256').update(readFileSync(path)).digest('hex').slice(0, 12);
  const program = `${BUILD}/${basename(source, '.c')}-${hash}`;
  if (existsSync(program)) return program;
  mkdirSync(BUILD, { recursive: true });
  const temporary = `${program}.${process.pid}`;
  await run('gcc', ['-O2', '-Wall', '-Wextra', '-o', temporary, path]);
  renameSync(temporary, program);
  return program;
}

/** Bundles a script of the proof, to be run where there is nothing but Node. Returns its path. */
export async function bundleScript(scratch: string, source: string): Promise<string> {
  const outfile = `${scratch}/${basename(source, '.ts')}.mjs`;
  const entryPoints = [projectPath('test/proof', source)];
  await build({ entryPoints, outfile, bundle: true, platform: 'node', target: 'node20', format: 'esm' });
  return outfile;
}

/** A change to one source file that breaks a promise. */
export interface Patch {
  /** Below `src/`. */
  readonly file: string;
  /** Stands in the file exactly once. */
  readonly find: string;
  readonly replace: string;
}

/** Fails where the patch has lost its place. */
export function patched(source: string, { file, find, replace }: Patch): string {
  if (source.split(find).length !== 2) throw new Error(`"${find}" does not stand once in src/${file}`);
  return source.replace(find, () => replace);
}

/** A program's name as a file name. */
export function programName(name: string): string {
  return name.replaceAll(/[^a-z0-9]+/gi, '-');
}

/**
 * Bundles hostctl as it is shipped, with `patches` applied, into a folder of its own below `scratch` and returns the
 * program. Fails where a patch has lost its place.
 */
export async function bundleHostctl(scratch: string, name: string, patches: readonly Patch[] = []): Promise<string> {
  const directory = `${scratch}/hostctl-${name}`;
  const applied = new Set<Patch>();
  const patching: Plugin = {
    name: 'patches',
    setup(setup) {
      setup.onLoad({ filter: /\/src\/.*\.ts$/ }, async ({ path }) => {
        let contents = await readFile(path, 'utf8');
        for (const patch of patches) {
          if (relative(projectPath('src'), path) !== patch.file) continue;
          contents = patched(contents, patch);
          applied.add(patch);
        }
        return { contents, loader: 'ts' };
      });
    },
  };
  await bundleProgram(directory, [patching]);
  const lost = patches.filter((patch) => !applied.has(patch));
  if (lost.length > 0) throw new Error(`Mutant "${name}": src/${lost[0]?.file ?? ''} is not part of hostctl`);
  // koffi is native and is found above the bundle.
  const modules = `${scratch}/node_modules`;
  if (!existsSync(modules)) symlinkSync(projectPath('node_modules'), modules);
  return `${directory}/main.js`;
}
