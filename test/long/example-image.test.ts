/** The example recipe as its reader would use it: an OCI layout that can be deployed, made around the package. */

import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { buildPackage } from '../../scripts/lib/deb.ts';
import { ensureHostPackages, TEST_NEEDS } from '../../scripts/lib/host-packages.ts';
import { projectPath } from '../../scripts/lib/project.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { runGuest } from '../vm/lib/guest.ts';
import { makeOfflineDisk } from '../vm/lib/offline-disk.ts';
import { reasonNoMachines } from '../vm/lib/requirements.ts';

const say = (line: string): void => console.log(line);
const reason = await reasonNoMachines(say);
if (reason !== undefined) console.error(`Skipping the example image: ${reason}`);

const LOADER = '/usr/lib/systemd/boot/efi/systemd-bootx64.efi';

test.skipIf(reason !== undefined)(
  'The example for Debian makes an image that lint has nothing against, and that boots',
  async () => {
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
    const deploy = ['deploy', '--json', '--allow-missing-verity', '--karg', 'root=LABEL=root', '--karg', 'rw', image];
    const { digest } = JSON.parse(hostctl(...deploy, ...on)) as { digest: string };
    expect(JSON.parse(hostctl('status', '--json', ...on))).toMatchObject({ next: 1, warnings: [] });

    const loader = `${scratch}/loader.efi`;
    const cat = [`${scratch}/package/usr/lib/hostctl/main.js`, 'image', 'cat', image, LOADER];
    writeFileSync(loader, execFileSync(process.execPath, cat, { maxBuffer: 1 << 24 }));
    const disk = `${scratch}/disk.img`;
    await makeOfflineDisk(
      {
        sysroot: `${scratch}/sysroot`,
        boot: `${scratch}/boot`,
        loader,
        algorithm: 'sha512',
        label: 'root',
        scratch: `${scratch}/disk`,
      },
      disk,
    );
    const { answers } = await runGuest({
      folder: scratch,
      name: 'example',
      disks: [{ path: disk }],
      deadlineMs: 900_000,
      steps: [
        { name: 'status', run: 'hostctl status --json' },
        { name: 'root', run: 'findmnt --noheadings --output SOURCE,FSTYPE /' },
        { name: 'fsck', run: 'hostctl fsck' },
      ],
    });
    expect(JSON.parse(answers.ok('status'))).toMatchObject({
      booted: 1,
      next: 1,
      warnings: [],
      deployments: [{ id: 1, state: 'good', composefs: { digest, verity: 'required' } }],
    });
    expect(answers.ok('root').trim()).toBe(`composefs:${digest} overlay`);
    answers.ok('fsck');
  },
);
