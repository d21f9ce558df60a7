/** The program as it is shipped: a bundle of few files, and execa beside it. What is measured and proved is the same. */

import { build, type Plugin } from 'esbuild';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { projectPath, threadPrograms } from './project.ts';

export interface PackageJson {
  readonly name: string;
  readonly version: string;
  readonly license: string;
}

export async function readPackage(folder: string): Promise<PackageJson> {
  return JSON.parse(await readFile(join(folder, 'package.json'), 'utf8')) as PackageJson;
}

/**
 * Bundles the program, `main.js` in `folder`, its sources as `plugins` give them; koffi is found beside it or above.
 * Names all sources of what it wrote.
 */
export async function bundleProgram(folder: string, plugins: Plugin[] = []): Promise<string[]> {
  const sources = await bundleExeca(folder);
  const { metafile } = await build({
    entryPoints: { main: projectPath('src/main.ts'), ...threadPrograms() },
    outdir: folder,
    bundle: true,
    // Commands are loaded when they are called: the start of the program is felt at every call.
    splitting: true,
    platform: 'node',
    target: 'node20',
    format: 'esm',
    external: ['koffi'],
    // What yargs lays its help out by asks ICU about emoji before it is asked anything, at every start of the program.
    alias: { 'string-width': projectPath('scripts/lib/text-width.ts') },
    chunkNames: 'chunk-[hash]',
    metafile: true,
    logLevel: 'warning',
    absWorkingDir: projectPath(),
    banner: {
      // CommonJS dependencies inside an ES module bundle still call require().
      js: "import { createRequire as createRequireForBundle } from 'node:module'; const require = createRequireForBundle(import.meta.url);",
    },
    plugins,
  });
  const main = join(folder, 'main.js');
  const text = await readFile(main, 'utf8');
  await writeFile(main, `#!/usr/bin/node\n${text.replace(/^#!.*\n/, '')}`);
  const { name, version, license } = await readPackage(projectPath());
  await writeFile(join(folder, 'package.json'), `${JSON.stringify({ name, version, license, type: 'module' })}\n`);
  return [...sources, ...Object.keys(metafile.inputs)];
}

/** execa is required by those commands that start a program, so it is a package of its own, beside the program. */
async function bundleExeca(folder: string): Promise<string[]> {
  const target = join(folder, 'node_modules/execa');
  const { metafile } = await build({
    entryPoints: [projectPath('node_modules/execa/index.js')],
    outfile: join(target, 'index.js'),
    bundle: true,
    platform: 'node',
    target: 'node20',
    format: 'cjs',
    metafile: true,
    logLevel: 'warning',
    absWorkingDir: projectPath(),
  });
  const { name, version, license } = await readPackage(projectPath('node_modules/execa'));
  await writeFile(join(target, 'package.json'), `${JSON.stringify({ name, version, license })}\n`);
  return Object.keys(metafile.inputs);
}
