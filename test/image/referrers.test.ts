import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { parseOciDigest, type OciDigest } from '../../src/format/oci/digest.ts';
import { archiveReferrers } from '../../src/image/archive-referrers.ts';
import { layoutReferrers, SUBJECT_ANNOTATION, type Referrer } from '../../src/image/referrers.ts';
import { writeLayoutArtifact } from '../../src/image/layout-artifact.ts';
import { openImageSource } from '../../src/image/source.ts';
import { ociLayout, refName, writeBlob, writeIndex, writeJson, type Descriptor } from '../helpers/oci-builder.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { snapshot } from '../helpers/snapshot.ts';
import { tar, tarFile, tarSymlink } from '../helpers/tar-builder.ts';

const TYPE = 'application/vnd.example.v1';
const EMPTY = { mediaType: 'application/vnd.oci.empty.v1+json', digest: `sha256:${'0'.repeat(64)}`, size: 2 };

interface Layout {
  readonly directory: string;
  readonly manifest: Descriptor;
  readonly digest: OciDigest;
}

function layout(): Layout {
  const directory = scratchDir();
  const { manifest } = ociLayout(directory, { layers: [{ tar: tar([]) }], tag: 'os' });
  return { directory, manifest, digest: parseOciDigest(manifest.digest, 'Digest') };
}

/** Puts an artifact there as another tool might, and lists it. */
function add({ directory, manifest }: Layout, content: string, more: object = {}, entry: object = {}): void {
  const bytes = Buffer.from(content);
  const part = { mediaType: 'text/plain', digest: writeBlob(directory, bytes), size: bytes.length };
  const artifact = { schemaVersion: 2, artifactType: TYPE, config: EMPTY, layers: [part], subject: manifest, ...more };
  const descriptor = writeJson(directory, { mediaType: 'application/vnd.oci.image.manifest.v1+json', value: artifact });
  const index = JSON.parse(readFileSync(`${directory}/index.json`, 'utf8')) as { manifests: object[] };
  index.manifests.push({ ...descriptor, artifactType: TYPE, ...entry });
  writeIndex(directory, index);
}

const contents = (found: readonly Referrer[]): string[] =>
  found.flatMap(({ parts }) => parts.map(({ bytes }) => Buffer.from(bytes).toString()));
const found = async ({ directory, digest }: Layout): Promise<string[]> =>
  contents(await layoutReferrers(directory, digest).ofType(TYPE));

describe('what speaks of an image', () => {
  test('is found by its type and the manifest, also without our annotation, and is no image of the layout', async () => {
    const place = layout();
    add(place, 'one');
    add(place, 'two', {}, { annotations: { [SUBJECT_ANNOTATION]: place.manifest.digest } });
    expect(await found(place)).toEqual(['one', 'two']);
    const source = openImageSource({ transport: 'oci', path: place.directory }, { os: 'linux', architecture: 'amd64' });
    expect(contents(await source.referrers.ofType(TYPE))).toEqual(['one', 'two']);
  });

  test.each<[string, (place: Layout) => void]>([
    ['of another type', (place) => add(place, 'x', {}, { artifactType: 'application/other' })],
    ['that says so itself', (place) => add(place, 'x', { artifactType: 'application/other' })],
    ['about another manifest', (place) => add(place, 'x', { subject: { ...place.manifest, digest: EMPTY.digest } })],
    ['about nothing', (place) => add(place, 'x', { subject: undefined })],
    ['larger than 64 KiB', (place) => add(place, 'x'.repeat(65537))],
    ['that is no manifest', (place) => add(place, 'x', { layers: 7 })],
    [
      'whose content is another than its digest',
      (place) => {
        add(place, 'x');
        const { manifests } = JSON.parse(readFileSync(`${place.directory}/index.json`, 'utf8')) as {
          manifests: Descriptor[];
        };
        const path = `${place.directory}/blobs/${manifests.at(-1)!.digest.replace(':', '/')}`;
        writeFileSync(path, readFileSync(path, 'utf8').replace('text/plain', 'text/plane'));
      },
    ],
  ])('%s is passed over, and the next one found', async (_, make) => {
    const place = layout();
    make(place);
    add(place, 'good');
    expect(await found(place)).toEqual(['good']);
  });

  test('is looked at 64 times and not more', async () => {
    const place = layout();
    for (let i = 0; i < 70; i += 1) add(place, String(i));
    expect(await found(place)).toHaveLength(64);
  });

  test('is found by a tag too, and only under that', async () => {
    const place = layout();
    add(place, 'x', {}, { artifactType: undefined, annotations: refName('sha256-ab.sig') });
    const referrers = layoutReferrers(place.directory, place.digest);
    expect(contents([(await referrers.tagged('sha256-ab.sig'))!])).toEqual(['x']);
    expect(await referrers.tagged('sha256-cd.sig')).toBeUndefined();
  });

  test('takes the place of what was there of its type about the same image, and of nothing else', async () => {
    const place = layout();
    const put = (artifactType: string, text: string): unknown =>
      writeLayoutArtifact(place.directory, {
        artifactType,
        subject: { ...place.manifest, digest: place.digest },
        parts: [{ mediaType: 'text/plain', bytes: Buffer.from(text) }],
      });
    put('application/other', 'other');
    put(TYPE, 'first');
    put(TYPE, 'second');
    expect(await found(place)).toEqual(['second']);
    const referrers = layoutReferrers(place.directory, place.digest);
    expect(contents(await referrers.ofType('application/other'))).toEqual(['other']);
  });
});

