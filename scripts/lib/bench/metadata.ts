/** Digests and image files without a repository: `image digest`, and `composefs create` of a dump. */

import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../run.ts';
import type { Comparison } from './comparison.ts';
import { compare, contest, cpu, peak, type Contestant } from './contest.ts';
import { measure } from './measure.ts';
import { hostctl, MKCOMPOSEFS, unpack } from './pipelines.ts';
import { warm, unavailable, type Bench } from './setting.ts';
import { onTarget } from './target.ts';

const INODES = 50_000;
const FILES_PER_DIRECTORY = 50;

/** A dump of `inodes` inodes: most of the files are objects, as in an operating system, the others are in the image. */
export function* dumpLines(inodes: number): Generator<string> {
  yield `/ 4096 40755 ${2 + Math.floor((inodes - 2) / (FILES_PER_DIRECTORY + 1)) + 1} 0 0 0 1700000000.0 - - -\n`;
  let directory = '';
  for (let i = 0; i < inodes - 1; i++) {
    const number = i % (FILES_PER_DIRECTORY + 1);
    if (number === 0) {
      directory = `/package-${Math.floor(i / (FILES_PER_DIRECTORY + 1))}`;
      yield `${directory} 4096 40755 2 0 0 0 1700000000.0 - - -\n`;
      continue;
    }
    const name = `${directory}/file-of-a-usual-name-${number}`;
    const time = `${1_700_000_000 + (i % 1000)}.0`;
    const hex = createHash('sha256').update(name).digest('hex');
    if (number % 8 === 0) yield `${name} 12 120777 1 0 0 0 ${time} file-${hex.slice(0, 7)} - -\n`;
    else if (number % 5 === 0) yield `${name} 32 100644 1 0 0 0 ${time} - ${hex.slice(0, 32)} -\n`;
    else yield `${name} ${1000 + (i % 9999)} 100644 1 0 0 0 ${time} ${hex.slice(0, 2)}/${hex.slice(2)} - ${hex}\n`;
  }
}

/** Against mkcomposefs with the same dump; both make the same bytes. */
export async function createFromDump(bench: Bench): Promise<Comparison[]> {
  const { folder, variables, rounds, sid, say } = bench;
  const inodes = Math.max(100, Math.round(INODES * bench.scale));
  const place = join(folder, 'dump');
  mkdirSync(place);
  writeFileSync(join(place, 'dump'), [...dumpLines(inodes)].join(''));
  const names = { ...variables, DUMP: join(place, 'dump'), OURS: join(place, 'ours'), THEIRS: join(place, 'theirs') };
  const run = (script: string, check: () => void) => async (): ReturnType<Contestant['run']> => {
    await warm([names.DUMP]);
    const measured = { ...(await measure(folder, script, names)), bytesWritten: 0 };
    check();
    return measured;
  };
  const same = (): void => {
    if (!readFileSync(names.OURS).equals(readFileSync(names.THEIRS))) throw new Error('The images differ');
  };
  const title = `composefs create, ${inodes} inodes`;
  const [ours, theirs] = await contest(
    title,
    rounds,
    [
      {
        name: 'hostctl',
        run: run(`${hostctl} composefs create --from-dump "$DUMP" "$OURS" >/dev/null`, () => undefined),
      },
      {
        name: 'mkcomposefs --from-file',
        unavailable: sid === undefined ? 'no mkcomposefs' : undefined,
        run: run(`${MKCOMPOSEFS} --min-version=1 --from-file "$DUMP" "$THEIRS"`, same),
      },
    ],
    say,
  );
  // What was made differently was not made.
  const others = [theirs!];
  return [
    compare(`${title}: wall`, ours!, others, { goal: { most: 2.5 } }),
    compare(`${title}: CPU`, ours!, others, { pick: cpu }),
    peak(title, ours!),
  ];
}

/** Against what unpacks the layers and measures the tree; no repository on either side. */
export async function imageDigest(bench: Bench): Promise<Comparison[]> {
  const { folder, variables, image, rounds, say } = bench;
  const out = join(folder, 'digest');
  let digest: string | undefined;
  const ours: Contestant = {
    name: 'hostctl',
    async run() {
      await warm(image.layers);
      const script = `${hostctl} image digest "oci:$IMAGE" --hash sha256 >"$OUT"`;
      const measured = await measure(folder, script, { ...variables, OUT: out });
      // What a pull stores is looked at by mkcomposefs, elsewhere; here both must say the same.
      digest ??= await pulled(bench);
      if (lastWord(out) !== digest) throw new Error('Not the digest that a pull says');
      return { ...measured, bytesWritten: 0 };
    },
  };
  const peers = Object.entries(unpack).map(([name, script]): Contestant => ({
    name: `${name}, mkcomposefs --print-digest-only`,
    unavailable: unavailable({ name, needs: [name, 'mkcomposefs'], result: 'composefs', kind: 'no fsync', script }, bench), // prettier-ignore
    run: () =>
      onTarget(folder, async (target) => {
        await warm(image.layers);
        const whole = `mkdir "$TARGET/tree"\n${script}\n${MKCOMPOSEFS} --print-digest-only "$TARGET/tree" >"$OUT"`;
        const measured = await measure(folder, whole, { ...variables, TARGET: target.path, OUT: out });
        if (!/^[0-9a-f]{64}$/.test(lastWord(out))) throw new Error('It printed no digest');
        return { ...measured, bytesWritten: 0 };
      }),
  }));
  const [result, ...others] = await contest('image digest', rounds, [ours, ...peers], say);
  return [
    compare('image digest: wall', result!, others, { goal: { least: 2 } }),
    compare('image digest: CPU', result!, others, { pick: cpu }),
    peak('image digest', result!),
  ];
}

function lastWord(file: string): string {
  return readFileSync(file, 'utf8').trim().split(/\s+/).at(-1) ?? '';
}

function pulled({ folder, program, image }: Bench): Promise<string> {
  return onTarget(folder, async (target) => {
    const args = ['image', 'pull', `oci:${image.directory}`, '--repo', join(target.path, 'repo'), '--hash', 'sha256'];
    return (await run(process.execPath, [program, ...args])).trim().split(/\s+/).at(-1) ?? '';
  });
}
