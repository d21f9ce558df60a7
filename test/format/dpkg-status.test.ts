import { expect, test } from 'vitest';
import { parseDpkgStatus } from '../../src/format/dpkg-status.ts';

const paragraph = (fields: Record<string, string>): string =>
  Object.entries(fields)
    .map(([name, value]) => `${name}: ${value}\n`)
    .join('');

test('installed packages and nothing else, by architecture where there are several', () => {
  const installed = 'install ok installed';
  const text = [
    paragraph({ Package: 'bash', Status: installed, Architecture: 'amd64', Version: '5.2-1' }),
    paragraph({ Package: 'gone', Status: 'deinstall ok config-files', Architecture: 'amd64', Version: '1' }),
    paragraph({ Package: 'half', Status: 'install ok half-installed', Architecture: 'amd64', Version: '1' }),
    paragraph({ Package: 'libc6', Status: installed, Architecture: 'amd64', Version: '2.41' }),
    `${paragraph({ package: 'libc6', Status: installed, Architecture: 'i386', Version: '2.40' })}Description: x\n Version: 9\n .\n`,
    paragraph({ Package: 'no-version', Status: installed }),
    'no field at all\n',
  ].join('\n');
  expect([...parseDpkgStatus(text)]).toEqual([
    ['bash', '5.2-1'],
    ['libc6:amd64', '2.41'],
    ['libc6:i386', '2.40'],
  ]);
  expect(parseDpkgStatus('')).toEqual(new Map());
});
