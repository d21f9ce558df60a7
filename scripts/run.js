/**
 * Runs a TypeScript script of this folder under Node 20, which cannot: `node scripts/run.js NAME [arguments]` bundles
 * `scripts/NAME.ts` into `build/scripts/` and starts it. In a fresh clone it installs the npm dependencies first.
 */

import { spawnSync } from 'node:child_process';
import { existsSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const [name, ...rest] = process.argv.slice(2);
const script = join(root, 'scripts', `${name}.ts`);
if (name === undefined || !existsSync(script)) {
  console.error(`No such script: ${script}`);
  process.exit(2);
}

if (!existsSync(join(root, 'node_modules/esbuild'))) {
  console.error('Installing the npm dependencies');
  const installed = spawnSync('npm', ['ci', '--no-audit', '--no-fund'], { cwd: root, stdio: 'inherit' });
  if (installed.status !== 0) process.exit(installed.status ?? 1);
}

const { build } = await import('esbuild');
const outfile = join(root, 'build/scripts', `${name}.mjs`);
// Renamed when it is whole: another run of the same script may begin in this moment.
const temporary = `${outfile}.${process.pid}`;
await build({
  entryPoints: [script],
  outfile: temporary,
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'esm',
  packages: 'external',
  logLevel: 'warning',
});
renameSync(temporary, outfile);
process.argv = [process.argv[0] ?? 'node', outfile, ...rest];
await import(pathToFileURL(outfile).href);
