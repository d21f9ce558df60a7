/** zstd:chunked layers of directories and files, as containers/storage writes them, or wrong in any way. */

import type { LayerSpec } from './oci-builder.ts';
import { sha256, zstd, type Json } from './oci-builder.ts';
import { tarDir, tarFile } from './tar-builder.ts';

export interface ChunkedSpec {
  /** Contents by path; undefined for a directory. */
  readonly files: ReadonlyMap<string, Uint8Array | undefined>;
  readonly editToc?: (toc: { entries: Json[] } & Json) => unknown;
  readonly editTarSplit?: (lines: Json[]) => unknown[];
  readonly editAnnotations?: (annotations: Record<string, string>) => Record<string, string>;
  readonly editBlob?: (blob: Buffer) => void;
}

const PREFIX = 'io.github.containers.zstd-chunked.';

export function chunkedLayer(spec: ChunkedSpec): LayerSpec {
  const {
    editToc = (toc) => toc,
    editTarSplit = (lines) => lines,
    editAnnotations = (annotations) => annotations,
  } = spec;
  const frames: Buffer[] = [];
  const [raw, entries, lines]: [Buffer[], Json[], Json[]] = [[], [], []];
  let offset = 0;
  const frame = (bytes: Buffer): void => {
    frames.push(bytes);
    offset += bytes.length;
  };
  const segment = (payload: Buffer): void =>
    void lines.push({ type: 2, payload: payload.toString('base64'), position: lines.length });
  let headers: Buffer[] = [];
  const add = (bytes: Buffer): void => {
    headers.push(bytes);
    segment(bytes);
    raw.push(bytes);
  };
  for (const [name, content] of spec.files) {
    if (content === undefined) {
      add(tarDir(name));
      lines.push({ type: 1, name, payload: null, position: lines.length });
      entries.push({ type: 'dir', name, mode: 0o755 });
      continue;
    }
    const file = tarFile(name, content);
    add(file.subarray(0, 512));
    frame(zstd(Buffer.concat(headers)));
    headers = [];
    const start = offset;
    // Large files in two frames, each with an entry, as where they are cut into chunks.
    const cut = content.length > 10_000 ? 5000 : content.length;
    frame(zstd(content.subarray(0, cut)));
    entries.push({ type: 'reg', name, mode: 0o644, size: content.length, digest: sha256(content), offset: start });
    if (cut < content.length) {
      entries.push({ type: 'chunk', name, offset, chunkOffset: cut, chunkSize: content.length - cut });
      frame(zstd(content.subarray(cut)));
    }
    entries.find((entry) => entry['name'] === name)!['endOffset'] = offset;
    lines.push({ type: 1, name, size: content.length, payload: 'AAAAAAAAAAA=', position: lines.length });
    raw.push(Buffer.from(content));
    if (file.length > 512 + content.length) add(file.subarray(512 + content.length));
  }
  add(Buffer.alloc(1024));
  frame(zstd(Buffer.concat(headers)));
  const tarSplit = zstd(
    Buffer.from(
      editTarSplit(lines)
        .map((line) => `${JSON.stringify(line)}\n`)
        .join(''),
    ),
  );
  const toc = zstd(Buffer.from(JSON.stringify(editToc({ version: 1, entries, tarSplitDigest: sha256(tarSplit) }))));
  const tocAt = offset + 8;
  for (const table of [toc, tarSplit, Buffer.alloc(64)]) frame(Buffer.concat([skippable(table.length), table]));
  const annotations = {
    [`${PREFIX}manifest-checksum`]: sha256(toc),
    [`${PREFIX}manifest-position`]: `${tocAt}:${toc.length}:1:1`,
    [`${PREFIX}tarsplit-position`]: `${tocAt + toc.length + 8}:${tarSplit.length}:1`,
  };
  const blob = Buffer.concat(frames);
  spec.editBlob?.(blob);
  return { tar: Buffer.concat(raw), compression: 'zstd', blob, annotations: editAnnotations(annotations) };
}

function skippable(length: number): Buffer {
  const header = Buffer.from('502a4d1800000000', 'hex');
  header.writeUInt32LE(length, 4);
  return header;
}
