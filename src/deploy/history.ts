/**
 * What was done to this host: one record for each change of what boots, named by the sequence number of the entry that
 * made it. For people; beside that it gives the next number, and what a deployment was that has lost its own record. A
 * crash may lose the last one.
 */

import { isDirectory, listNames } from '../sys/files.ts';
import { readRecord, removeRecord, writeRecord } from './records.ts';
import type { Sysroot } from './sysroot.ts';

export interface HistoryEvent {
  readonly sequence: number;
  /** The verb, `upgrade`, `rollback`, … */
  readonly action: string;
  /** The deployment that became the default. */
  readonly id: number;
  /** As the host's clock said, ISO 8601. */
  readonly time: string;
  readonly digest: string;
  /** Of the OCI manifest; an event of an older hostctl has none. */
  readonly manifestDigest: string | undefined;
  readonly reference: string;
  readonly version: string | undefined;
}

const HISTORY = 'history';
const NAME = /^[0-9]{8}$/;
const KEPT = 200;

/** Adds an event; the oldest beyond 200 are forgotten. */
export function addHistory(
  sysroot: Sysroot,
  event: Pick<HistoryEvent, 'sequence' | 'action' | 'time'>,
  origin: Pick<HistoryEvent, 'id' | 'digest' | 'manifestDigest' | 'reference' | 'version'>,
): void {
  writeRecord(sysroot, `${HISTORY}/${String(event.sequence).padStart(8, '0')}`, HISTORY, {
    action: event.action,
    id: String(origin.id),
    time: event.time,
    digest: origin.digest,
    'manifest-digest': origin.manifestDigest,
    reference: origin.reference,
    version: origin.version,
  });
  for (const name of eventNames(sysroot).slice(0, -KEPT)) removeRecord(sysroot, `${HISTORY}/${name}`);
}

/** Newest first. One that cannot be read is passed to `report` and left out. */
export function readHistory(sysroot: Sysroot, report: (name: string, error: unknown) => void): HistoryEvent[] {
  return eventNames(sysroot)
    .reverse()
    .flatMap((name) => {
      try {
        const fields = readRecord(sysroot, `${HISTORY}/${name}`, HISTORY);
        if (fields === undefined) return [];
        return {
          sequence: Number(name),
          action: fields.get('action'),
          id: Number(fields.get('id')),
          time: fields.get('time'),
          digest: fields.get('digest'),
          manifestDigest: fields.find('manifest-digest'),
          reference: fields.get('reference'),
          version: fields.find('version'),
        };
      } catch (error) {
        report(`${HISTORY}/${name}`, error);
        return [];
      }
    });
}

/** The highest number any event has; 0 for none. A number that was used is not given out again. */
export function highestEvent(sysroot: Sysroot): number {
  return Number(eventNames(sysroot).at(-1) ?? 0);
}

function eventNames({ hostState }: Sysroot): string[] {
  const directory = `${hostState}/${HISTORY}`;
  return isDirectory(directory) ? listNames(directory).filter((name) => NAME.test(name)) : [];
}
