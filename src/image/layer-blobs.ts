/** How the layers of an opened image come to be files on this host. */

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
  /** Bytes of layers that were not on this host when the image was opened. */
  readonly missingBytes: number;
  /** Brings what is missing, once however often it is called. No layer can be read before. */
  fetch(): Promise<FetchedLayers>;
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
