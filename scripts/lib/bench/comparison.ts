/** What is held against what: ratios, goals, a table. Pure. */

export interface Comparison {
  readonly row: string;
  readonly unit: 's' | 'ms' | 'µs' | 'MiB' | 'MB' | 'GB/s';
  /** Medians; none where it was not measured or made the wrong thing. */
  readonly hostctl: number | undefined;
  readonly reference: number | undefined;
  /** What the reference is. */
  readonly against: string;
  readonly goal?: Goal;
  /** Why it was not measured. */
  readonly note?: string | undefined;
}

/** At least so many times as fast as the reference, or at most so many times as much. */
export type Goal = { readonly least: number } | { readonly most: number };

/** Of what must not grow. */
export const FLAT = { most: 1.3 } as const satisfies Goal;

export type Verdict = 'met' | 'missed' | 'no goal' | 'not measured';

/** How many times as fast where that is the goal, else how many times as much. */
export function ratioOf({ unit, hostctl, reference, goal }: Comparison): number | undefined {
  if (hostctl === undefined || reference === undefined) return undefined;
  const isSpeedOfTimes = goal !== undefined && 'least' in goal && unit !== 'GB/s';
  return isSpeedOfTimes ? reference / hostctl : hostctl / reference;
}

export function verdictOf(comparison: Comparison): Verdict {
  const ratio = ratioOf(comparison);
  const { goal } = comparison;
  if (ratio === undefined || !Number.isFinite(ratio)) return 'not measured';
  if (goal === undefined) return 'no goal';
  return ('least' in goal ? ratio >= goal.least : ratio <= goal.most) ? 'met' : 'missed';
}

const HEAD = ['row', 'unit', 'hostctl', 'reference', 'ratio', 'goal', '', 'reference is'];

export function formatComparisons(comparisons: readonly Comparison[]): string {
  const lines = comparisons.map((comparison) => {
    const { row, unit, hostctl, reference, against, goal, note } = comparison;
    const verdict = verdictOf(comparison);
    const ratio = verdict === 'not measured' ? '' : ratioOf(comparison)!.toFixed(2);
    const bound = goal === undefined ? '' : 'least' in goal ? `≥ ${goal.least}` : `≤ ${goal.most}`;
    const said = verdict === 'not measured' && note !== undefined ? `${against}; ${note}` : against;
    return [row, unit, digits(hostctl), digits(reference), ratio, bound, verdict === 'no goal' ? '' : verdict, said];
  });
  const widths = HEAD.map((_, column) => Math.max(...[HEAD, ...lines].map((cells) => cells[column]!.length)));
  return [HEAD, ...lines]
    .map((cells) =>
      cells
        .map((cell, column) =>
          column >= 2 && column <= 5 ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!),
        )
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** Three of them that say something. */
function digits(value: number | undefined): string {
  if (value === undefined || !Number.isFinite(value)) return '-';
  return value.toFixed(Math.max(0, Math.min(3, 2 - Math.floor(Math.log10(Math.max(Math.abs(value), 0.001))))));
}

/** Everything that the table says, for programs. */
export function comparisonsJson(comparisons: readonly Comparison[]): unknown {
  return comparisons.map((comparison) => ({
    ...comparison,
    hostctl: comparison.hostctl ?? null,
    reference: comparison.reference ?? null,
    ratio: ratioOf(comparison) ?? null,
    verdict: verdictOf(comparison),
  }));
}
