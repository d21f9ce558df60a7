/** Sparse files in tar, in the four forms there are. Shares no code with the reader it tests. */

import { base256, paxHeader, tarFile, type PaxRecords } from './tar-builder.ts';

export type SparsePair = readonly [offset: number, length: number];
export type SparseForm = 'old GNU' | '0.0' | '0.1' | '1.0';

/** The data of the parts: each byte says which part it is of. */
export function packedData(map: readonly SparsePair[]): string {
  return map.map(([, length], i) => String.fromCharCode(97 + (i % 26)).repeat(length)).join('');
}

/** The headers and data of one sparse file. */
export function sparseEntries(
  form: SparseForm,
  name: string,
  map: readonly SparsePair[],
  realSize: number,
  content = packedData(map),
): Buffer[] {
  switch (form) {
    case 'old GNU':
      return oldGnu(name, map, realSize, content);
    case '0.0': {
      const numbers = map.flatMap(
        ([offset, length]) =>
          [
            ['GNU.sparse.offset', `${offset}`],
            ['GNU.sparse.numbytes', `${length}`],
          ] as const,
      );
      const counts = [
        ['GNU.sparse.size', `${realSize}`],
        ['GNU.sparse.numblocks', `${map.length}`],
      ] as const;
      return pax([['path', name], ...counts, ...numbers], content);
    }
    case '0.1': {
      const records = {
        'GNU.sparse.name': name,
        'GNU.sparse.size': `${realSize}`,
        'GNU.sparse.numblocks': `${map.length}`,
      };
      return pax({ ...records, 'GNU.sparse.map': map.flat().join(',') }, content);
    }
    case '1.0':
      return sparse10(name, `${[map.length, ...map.flat()].join('\n')}\n`, realSize, content);
  }
}

/** Form 1.0 with this text as its map. */
export function sparse10(name: string, map: string, realSize: number, content: string): Buffer[] {
  const block = Buffer.alloc(Math.ceil(map.length / 512) * 512);
  block.write(map);
  const records = {
    'GNU.sparse.major': '1',
    'GNU.sparse.minor': '0',
    'GNU.sparse.name': name,
    'GNU.sparse.realsize': `${realSize}`,
  };
  return pax(records, block.toString('latin1') + content);
}

function pax(records: PaxRecords, content: string): Buffer[] {
  return [paxHeader(records), tarFile('GNUSparseFile.1/f', content)];
}

/** The map stands in the header and in blocks behind it, before the data. */
function oldGnu(name: string, map: readonly SparsePair[], realSize: number, content: string): Buffer[] {
  const extensions: Buffer[] = [];
  for (let at = 4; at < map.length; at += 21) {
    const block = Buffer.alloc(512);
    block.write(pairText(map.slice(at, at + 21)), 'latin1');
    if (at + 21 < map.length) block[504] = 1;
    extensions.push(block);
  }
  const head = tarFile(name, '', {
    type: 'S',
    format: 'gnu',
    size: content.length,
    at: [
      [386, pairText(map.slice(0, 4))],
      [482, map.length > 4 ? '\x01' : '\0'],
      [483, field(realSize)],
    ],
  });
  const data = Buffer.alloc(Math.ceil(content.length / 512) * 512);
  data.write(content, 'latin1');
  return [head, ...extensions, data];
}

function pairText(map: readonly SparsePair[]): string {
  return map.map(([offset, length]) => field(offset) + field(length)).join('');
}

/** Octal as far as it reaches, else base-256. */
function field(value: number): string {
  return value < 8 ** 11 ? `${value.toString(8).padStart(11, '0')}\0` : base256(BigInt(value), 12).toString('latin1');
}