describe('what speaks of an image in an archive', () => {
  /** An archive of the layout with one artifact, and of what else is given. */
  function archive(...more: readonly Buffer[]): { readonly place: Layout; readonly bytes: Buffer } {
    const place = layout();
    add(place, 'one');
    const names = Object.entries(snapshot(place.directory)).flatMap(([name, what]) =>
      what.startsWith('file') ? [name] : [],
    );
    const own = names.map((name) => tarFile(`./${name}`, readFileSync(`${place.directory}/${name}`)));
    return { place, bytes: tar([...more, ...own]) };
  }

  async function unpacked({ place, bytes }: ReturnType<typeof archive>): Promise<{ found: string[]; below: string }> {
    const below = scratchDir();
    mkdirSync(`${below}/beside`);
    writeFileSync(`${below}/archive`, bytes);
    const referrers = archiveReferrers(`${below}/archive`, `${below}/beside/here`, place.digest);
    return { found: contents(await referrers.ofType(TYPE)), below };
  }

  test('is found there, and nothing else is unpacked', async () => {
    const blob = (hex: string): string => `blobs/sha256/${hex.repeat(64)}`;
    const { found, below } = await unpacked(
      archive(
        tarFile('../outside', 'x'),
        tarFile(`${blob('a')}/../../../../outside`, 'x'),
        tarFile('/outside', 'x'),
        tarFile('more', 'x'),
        tarSymlink(blob('b'), '../../../outside'),
        tarFile(blob('b'), 'no link'),
        tarFile(blob('c'), 'x'.repeat(65_537)),
      ),
    );
    expect(found).toEqual(['one']);
    const kept = Object.keys(snapshot(`${below}/beside`)).filter(
      (name) => !/^here\/blobs\/sha256\/[0-9a-f]{64}$/.test(name),
    );
    expect(kept).toEqual(['here', 'here/blobs', 'here/blobs/sha256', 'here/index.json']);
    expect(readFileSync(`${below}/beside/here/${blob('b')}`, 'utf8')).toBe('no link');
    expect(existsSync(`${below}/beside/here/${blob('c')}`)).toBe(false);
  });

  test.each<[string, (bytes: Buffer) => Buffer]>([
    ['that is compressed', (bytes) => gzipSync(bytes)],
    ['that is cut short', (bytes) => bytes.subarray(0, 1000)],
    ['that is none', () => Buffer.from('x'.repeat(2000))],
  ])('is not found in one %s', async (_, edit) => {
    const { place, bytes } = archive();
    expect((await unpacked({ place, bytes: edit(bytes) })).found).toEqual([]);
  });
});
