/**
 * Boot assessment against a model of machines: boot loaders that count, that do not, and that count wrongly, and updates
 * whose boots end in every way. Whatever comes, the machine stops rebooting by itself, there is one automatic rollback at
 * most, and where something is good and can be reached, that is what runs.
 */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { beginBoot, endBoot, incomplete, type BegunBoot } from '../../src/deploy/assessment.ts';
import type { Trial } from '../../src/deploy/trials.ts';
import type { BootCounter } from '../../src/format/bls/name.ts';

const NEW: Trial = {
  attempts: 1,
  tries: 3,
  bootId: 'b1',
  failure: undefined,
  isFailed: false,
  rollback: undefined,
};

function begun(more: Partial<BegunBoot>): BegunBoot {
  return {
    counter: { left: 2, done: 1 },
    trial: undefined,
    bootId: 'b1',
    hasGood: true,
    newestEntry: 7,
    ...more,
  };
}

describe('a boot that begins', () => {
  test('is counted, with as many tries as the entry had', () => {
    expect(beginBoot(begun({}))).toEqual({ kind: 'try', trial: NEW });
  });

  test('is counted once', () => {
    expect(beginBoot(begun({ trial: NEW }))).toEqual({ kind: 'try', trial: NEW });
    expect(beginBoot(begun({ trial: NEW, bootId: 'b2' })).trial.attempts).toBe(2);
  });

  test('is counted by the loader too, which saw those that never came to userspace', () => {
    const decision = beginBoot(begun({ counter: { left: 0, done: 3 } }));
    expect(decision).toEqual({ kind: 'try', trial: { ...NEW, attempts: 3 } });
  });

  test.each<[string, Partial<BegunBoot>, string]>([
    ['its last try', { trial: { ...NEW, attempts: 2 }, counter: { left: 0, done: 3 } }, 'try'],
    ['one more', { trial: { ...NEW, attempts: 3 }, counter: { left: 0, done: 4 } }, 'roll-back'],
    ['one more by a loader that does not count', { trial: { ...NEW, attempts: 3 }, counter: { left: 3 } }, 'roll-back'],
    ['one more with nothing that is good', { trial: { ...NEW, attempts: 3 }, hasGood: false }, 'stay'],
    ['one more after a rollback', { trial: { ...NEW, attempts: 4, isFailed: true, rollback: 7 } }, 'stay'],
    [
      'one more after a rollback that was cut off',
      { trial: { ...NEW, attempts: 4, isFailed: true, rollback: 8 } },
      'roll-back',
    ],
    ['one that was given up before', { trial: { ...NEW, isFailed: true } }, 'roll-back'],
  ])('%s: %#', (_, more, kind) => {
    expect(beginBoot(begun({ bootId: 'b9', ...more })).kind).toBe(kind);
  });

  test('keeps the reason of the last one when it is given up, or says that there is none', () => {
    const failure = { code: 'unit-failed', message: 'x.service failed' };
    const more = { bootId: 'b9', counter: { left: 0, done: 4 } };
    expect(beginBoot(begun({ ...more, trial: { ...NEW, attempts: 3, failure } })).trial.failure).toEqual(failure);
    expect(beginBoot(begun({ ...more, trial: { ...NEW, attempts: 3 } })).trial.failure).toEqual(incomplete(3));
  });
});

test('a boot that failed is followed by another one only while the deployment is on trial', () => {
  expect([endBoot(undefined), endBoot(NEW), endBoot({ ...NEW, isFailed: true })]).toEqual(['stay', 'next-try', 'stay']);
});

/** How a boot of the update ends. `dies`: the kernel or the initramfs, which reboots. */
type Outcome = 'dies' | 'fails' | 'good';

const LOADERS = ['counts', 'counts nothing', 'boots what is used up', 'forgets'] as const;

interface Entry {
  readonly sequence: number;
  readonly deployment: number;
  counter: BootCounter | undefined;
}

interface Machine {
  readonly loader: (typeof LOADERS)[number];
  readonly entries: Entry[];
  readonly trials: Map<number, Trial>;
  /** Whether the record of the boot can be written; a full disk has no room. */
  readonly isFull: boolean;
  /** What the boots of each update do; the last one again and again. */
  readonly outcomes: ReadonlyMap<number, readonly Outcome[]>;
  readonly booted: Map<number, number>;
  readonly rollbacks: number[];
  boots: number;
}

function choose({ loader, entries }: Machine): Entry {
  const isBad = ({ counter }: Entry): boolean => counter?.left === 0 && loader !== 'boots what is used up';
  const [entry] = [...entries].sort((a, b) => Number(isBad(a)) - Number(isBad(b)) || b.sequence - a.sequence);
  if (entry === undefined) throw new Error('No entry');
  const { counter } = entry;
  const counts = loader === 'counts' || loader === 'boots what is used up';
  if (counter !== undefined && counts) {
    entry.counter = { left: Math.max(0, counter.left - 1), done: (counter.done ?? 0) + 1 };
  }
  // Something puts the name back each time.
  if (counter !== undefined && loader === 'forgets') entry.counter = { left: 2, done: 1 };
  return entry;
}

