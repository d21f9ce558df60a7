/** How the layers of an opened image come to be files on this host. */

import type { DiffId } from '../format/oci/digest.ts';

/** What a fetch brought, and what it found here. */
export interface FetchedLayers {
  readonly fetchedLayers: number;
  readonly fetchedBytes: number;
  /** Of the fetched layers, what did not have to come because objects of the repository hold it. */
  readonly savedBytes: number;
  readonly reusedLayers: number;
  readonly reusedBytes: number;
}

export interface LayerBlobs {
  /** Bytes of the layers that were asked for and were not on this host. */
  readonly missingBytes: number;
  /**
   * Brings what is missing but for layers that are known otherwise, each once however often it is called, one call at a
   * time. No layer can be read before. Returns what was brought so far.
   */
  fetch(isKnown?: (diffId: DiffId) => boolean): Promise<FetchedLayers>;
  /** No layer will be read any more: what keeps others from removing them ends. */
  release(): void;
}

const NOTHING_FETCHED: FetchedLayers = {
  fetchedLayers: 0,
  fetchedBytes: 0,
  savedBytes: 0,
  reusedLayers: 0,
  reusedBytes: 0,
};

/** Layers that lie on this host already. */
export const LAYERS_IN_PLACE: LayerBlobs = {
  missingBytes: 0,
  fetch: () => Promise.resolve(NOTHING_FETCHED),
  release: () => undefined,
};
