/**
 * Runs a target on mutations of a corpus. An input whose outcome is of a new kind (another complaint, another shape of
 * value) is kept and mutated further: the parsers' own messages tell which of their branches was reached.
 */

import { HostctlError } from '../../src/errors.ts';
import { mutate, Random } from './mutate.ts';
import type { FuzzTarget } from './targets.ts';

const MAX_CORPUS = 500;
/** Some outcomes hold a piece of the input, which makes kinds without end. */
const MAX_KINDS = 20_000;
const SLOW_MS = 10_000;

export interface FuzzReport {
  readonly name: string;
  readonly executions: number;
  /** Kinds of outcomes seen. */
  readonly kinds: number;
  readonly ms: number;
  /** Inputs, in hex, that were not answered as they should be, and how. */
  readonly failures: readonly { readonly input: string; readonly problem: string }[];
}

export async function fuzz(target: FuzzTarget, executions: number, seed: number): Promise<FuzzReport> {
  const random = new Random(seed);
  const corpus = target.seeds().map((each) => Buffer.from(each as string));
  const kinds = new Set<string>();
  const failures = new Map<string, string>();
  const begin = performance.now();
  for (let i = 0; i < executions; i++) {
    let input =
      i < corpus.length ? corpus[i]! : mutate(random.pick(corpus), random.pick(corpus), random, target.maxBytes);
    if (target.repair !== undefined && random.below(4) > 0) input = target.repair(input);
    // What is run may be changed by it.
    const copy = Buffer.from(input);
    const { kind, problem } = await outcomeOf(target, input);
    if (problem !== undefined && !failures.has(kind) && failures.size < 20) failures.set(kind, `${copy.toString('hex')} ${problem}`); // prettier-ignore
    if (kinds.has(kind) || kinds.size === MAX_KINDS) continue;
    kinds.add(kind);
    if (corpus.length < MAX_CORPUS) corpus.push(copy);
    else corpus[random.below(MAX_CORPUS)] = copy;
  }
  const list = [...failures.values()].map((text) => ({ input: text.slice(0, text.indexOf(' ')), problem: text.slice(text.indexOf(' ') + 1) })); // prettier-ignore
  return {
    name: target.name,
    executions,
    kinds: kinds.size,
    ms: Math.round(performance.now() - begin),
    failures: list,
  };
}

/** What came of an input, and what is wrong with that. */
export async function outcomeOf(
  target: FuzzTarget,
  input: Buffer,
): Promise<{ readonly kind: string; readonly problem?: string }> {
  const begin = performance.now();
  try {
    let value = target.run(input);
    if (value instanceof Promise) value = await value;
    const took = performance.now() - begin;
    if (took > SLOW_MS) return { kind: 'slow', problem: `Took ${took} ms` };
    return { kind: `value ${String(value)}` };
  } catch (error) {
    if (error instanceof HostctlError && error.code !== 'internal') {
      return { kind: `${error.code} ${error.message.replace(/"(?:[^"\\]|\\.)*"|[0-9]+/g, '#').slice(0, 120)}` };
    }
    const problem = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return { kind: `failure ${problem.replace(/[0-9]+/g, '#').slice(0, 300)}`, problem };
  }
}
