import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { readDeployments, type Deployment } from '../../src/deploy/deployments.ts';
import type { EtcMergePolicy } from '../../src/deploy/etc-merge.ts';
import { openSysroot } from '../../src/deploy/sysroot.ts';
import { describeCarriedEtc, imageEtc, planCarryEtc, type CarriedEtc } from '../../src/ops/carry-etc.ts';
import { requireRepository } from '../../src/store/repository.ts';
import { rawFromText } from '../../src/tree/name.ts';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { scratchSysroot, type ScratchSysroot } from '../helpers/scratch-sysroot.ts';
import { snapshot } from '../helpers/snapshot.ts';
import { tarDir, tarFile } from '../helpers/tar-builder.ts';

const version = (name: string, ...more: Uint8Array[]): string => bootableLayout({ version: name, more }).reference;
const passwd = (web: number): Uint8Array => tarFile('etc/passwd', `root:x:0:0::/:\nweb:x:${web}:${web}::/:\n`);

function newest(sysroot: ScratchSysroot): Deployment {
  const [found] = readDeployments(sysroot.host, openSysroot(sysroot.host, { sysroot: sysroot.path })).list;
  if (found === undefined) throw new Error('nothing is deployed');
  return found;
}

const etcOf = (sysroot: ScratchSysroot): string => `${sysroot.path}/state/deploy/${newest(sysroot).name}/etc`;

/** The plan of carrying `/etc` of the newest deployment over to the image of deployment `to`. */
function plan(scratch: ScratchSysroot, base: Deployment, to: Deployment, policy: EtcMergePolicy = {}): CarriedEtc {
  const sysroot = openSysroot(scratch.host, { sysroot: scratch.path });
  const repository = requireRepository(scratch.host, sysroot.repo);
  if (to.origin === undefined) throw new Error('the deployment has no origin');
  const next = imageEtc(repository, to.origin.digest);
  return describeCarriedEtc(planCarryEtc(scratch.host, { sysroot, repository, base, next, policy }));
}

const NOTHING: CarriedEtc = { changed: [], conflicts: [], settled: [], shadowed: [], drift: [] };

describe('a plan of what is carried over', () => {
  test('names changes, conflicts and shadowed defaults, and writes nothing', async () => {
    const scratch = scratchSysroot();
    await scratch.deploy(version('2', tarFile('etc/hostname', 'two\n'), tarDir('etc/rc', { mode: 0o755 })));
    const second = newest(scratch);
    await scratch.deploy(version('1', tarFile('etc/rc', 'a file\n')));
    const base = newest(scratch);
    expect(plan(scratch, base, second)).toEqual(NOTHING);
    const etc = etcOf(scratch);
    writeFileSync(`${etc}/hostname`, 'mine\n');
    writeFileSync(`${etc}/rc`, 'my file\n');
    mkdirSync(`${etc}/own`);
    rmSync(`${etc}/ssh`, { recursive: true });
    const before = snapshot(scratch.path);
    const carried = {
      changed: [
        { path: '/etc/hostname', change: 'replace' },
        { path: '/etc/own', change: 'add' },
        { path: '/etc/ssh', change: 'remove' },
      ],
      conflicts: [{ path: '/etc/rc', reason: 'is a file changed here, but a directory in the new image' }],
      settled: [],
      shadowed: ['/etc/hostname'],
      drift: [],
    };
    expect(plan(scratch, base, second)).toEqual(carried);
    const policy: EtcMergePolicy = { otherwise: 'keep-local', paths: new Map([[rawFromText('rc'), 'take-image']]) };
    expect(plan(scratch, base, second, policy)).toEqual({
      ...carried,
      conflicts: [],
      settled: carried.conflicts.map((conflict) => ({ ...conflict, rule: 'take-image' })),
    });
    expect(snapshot(scratch.path)).toEqual(before);
  });

  test.each<[string, boolean, 'old' | 'new', string]>([
    ['of /var keep the old number', false, 'new', '991 holds, and files in /var keep 990'],
    [
      'of the image keep theirs where passwd is local',
      true,
      'old',
      '"/etc/passwd" is changed locally, so 990 holds, and files of the image keep 991',
    ],
  ])('says of users with another number that files %s', async (_, changed, holds, end) => {
    const scratch = scratchSysroot();
    await scratch.deploy(version('2', passwd(991)));
    const second = newest(scratch);
    await scratch.deploy(version('1', passwd(990)));
    const base = newest(scratch);
    if (changed) writeFileSync(`${etcOf(scratch)}/passwd`, 'me:x:1000:1000::/:\n', { flag: 'a' });
    expect(plan(scratch, base, second).drift).toEqual([
      {
        kind: 'user',
        name: 'web',
        oldId: 990,
        newId: 991,
        holds,
        message: `The user "web" has the number 990 here and 991 in the new image: ${end}`,
      },
    ]);
  });
});

