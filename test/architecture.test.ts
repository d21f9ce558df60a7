/** The import direction of house style: an arrow that points the wrong way fails here. */

import { readdirSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { describe, expect, test } from 'vitest';
import { threadPrograms } from '../scripts/lib/project.ts';
import { version } from '../src/cli/version.ts';

const SRC = new URL('../src/', import.meta.url).pathname;

/** What each layer may import from, beside itself. */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  errors: [],
  tree: ['errors', 'format'],
  format: ['errors', 'tree'],
  sys: ['errors', 'tree'],
  store: ['errors', 'tree', 'format', 'sys'],
  image: ['errors', 'tree', 'format', 'sys', 'store'],
  deploy: ['errors', 'tree', 'format', 'sys', 'store'],
  ops: ['errors', 'tree', 'format', 'sys', 'store', 'image', 'deploy'],
  cli: ['errors', 'tree', 'sys', 'ops', 'deploy', 'store', 'format'],
  main: ['cli'],
};

/** Modules of Node that reach outside the process. */
const IMPURE = /^node:(fs|child_process|process|os|net|http|https|worker_threads|timers)/;

interface Import {
  readonly file: string;
  readonly from: string;
  readonly to: string;
  readonly typeOnly: boolean;
}

function layerOf(path: string): string {
  const [first = ''] = path.split('/');
  return first.replace(/\.ts$/, '');
}

function importsOf(file: string): Import[] {
  const text = readFileSync(SRC + file, 'utf8');
  const pattern = /(?:import|export)\s+(type\s+)?(?:[^'";]*?from\s+)?'([^']+)'|import\('([^']+)'\)/g;
  return [...text.matchAll(pattern)].map((match) => {
    const target = match[2] ?? match[3] ?? '';
    const to = target.startsWith('.') ? new URL(target, `file://${SRC}${file}`).pathname.slice(SRC.length) : target;
    return { file, from: layerOf(file), to, typeOnly: match[1] !== undefined };
  });
}

const files = readdirSync(SRC, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'));
const imports = files.flatMap(importsOf);

describe('the import direction', () => {
  test('every layer imports only what stands below it', () => {
    const wrong = imports
      .filter(({ to }) => !to.startsWith('node:') && files.includes(to))
      .filter(({ from, to }) => layerOf(to) !== from && !(ALLOWED[from] ?? []).includes(layerOf(to)))
      .map(({ file, to }) => `${file} imports ${to}`);
    expect(wrong).toEqual([]);
  });

  test('formats and trees touch no file, process, clock or environment', () => {
    const wrong = imports
      .filter(({ from, to }) => (from === 'format' || from === 'tree') && IMPURE.test(to))
      .map(({ file, to }) => `${file} imports ${to}`);
    const globals = files
      .filter((file) => ['format', 'tree'].includes(layerOf(file)))
      .filter((file) => /\bprocess\.|\bDate\.now|new Date\(\)|Math\.random/.test(readFileSync(SRC + file, 'utf8')));
    expect([...wrong, ...globals]).toEqual([]);
  });

  test('only the command line prints', () => {
    const printing = files.filter(
      (file) =>
        layerOf(file) !== 'cli' &&
        /\bconsole\.\w+\(|process\.(stdout|stderr)\.write/.test(readFileSync(SRC + file, 'utf8')),
    );
    expect(printing).toEqual([]);
  });

  test('only sys starts processes and calls C', () => {
    const wrong = imports
      .filter(({ from, to }) => from !== 'sys' && /^(execa|koffi|node:child_process)$/.test(to))
      .map(({ file, to }) => `${file} imports ${to}`);
    expect(wrong).toEqual([]);
  });

  test('the test sees the imports there are', () => {
    expect(imports.length).toBeGreaterThan(100);
  });
});

test('what threads run lies beside what starts them, and is bundled', () => {
  const started = files.flatMap((file) =>
    [...readFileSync(SRC + file, 'utf8').matchAll(/new Worker\(new URL\('\.\/(\S+)\.js'/g)].map(([, name = '']) => [
      name,
      `${SRC}${dirname(file)}/${name}.ts`,
    ]),
  );
  expect(threadPrograms()).toEqual(Object.fromEntries(started));
});

test('the version of the program is that of the package', () => {
  const { version: stated } = JSON.parse(readFileSync(`${SRC}../package.json`, 'utf8')) as { version: string };
  expect(version).toBe(stated);
});
