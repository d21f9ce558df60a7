/** The example recipe as its reader would use it: an OCI layout that can be deployed, made around the package. */

import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { expect, test } from 'vitest';
import { buildPackage } from '../../scripts/lib/deb.ts';
import { ensureHostPackages, TEST_NEEDS } from '../../scripts/lib/host-packages.ts';
import { projectPath } from '../../scripts/lib/project.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { reasonNoMachines } from '../vm/lib/requirements.ts';

const say = (line: string): void => console.log(line);
const reason = await reasonNoMachines(say);
if (reason !== undefined) console.error(`Skipping the example image: ${reason}`);

test.skipIf(reason !== undefined)('The example for Debian makes an image that lint has nothing against', async () => {
  await ensureHostPackages(TEST_NEEDS, say);
  const scratch = scratchDir();
  const deb = await buildPackage(scratch);
  execFileSync('dpkg-deb', ['--extract', deb, `${scratch}/package`]);
  const hostctl = (...args: string[]): string =>
    execFileSync(process.execPath, [`${scratch}/package/usr/lib/hostctl/main.js`, ...args], { encoding: 'utf8' });
  execFileSync('sh', [projectPath('examples/debian/build.sh'), deb, `${scratch}/os`, 'stable'], { stdio: 'ignore' });
  const image = `oci:${scratch}/os:stable`;
  expect(JSON.parse(hostctl('image', 'lint', '--json', image))).toMatchObject({ deployable: true, findings: [] });
  for (const name of ['sysroot', 'boot']) mkdirSync(`${scratch}/${name}`);
  const on = ['--sysroot', `${scratch}/sysroot`, '--boot', `${scratch}/boot`];
  hostctl('deploy', '--allow-missing-verity', '--karg', 'root=UUID=1', image, ...on);
  expect(JSON.parse(hostctl('status', '--json', ...on))).toMatchObject({ next: 1, warnings: [] });
});
