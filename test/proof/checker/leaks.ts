/**
 * What lies on a host's disks and belongs to nothing any more: what `gc` must take away after a failed or interrupted
 * command. As the rest of the checker it knows the layout from the documentation alone.
 */

import { type Host, stateOf, storedAs } from './check.ts';
import { type LoaderEntry, parseEntryText, programOf, readEntries, stableId } from './entries.ts';
import { readImage } from './erofs.ts';
import { type Files, join } from './files.ts';

const DIGEST = /^[0-9a-f]{64}([0-9a-f]{64})?$/;
const ENTRIES = 'loader/entries';
/** At the top of each file system that an installation writes to, until it has ended. */
export const INSTALL_MARK = '.hostctl-installing';

/** Paths of everything that is left over. */
export function leaks(host: Host): string[] {
  const { boot, bootDir, root } = host;
  const staged = /^entry\s*=\s*(.*)$/m.exec(root.read('state/hostctl/staged')?.toString('utf8') ?? '')?.[1];
  const inert = (boot.list(join(bootDir, ENTRIES)) ?? []).filter((name) => !name.endsWith('.conf'));
  const kept = readEntries(boot, bootDir);
  if (staged !== undefined) {
    const text = boot.read(join(bootDir, ENTRIES, `${staged}.staged`))?.toString('utf8') ?? '';
    kept.push({ fileName: staged, keys: parseEntryText(text) });
  }
  const beside = new Set(kept.map(({ fileName }) => `${stableId(fileName)}.cfg`));
  const marks = [root, boot].flatMap((files) => (files.kind(INSTALL_MARK) === undefined ? [] : [INSTALL_MARK]));
  return [
    ...marks,
    ...inert
      .filter((name) => name !== `${staged ?? ''}.staged` && !beside.has(name))
      .map((name) => join(ENTRIES, name)),
    ...kernelLeaks(host, kept),
    ...stateLeaks(root, kept),
    ...repositoryLeaks(root, kept),
  ];
}

function kernelLeaks({ boot, bootDir }: Host, entries: readonly LoaderEntry[]): string[] {
  const used = entries.map((entry) => /\/hostctl\/([^/]+)\/[^/]+$/.exec(programOf(entry))?.[1]);
  return (boot.list(join(bootDir, 'hostctl')) ?? [])
    .filter((name) => !used.includes(name))
    .map((name) => join('hostctl', name));
}

/** State directories that no entry names; an entry that does not say has the one of its image. */
function stateLeaks(root: Files, entries: readonly LoaderEntry[]): string[] {
  const used = entries.map(stateOf);
  return (root.list('state/deploy') ?? []).filter((name) => !used.includes(name)).map((name) => `state/deploy/${name}`);
}

/** Images without a ref, an image over them or a boot entry of bootc, which makes no refs; objects that no image names, and names that are nobody's. */
function repositoryLeaks(root: Files, entries: readonly LoaderEntry[]): string[] {
  const found: string[] = [];
  const ofBootc = entries.filter(({ fileName }) => fileName.startsWith('bootc_')).map(stateOf);
  const refs = refTargets(root, 'composefs/images/refs');
  const bases = [...refs].flatMap((digest) => storedAs(root, digest).slice(1));
  const named = new Set([...refs, ...bases, ...ofBootc]);
  const reachable = new Set<string>();
  for (const name of root.list('composefs/images') ?? []) {
    if (name === 'refs') continue;
    if (!DIGEST.test(name) || !named.has(name)) found.push(`composefs/images/${name}`);
    for (const digest of storedAs(root, name)) {
      const object = `${digest.slice(0, 2)}/${digest.slice(2)}`;
      reachable.add(object);
      const image = root.read(`composefs/objects/${object}`);
      for (const entry of image === undefined ? [] : readImage(image)) {
        if (entry.object) reachable.add(entry.object.path);
      }
    }
  }
  for (const name of root.list('composefs/hostctl') ?? []) {
    if (name === 'layers') continue;
    if (name === 'cache') {
      found.push(...filesBelow(root, 'composefs/hostctl/cache'));
      continue;
    }
    if (root.readlink(`composefs/images/${name}`) === undefined) found.push(`composefs/hostctl/${name}`);
  }
  const layers = new Set((root.list('composefs/images') ?? []).flatMap((image) => layersOf(root, image)));
  for (const name of root.list('composefs/hostctl/layers') ?? []) {
    if (!layers.has(name)) found.push(`composefs/hostctl/layers/${name}`);
  }
  for (const prefix of root.list('composefs/objects') ?? []) {
    for (const rest of root.list(`composefs/objects/${prefix}`) ?? []) {
      if (!reachable.has(`${prefix}/${rest}`)) found.push(`composefs/objects/${prefix}/${rest}`);
    }
  }
  for (const name of root.list('composefs/seals') ?? []) {
    const image = name.replace(/\.sig$/, '');
    if (image !== 'revoked' && root.readlink(`composefs/images/${image}`) === undefined) {
      found.push(`composefs/seals/${name}`);
    }
  }
  const expected = ['hostctl', 'seals', 'streams', 'images', 'objects', 'meta.json'];
  const others = (root.list('composefs') ?? []).filter((name) => !expected.includes(name));
  return [...found, ...others.map((name) => `composefs/${name}`)];
}

/** Where blobs are fetched to only its directories stay. */
function filesBelow(root: Files, directory: string): string[] {
  return (root.list(directory) ?? []).flatMap((name) => {
    const path = `${directory}/${name}`;
    return root.kind(path) === 'directory' ? filesBelow(root, path) : [path];
  });
}

/** Diff ids, without their algorithm, of the layers that an image was made of by its record. */
function layersOf(root: Files, image: string): string[] {
  const record = root.read(`composefs/hostctl/${image}`)?.toString('utf8') ?? '';
  const ids = /^layers\s*=\s*(.*)$/m.exec(record)?.[1]?.split(' ') ?? [];
  return ids.map((id) => id.slice(id.indexOf(':') + 1));
}

/** Digests that refs below `directory` name. */
function refTargets(root: Files, directory: string): Set<string> {
  const targets = new Set<string>();
  for (const name of root.list(directory) ?? []) {
    const path = `${directory}/${name}`;
    const target = root.readlink(path)?.split('/').at(-1);
    if (target !== undefined) targets.add(target);
    else if (root.kind(path) === 'directory') refTargets(root, path).forEach((one) => targets.add(one));
  }
  return targets;
}
