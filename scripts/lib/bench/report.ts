/** What the measurement says: a table, ratios, a chart. */

import { median, type Measured } from './measure.ts';
import type { Pipeline } from './pipelines.ts';

export interface Run extends Measured {
  readonly bytesWritten: number;
}

/** All rounds of one pipeline; none where it was not measured or made the wrong thing. */
export interface Row {
  readonly pipeline: Pipeline | 'floor';
  readonly runs: readonly Run[];
  /** Why there are none. */
  readonly note?: string;
}

export interface Report {
  readonly rows: readonly ({ readonly pipeline: string } & Run)[];
  readonly ratios: {
    readonly wallVsBestNoFsync: number | null;
    readonly cpuVsBestNoFsync: number | null;
    readonly wallVsBestShipped: number | null;
    readonly wallVsFloor: number | null;
  };
}

export function rowName({ pipeline }: Row): string {
  return pipeline === 'floor' ? 'floor' : pipeline.name;
}

/** Medians of each row, and ratios of the medians: peer ÷ hostctl, except hostctl ÷ floor. */
export function report(rows: readonly Row[]): Report {
  const measured = rows.filter(({ runs }) => runs.length > 0);
  const middle = (row: Row, pick: (run: Run) => number): number => median(row.runs.map(pick));
  const ours = measured.find(({ pipeline }) => pipeline !== 'floor' && pipeline.kind === 'hostctl');
  const floor = measured.find(({ pipeline }) => pipeline === 'floor');
  const best = (kind: Pipeline['kind'], pick: (run: Run) => number): number | null => {
    const peers = measured.filter(({ pipeline }) => pipeline !== 'floor' && pipeline.kind === kind);
    if (ours === undefined || peers.length === 0) return null;
    return Math.min(...peers.map((row) => middle(row, pick))) / middle(ours, pick);
  };
  const wall = (run: Run): number => run.wallSec;
  return {
    rows: measured.map((row) => ({
      pipeline: rowName(row),
      wallSec: middle(row, wall),
      cpuSec: middle(row, ({ cpuSec }) => cpuSec),
      maxRssMiB: middle(row, ({ maxRssMiB }) => maxRssMiB),
      bytesWritten: middle(row, ({ bytesWritten }) => bytesWritten),
    })),
    ratios: {
      wallVsBestNoFsync: best('no fsync', wall),
      cpuVsBestNoFsync: best('no fsync', ({ cpuSec }) => cpuSec),
      wallVsBestShipped: best('as shipped', wall),
      wallVsFloor: ours === undefined || floor === undefined ? null : middle(ours, wall) / middle(floor, wall),
    },
  };
}

export function formatTable(rows: readonly Row[]): string {
  const lines = [['pipeline', 'CPU s', '(least)', 'wall s', '(least)', 'MiB RSS', 'MB written']];
  for (const row of rows) {
    const { runs } = row;
    if (runs.length === 0) {
      lines.push([rowName(row), `not measured: ${row.note ?? ''}`]);
      continue;
    }
    const both = (pick: (run: Run) => number): string[] => [
      median(runs.map(pick)).toFixed(2),
      Math.min(...runs.map(pick)).toFixed(2),
    ];
    lines.push([
      rowName(row),
      ...both(({ cpuSec }) => cpuSec),
      ...both(({ wallSec }) => wallSec),
      median(runs.map(({ maxRssMiB }) => maxRssMiB)).toFixed(0),
      median(runs.map(({ bytesWritten }) => bytesWritten / 1e6)).toFixed(0),
    ]);
  }
  const width = Math.max(...lines.map(([first = '']) => first.length));
  return lines
    .map(([first = '', ...rest]) => `${first.padEnd(width)} ${rest.map((text) => text.padStart(11)).join('')}`)
    .join('\n');
}

const BAR = 22;
const LABEL = 300;
const SCALE = 420;

/** Wall time as bars, with the processor time beside it. */
export function chart(title: string, { rows }: Report): string {
  const most = Math.max(...rows.map(({ wallSec }) => wallSec));
  const escape = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
  const bars = [...rows]
    .sort((a, b) => a.wallSec - b.wallSec)
    .map(({ pipeline, wallSec, cpuSec }, i) => {
      const y = 40 + i * (BAR + 8);
      const length = Math.max(1, (wallSec / most) * SCALE);
      const colour = pipeline.startsWith('hostctl') ? '#2a7d4f' : pipeline === 'floor' ? '#999' : '#5b7db1';
      return [
        `<text x="${LABEL - 8}" y="${y + 15}" text-anchor="end">${escape(pipeline)}</text>`,
        `<rect x="${LABEL}" y="${y}" width="${length.toFixed(1)}" height="${BAR}" fill="${colour}"/>`,
        `<text x="${(LABEL + length + 6).toFixed(1)}" y="${y + 15}">${wallSec.toFixed(1)} s (${cpuSec.toFixed(1)} s CPU)</text>`,
      ].join('\n');
    });
  const height = 50 + rows.length * (BAR + 8);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 880 ${height}" font-family="sans-serif" font-size="13">`,
    `<rect width="880" height="${height}" fill="#fff"/>`,
    `<text x="12" y="22" font-size="15">${escape(title)}</text>`,
    ...bars,
    '</svg>\n',
  ].join('\n');
}