describe('an /etc that was lost', () => {
  test.each([
    ['emptied', (etc: string) => readdirSync(etc).forEach((name) => rmSync(`${etc}/${name}`, { recursive: true }))],
    ['removed', (etc: string) => rmSync(etc, { recursive: true })],
  ])('since it was %s is not carried over, and that is said', async (_, lose) => {
    const scratch = scratchSysroot();
    const { digest } = await scratch.deploy(version('1'));
    lose(etcOf(scratch));
    await scratch.deploy(version('2'));
    expect(readFileSync(`${etcOf(scratch)}/hostname`, 'utf8')).toBe('example\n');
    expect(scratch.host.warnings).toContain(
      `"state/deploy/${digest}/etc" is lost: the new deployment gets the image's /etc, without any local change`,
    );
  });

  test('but for one file is carried over as it is', async () => {
    const scratch = scratchSysroot();
    await scratch.deploy(version('1'));
    const etc = etcOf(scratch);
    for (const name of readdirSync(etc).filter((entry) => entry !== 'hostname'))
      rmSync(`${etc}/${name}`, { recursive: true });
    await scratch.deploy(version('2'));
    expect(readdirSync(etcOf(scratch))).toEqual(['hostname']);
  });
});

describe('a conflict in /etc', () => {
  const first = (): string => version('1', tarFile('etc/rc', 'a file\n'));
  const second = (): string => version('2', tarDir('etc/rc', { mode: 0o755 }), tarFile('etc/rc/x', 'theirs'));

  test('that nobody settles refuses the deployment and leaves the host as it was', async () => {
    const scratch = scratchSysroot();
    await scratch.deploy(first());
    writeFileSync(`${etcOf(scratch)}/rc`, 'my file\n');
    const before = [scratch.entries(), snapshot(`${scratch.path}/state/deploy`)];
    await expect(scratch.deploy(second())).rejects.toThrow(
      expect.objectContaining({
        code: 'etc-conflict',
        message:
          'Local changes in /etc cannot be carried over: ' +
          '"/etc/rc" is a file changed here, but a directory in the new image',
      }),
    );
    expect([scratch.entries(), snapshot(`${scratch.path}/state/deploy`)]).toEqual(before);
  });

  test('is settled for the local version, and the shadowed default is remembered while it is shadowed', async () => {
    const scratch = scratchSysroot();
    await scratch.deploy(first());
    writeFileSync(`${etcOf(scratch)}/rc`, 'my file\n');
    await scratch.deploy(second(), { etcPolicy: { otherwise: 'keep-local' } });
    expect(readFileSync(`${etcOf(scratch)}/rc`, 'utf8')).toBe('my file\n');
    expect(readFileSync(`${etcOf(scratch)}-shadowed`, 'utf8')).toBe('/rc\n');
    expect(scratch.host.warnings).toContain(
      '"/etc/rc" is a file changed here, but a directory in the new image: the local version is kept, as configured',
    );
    // The default does not change again, but it is still another one than the local version was made from.
    await scratch.deploy(version('3', tarDir('etc/rc', { mode: 0o755 }), tarFile('etc/rc/x', 'theirs')));
    expect(readFileSync(`${etcOf(scratch)}-shadowed`, 'utf8')).toBe('/rc\n');
    await scratch.deploy(version('4', tarFile('etc/rc', 'my file\n')));
    expect(() => readFileSync(`${etcOf(scratch)}-shadowed`)).toThrow('ENOENT');
  });

  test('is settled for the image', async () => {
    const scratch = scratchSysroot();
    await scratch.deploy(first());
    writeFileSync(`${etcOf(scratch)}/rc`, 'my file\n');
    await scratch.deploy(second(), { etcPolicy: { otherwise: 'take-image' } });
    expect(readFileSync(`${etcOf(scratch)}/rc/x`, 'utf8')).toBe('theirs');
    expect(() => readFileSync(`${etcOf(scratch)}-shadowed`)).toThrow('ENOENT');
  });
});
