/** A sink that writes the content of some objects to files, and only measures the others. */

import * as fs from 'node:fs';
import { measuringSink } from '../image/ingest.ts';
import { HostctlError } from '../errors.ts';
import { createFile, writeAll } from '../sys/files.ts';
import { contentSize, type FileNode, type VerityAlgorithm } from '../tree/node.ts';
import type { ObjectSink } from '../tree/objects.ts';

export interface WantedFile {
  readonly file: FileNode;
  /** Where its content goes; nothing is there yet. */
  readonly path: string;
}

/** `finish` writes what is part of the tree itself, and throws 'image-invalid' for what did not come. */
export function extractingSink(
  algorithm: VerityAlgorithm,
  wanted: readonly WantedFile[],
): { readonly sink: ObjectSink; readonly finish: () => void } {
  const measuring = measuringSink(algorithm);
  const open = new Map(wanted.map((each) => [each.path, each]));
  const sink: ObjectSink = {
    algorithm,
    create(sizeBytes) {
      const writer = measuring.create(sizeBytes);
      const candidates = [...open.values()].filter(({ file }) => contentSize(file.content) === sizeBytes);
      const [first] = candidates;
      if (first === undefined) return writer;
      const temporary = `${first.path}.part`;
      const fd = fs.openSync(temporary, 'w', 0o600);
      let isOpen = true;
      const end = (): void => {
        if (!isOpen) return;
        isOpen = false;
        fs.closeSync(fd);
      };
      return {
        write(chunk) {
          writeAll(fd, chunk);
          writer.write(chunk);
        },
        finish() {
          end();
          const digest = writer.finish();
          for (const { file, path } of candidates) {
            if (file.content.kind !== 'external' || file.content.digest !== digest) continue;
            fs.copyFileSync(temporary, path);
            open.delete(path);
          }
          fs.rmSync(temporary);
          return digest;
        },
        abort() {
          end();
          fs.rmSync(temporary, { force: true });
          writer.abort();
        },
      };
    },
  };
  const finish = (): void => {
    for (const { file, path } of open.values()) {
      const { content } = file;
      if (content.kind !== 'inline') throw new HostctlError('image-invalid', 'The image changed while it was read');
      createFile(path, [content.bytes], 0o600);
    }
  };
  return { sink, finish };
}
