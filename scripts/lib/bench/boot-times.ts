/** How long units of the initramfs took, by the journal. Pure. */

/** "Starting" and "Started", as systemd marks them. */
const STARTING = '7d4958e842da4a758f6c1cdc7b36dcc5';
const STARTED = '39f53479d3a045ac8e11786248231fbf';

/** Prints what `unitMilliseconds` reads. */
export function journalOf(units: readonly string[]): string {
  const wanted = units.map((unit) => `UNIT=${unit}`).join(' ');
  return `journalctl -b -o json ${wanted} MESSAGE_ID=${STARTING} MESSAGE_ID=${STARTED}`;
}

interface JournalLine {
  readonly UNIT?: string;
  readonly MESSAGE_ID?: string;
  /** When it was said; when the journal had it can be later. */
  readonly _SOURCE_REALTIME_TIMESTAMP?: string;
}

/** From the first start of a unit until it was there. Throws where the journal does not say. */
export function unitMilliseconds(journal: string, unit: string): number {
  const lines = journal
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as JournalLine);
  const at = (id: string): number => {
    const line = lines.find(({ UNIT, MESSAGE_ID }) => UNIT === unit && MESSAGE_ID === id);
    const time = Number(line?._SOURCE_REALTIME_TIMESTAMP);
    if (line === undefined || Number.isNaN(time)) throw new Error(`The journal does not say when ${unit} was started`);
    return time;
  };
  return (at(STARTED) - at(STARTING)) / 1000;
}

/** Milliseconds of the part in the initramfs, out of what `systemd-analyze time` prints. */
export function initramfsMilliseconds(analyzed: string): number {
  const part = /\+ ((?:\d[\d.]*(?:min|ms|s) ?)+)\(initrd\)/.exec(analyzed)?.[1];
  if (part === undefined) throw new Error(`It does not say how long the initramfs took: ${analyzed}`);
  const units: Readonly<Record<string, number>> = { min: 60_000, s: 1000, ms: 1 };
  return [...part.matchAll(/([\d.]+)(min|ms|s)/g)].reduce((sum, [, amount, unit]) => sum + Number(amount) * units[unit!]!, 0); // prettier-ignore
}