/** One boot; returns what runs and stays, or undefined when the machine boots again by itself. */
function bootOnce(machine: Machine): number | undefined {
  const entry = choose(machine);
  const { deployment } = entry;
  machine.boots += 1;
  const nth = machine.booted.get(deployment) ?? 0;
  machine.booted.set(deployment, nth + 1);
  const outcomes = machine.outcomes.get(deployment) ?? ['good'];
  const outcome = outcomes[Math.min(nth, outcomes.length - 1)] ?? 'good';
  // What is good and dies early stops there: nothing of ours reboots it.
  if (outcome === 'dies') return entry.counter === undefined ? deployment : undefined;
  if (entry.counter === undefined) return deployment;
  const isGood = (each: Entry): boolean => each.counter === undefined;
  const decision = beginBoot({
    counter: entry.counter,
    trial: machine.trials.get(deployment),
    bootId: String(machine.boots),
    hasGood: machine.entries.some(isGood),
    newestEntry: Math.max(...machine.entries.map(({ sequence }) => sequence)),
  });
  let trial: Trial | undefined = decision.trial;
  if (decision.kind === 'roll-back' && !machine.isFull) {
    const sequence = Math.max(...machine.entries.map((each) => each.sequence)) + 1;
    const [target] = machine.entries.filter(isGood).sort((a, b) => b.sequence - a.sequence);
    machine.trials.set(deployment, { ...decision.trial, rollback: sequence });
    machine.entries.push({ sequence, deployment: target?.deployment ?? 0, counter: undefined });
    machine.rollbacks.push(deployment);
    return undefined;
  }
  if (machine.isFull) trial = machine.trials.get(deployment) ?? trial;
  else machine.trials.set(deployment, trial);
  if (outcome === 'good') {
    entry.counter = undefined;
    machine.trials.delete(deployment);
    return deployment;
  }
  return endBoot(trial) === 'stay' ? deployment : undefined;
}

/** Until it stays; undefined when it does not. */
function powerOn(machine: Machine, limit: number): number | undefined {
  for (let boot = 0; boot < limit; boot += 1) {
    const stays = bootOnce(machine);
    if (stays !== undefined) return stays;
  }
  return undefined;
}

const tries = fc.integer({ min: 1, max: 9 });
const reaching = fc.array(fc.constantFrom<Outcome>('fails', 'fails', 'good'), { minLength: 1, maxLength: 12 });
const any = fc.array(fc.constantFrom<Outcome>('dies', 'dies', 'fails', 'good'), { minLength: 1, maxLength: 12 });

/** A name that is put back may give it more boots than it had. */
function most(given: number): number {
  return Math.max(given, 3);
}

function machineOf(
  loader: Machine['loader'],
  updates: readonly { readonly tries: number; readonly outcomes: readonly Outcome[] }[],
  { hasGood = true, isFull = false } = {},
): Machine {
  const counted = updates.map(({ tries: left }, at): Entry => ({
    sequence: at + 2,
    deployment: at + 2,
    counter: { left, done: 0 },
  }));
  return {
    loader,
    entries: [...(hasGood ? [{ sequence: 1, deployment: 1, counter: undefined }] : []), ...counted],
    trials: new Map(),
    isFull,
    outcomes: new Map(updates.map(({ outcomes }, at) => [at + 2, outcomes])),
    booted: new Map(),
    rollbacks: [],
    boots: 0,
  };
}

describe('a machine', () => {
  test('with any loader stops rebooting within tries + 2 boots of each update, and rolls each one back once', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...LOADERS),
        fc.array(fc.record({ tries, outcomes: reaching }), { minLength: 1, maxLength: 2 }),
        fc.boolean(),
        fc.integer({ min: 0, max: 4 }),
        (loader, updates, hasGood, restarts) => {
          const machine = machineOf(loader, updates, { hasGood });
          const bound = updates.reduce((sum, update) => sum + most(update.tries) + 2, 0);
          let runs = powerOn(machine, bound);
          expect(runs, 'it stays up').toBeDefined();
          // Somebody reboots it, again and again.
          for (let n = 0; n < restarts; n += 1) runs = powerOn(machine, bound);
          expect(runs).toBeDefined();
          expect(new Set(machine.rollbacks).size).toBe(machine.rollbacks.length);
        },
      ),
    );
  });

  test('that counts boots ends on what is good, however its updates end, and stays there', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ tries, outcomes: any }), { minLength: 1, maxLength: 3 }),
        fc.boolean(),
        (updates, isFull) => {
          const machine = machineOf('counts', updates, { isFull });
          const limit = updates.reduce((sum, update) => sum + update.tries, 1);
          const runs = powerOn(machine, limit);
          expect(machine.entries.some((entry) => entry.deployment === runs && entry.counter === undefined)).toBe(true);
          const { boots } = machine;
          expect([powerOn(machine, 1), machine.boots, machine.rollbacks]).toEqual([runs, boots + 1, []]);
        },
      ),
    );
  });

  test('whose loader counts wrongly ends on what is good where an update never comes up', () => {
    fc.assert(
      fc.property(fc.constantFrom(...LOADERS), fc.array(tries, { minLength: 1, maxLength: 3 }), (loader, list) => {
        const machine = machineOf(
          loader,
          list.map((each) => ({ tries: each, outcomes: ['fails'] })),
        );
        const limit = list.reduce((sum, each) => sum + most(each) + 1, 1);
        expect(powerOn(machine, limit)).toBe(1);
        expect(powerOn(machine, 1)).toBe(1);
        expect(machine.rollbacks.length).toBeLessThanOrEqual(1);
      }),
    );
  });

  test('without anything good, and with an update that never comes up, stays up in it', () => {
    fc.assert(
      fc.property(fc.constantFrom(...LOADERS), tries, (loader, left) => {
        const machine = machineOf(loader, [{ tries: left, outcomes: ['fails'] }], { hasGood: false });
        expect(powerOn(machine, most(left) + 1)).toBe(2);
        expect(machine.rollbacks).toEqual([]);
      }),
    );
  });
});
