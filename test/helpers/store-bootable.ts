/** Puts an image into a repository in the form that is booted, as `deploy` does and nothing more. */

import { storeBootableImage } from '../../src/ops/store-bootable-image.ts';
import { withImage } from '../../src/ops/with-image.ts';
import { openOrCreateRepository } from '../../src/store/repository.ts';
import { withObjectStore } from '../../src/store/sweep.ts';
import type { Host } from '../../src/sys/host.ts';

export async function storeBootable(host: Host, repo: string, reference: string): Promise<void> {
  const repository = openOrCreateRepository(host, repo, {});
  await withObjectStore(host, repository, (store) =>
    withImage(host, reference, repo, (source) =>
      storeBootableImage(host, repository, source, store, (_, bootFiles) =>
        Promise.resolve({ bootFiles, formatVersion: undefined }),
      ),
    ),
  );
}
