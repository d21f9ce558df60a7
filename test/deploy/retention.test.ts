import { describe, expect, test } from 'vitest';
import { planRetention } from '../../src/deploy/retention.ts';
import { deployment, deployments, type DeploymentSpec } from '../helpers/deployments.ts';

/** Ids that a policy of `keep` drops, in order. */
function dropped(keep: number, specs: readonly DeploymentSpec[], roles: Parameters<typeof deployments>[1]): number[] {
  const found = deployments(specs.map(deployment), roles);
  return planRetention(found, { keep }).map(({ id }) => id ?? 0);
}

describe('the retention policy', () => {
  test.each<[string, number, readonly DeploymentSpec[], Parameters<typeof deployments>[1], number[]]>([
    ['drops nothing up to its count', 3, [{ id: 3 }, { id: 2 }, { id: 1 }], { next: 3, rollback: 2 }, []],
    ['drops the oldest', 2, [{ id: 4 }, { id: 3 }, { id: 2 }, { id: 1 }], { next: 4, rollback: 3 }, [1, 2]],
    [
      'drops failed ones before good ones, and broken ones before both',
      3,
      [{ id: 6 }, { id: 5 }, { id: 4, broken: true }, { id: 3, state: 'failed' }, { id: 2 }, { id: 1 }],
      { next: 6, rollback: 5 },
      [4, 3, 1],
    ],
    ['keeps what runs', 2, [{ id: 4 }, { id: 3 }, { id: 2 }, { id: 1 }], { next: 4, rollback: 3, booted: 1 }, [2]],
    ['keeps pinned ones', 2, [{ id: 4 }, { id: 3 }, { id: 2 }, { id: 1, pinned: true }], { next: 4, rollback: 3 }, [2]],
    [
      'keeps the staged one',
      2,
      [{ id: 4, state: 'staged', sequences: [] }, { id: 3 }, { id: 2 }, { id: 1 }],
      { next: 3, rollback: 2 },
      [1],
    ],
    [
      'keeps the newest good one while all newer ones are unproven',
      2,
      [{ id: 4, state: 'trying' }, { id: 3, state: 'trying' }, { id: 2 }, { id: 1 }],
      { next: 4 },
      [1, 3],
    ],
    [
      'keeps what a foreign entry starts',
      2,
      [{ id: 4 }, { id: 3 }, { id: 2, foreign: true }, { id: 1 }],
      { next: 4, rollback: 3 },
      [1],
    ],
    [
      'goes by the entry that was made last, not by the number',
      2,
      [{ id: 4 }, { id: 3 }, { id: 2 }, { id: 1, sequences: [5, 1] }],
      { next: 1, rollback: 4 },
      [2, 3],
    ],
    [
      'keeps our best where a foreign entry is the default',
      2,
      [{ id: 3, state: 'trying' }, { id: 2 }, { id: 1 }],
      {},
      [1],
    ],
  ])('%s', (_, keep, specs, roles, expected) => {
    expect(dropped(keep, specs, roles)).toEqual(expected);
  });
});
