/** The comparison of layouts as a table and as a chart. */

export const WAYS = ['per layer', 'flat', 'cached', 'split'] as const;
export type Way = (typeof WAYS)[number];

export interface LayoutRow {
  readonly way: Way;
  readonly baseInodes: number;
  readonly images: number;
  /** Of the repository, without contents of files: before the first mount, and with all mounted. */
  readonly diskBytes: number;
  readonly mountedBytes: number;
  /** Of the processor, for one image. */
  readonly buildMs: number;
  readonly mountMs: number;
  /** Inodes, names and pages of images after a walk over a tenth of each. */
  readonly memoryBytes: number;
  /** By second of the processor, each path for the first time. */
  readonly lookupsPerSecond: number;
}

const HEAD = ['base', 'images', 'layout', 'disk MiB', '(mounted)', 'build ms', 'mount ms', 'memory MiB', 'lookups/s'];

/** In Markdown. */
export function layoutTable(rows: readonly LayoutRow[]): string {
  const mebibytes = (bytes: number): string => (bytes / 2 ** 20).toFixed(1);
  const lines = rows.map((row) => [
    String(row.baseInodes),
    String(row.images),
    row.way,
    mebibytes(row.diskBytes),
    mebibytes(row.mountedBytes),
    row.buildMs.toFixed(0),
    row.mountMs.toFixed(1),
    mebibytes(row.memoryBytes),
    String(Math.round(row.lookupsPerSecond / 100) * 100),
  ]);
  const rule = HEAD.map((_, index) => (index === 2 ? '---' : '---:'));
  return [HEAD, rule, ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

const COLOURS: Readonly<Record<Way, string>> = {
  'per layer': '#999',
  flat: '#b15b5b',
  cached: '#5b7db1',
  split: '#2a7d4f',
};
const BAR = 18;
const LABEL = 300;
const SCALE = 420;

/** Disk for the metadata of the most images on each base, as bars. */
export function layoutChart(rows: readonly LayoutRow[]): string {
  const most = Math.max(...rows.map(({ images }) => images));
  const shown = rows.filter(({ images }) => images === most);
  const largest = Math.max(...shown.map(({ diskBytes }) => diskBytes));
  const bars = shown.map(({ way, baseInodes, diskBytes }, index) => {
    const y = 40 + index * (BAR + 6);
    const length = Math.max(1, (diskBytes / largest) * SCALE);
    return [
      `<text x="${LABEL - 8}" y="${y + 13}" text-anchor="end">base of ${baseInodes} inodes, ${way}</text>`,
      `<rect x="${LABEL}" y="${y}" width="${length.toFixed(1)}" height="${BAR}" fill="${COLOURS[way]}"/>`,
      `<text x="${(LABEL + length + 6).toFixed(1)}" y="${y + 13}">${(diskBytes / 2 ** 20).toFixed(1)} MiB</text>`,
    ].join('\n');
  });
  const height = 50 + shown.length * (BAR + 6);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 880 ${height}" font-family="sans-serif" font-size="13">`,
    `<rect width="880" height="${height}" fill="#fff"/>`,
    `<text x="12" y="22" font-size="15">Metadata of ${most} application images on disk</text>`,
    ...bars,
    '</svg>\n',
  ].join('\n');
}
