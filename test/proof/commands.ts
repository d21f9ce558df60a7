/**
 * The commands under proof, one row each: where a host stands before, what is run, and what may be true afterwards. A
 * new command that changes a host joins the sweep and the power cuts by one row here.
 */

import { checkHost, type Host, type Report, repositoryImages } from './checker/check.ts';
import { grubVariables } from './checker/grub.ts';
import { leaks } from './checker/leaks.ts';
import { objectPath } from './checker/verity.ts';
import { LOADER, ONLY_IN_FIRST, type Tag } from './lib/oci-image.ts';

/** Hash of new repositories: hostctl's default. */
export const ALGORITHM = 'sha512';

/** Where a booted host has its physical root, and an installation the new one. The directory must be there. */
export const BOOTED_ROOT = '/sysroot';

/** What a scene is given to set itself up with. */
export interface Setup {
  /** Runs hostctl on the scene's host; anything but exit 0 is an error. */
  hostctl(...args: string[]): Promise<void>;
  /** What a good boot of the newest entry does: its counter goes. */
  bless(): void;
  /** The administrator writes `EDIT` to `EDITED` of each deployment that is there. */
  edit(): void;
  /** Flips a bit of the object with this content, below the scene's root. */
  damage(content: Buffer): void;
  /** Flips a bit of the kernel that the oldest entry starts. */
  damageKernel(): void;
  /** Makes the host's one deployment bootc's. */
  bootc(): void;
  /** The newest entry was booted as often as it may be, and failed: so says the record of its boots. */
  useUp(): void;
  /** Makes GRUB the loader of the host, which has shown that it can count. */
  grub(): void;
  /** What was deployed becomes what an installation leaves that was killed before its entry had a name. */
  cutOff(): void;
  /** `oci:` reference of the proof's image, by its tag. */
  image(tag: Tag): string;
  /** Seals both versions by a new key, which the deployments' `/etc` trusts from now on. */
  trust(securityVersion: number): Promise<void>;
}

export interface Step {
  readonly args: readonly string[];
  /** Exit statuses that are right, 0 alone by default. */
  readonly exits?: readonly number[];
}

/** What the checker said, and whether the change is there. */
export interface Finding extends Report {
  readonly isDone: boolean;
}

export interface Command {
  readonly name: string;
  /** Brings an empty host to where the command starts. */
  prepare(setup: Setup): Promise<void>;
  /** Unless `again` says otherwise it must be idempotent: it is run again after each crash, and must then succeed. */
  args(image: Setup['image']): string[];
  /** What is run after a crash instead, one after the other. */
  again?(image: Setup['image']): Step[];
  /** Whether the change is there. Without it, the change is another default entry; with it, the default stays. */
  readonly isDone?: (host: Host) => boolean;
  /** What of the change a power cut does not take back; all of it where this is not said. */
  readonly endures?: (host: Host) => boolean;
  /** What else is wrong with a host that boots the old or the new. */
  readonly problem?: (host: Host, found: Finding) => string | undefined;
  /** What is asked for is that something goes: it cannot be taken back, and an entry that booted before may be it. */
  readonly removes?: boolean;
  /** It starts with an older deployment that does not boot, and mends it, which stays when it fails afterwards. */
  readonly mends?: boolean;
  /** What changes is a record, and what it is for happens all the same where that cannot be written. */
  readonly goesOn?: boolean;
  /** Run as on the machine that booted the newest entry by systemd-boot, with the scene's root at `/sysroot`. */
  readonly isBooted?: boolean;
  /** Run with the scene's root mounted at `/sysroot` and the boot partition, as an ESP, below it. */
  readonly isInstall?: boolean;
  /** Its images come from a registry. */
  readonly isRemote?: boolean;
}

const STAGED = 'state/hostctl/staged';
const WITHOUT_VERITY = '--allow-missing-verity';

async function deployed(setup: Setup, tag: Tag): Promise<void> {
  await setup.hostctl('deploy', WITHOUT_VERITY, setup.image(tag));
  setup.bless();
}

/** In a deployment's state directory; no image has it. */
export const EDITED = 'etc/conf.d/local.conf';
export const EDIT = 'edited\n';

/** With what was changed in `/etc` before. */
async function staged(setup: Setup): Promise<void> {
  await deployed(setup, 'v1');
  setup.edit();
  await setup.hostctl('deploy', WITHOUT_VERITY, '--stage', setup.image('v2'));
}

const isStaged = ({ root }: Host): boolean => root.read(STAGED) !== undefined;

/** Number of the staged deployment, whose entry is there. */
function stagedNumber({ root, boot }: Host): number | undefined {
  const name = /^entry\s*=\s*(hostctl-.*)$/m.exec(root.read(STAGED)?.toString() ?? '')?.[1] ?? '';
  return boot.kind(`loader/entries/${name}.staged`) === 'file' ? Number(name.slice(8, 16)) : undefined;
}

/** What boots has what was changed in `/etc`. */
function lostEdit({ root }: Host, { goodStates }: Finding): string | undefined {
  const without = [...goodStates].find((state) => root.read(`state/deploy/${state}/${EDITED}`)?.toString() !== EDIT);
  return without === undefined ? undefined : `state/deploy/${without} is without the change to /${EDITED}`;
}

/** Of two deployments. */
const DELETE_FIRST: Pick<Command, 'args' | 'again' | 'isDone' | 'endures' | 'removes'> = {
  args: () => ['delete', '1'],
  // 7 when it is gone altogether.
  again: () => [{ args: ['delete', '1'], exits: [0, 7] }, { args: ['gc'] }],
  isDone: (host) => (host.root.list('state/deploy') ?? []).length === 1 && leaks(host).length === 0,
  // What nothing boots may come back, for the next gc.
  endures: ({ boot }) => !(boot.list('loader/entries') ?? []).some((name) => /^hostctl-0*1\b.*\.conf$/.test(name)),
  removes: true,
};

/** Onto file systems that hold no host. */
const INSTALL: Pick<Command, 'args' | 'again' | 'problem' | 'isInstall'> = {
  args: (image) => ['install', 'to-filesystem', WITHOUT_VERITY, BOOTED_ROOT, image('loader')],
  // 7 when it was installed: nothing is installed over a host. It was durable only if the first run came so far.
  again: (image) => [{ args: INSTALL.args(image), exits: [0, 7] }, { args: ['gc'] }],
  problem: ({ boot }, { isDone }) => {
    const isLoader = (path: string): boolean => boot.read(path)?.equals(LOADER) === true;
    if (!isDone || ['EFI/systemd/systemd-bootx64.efi', 'EFI/BOOT/BOOTX64.EFI'].every(isLoader)) return undefined;
    return 'it is installed without its boot loader';
  },
  isInstall: true,
};

export const COMMANDS: readonly Command[] = [
  {
    name: 'install to-filesystem',
    prepare: async () => {},
    ...INSTALL,
  },
  {
    name: 'install to-filesystem, cut off before',
    async prepare(setup) {
      await setup.hostctl('deploy', WITHOUT_VERITY, setup.image('v1'));
      setup.cutOff();
    },
    ...INSTALL,
  },
  {
    name: 'first deploy',
    prepare: async () => {},
    args: (image) => ['deploy', WITHOUT_VERITY, image('v1')],
  },
  {
    name: 'deploy',
    async prepare(setup) {
      await deployed(setup, 'v1');
      setup.edit();
    },
    args: (image) => ['deploy', WITHOUT_VERITY, image('v2')],
    problem: lostEdit,
  },
  {
    name: 'deploy from a registry',
    prepare: (setup) => deployed(setup, 'v1'),
    args: (image) => ['deploy', WITHOUT_VERITY, image('v2')],
    isRemote: true,
  },
  {
    name: 'deploy of a unified kernel',
    prepare: (setup) => deployed(setup, 'v1'),
    args: (image) => ['deploy', WITHOUT_VERITY, image('unified')],
  },
  {
    name: 'deploy sealed',
    async prepare(setup) {
      await deployed(setup, 'v1');
      await setup.trust(1);
    },
    args: (image) => ['deploy', WITHOUT_VERITY, image('v2')],
  },
  {
    name: 'mark-good with a floor',
    async prepare(setup) {
      await deployed(setup, 'v1');
      await setup.trust(1);
      await setup.hostctl('deploy', WITHOUT_VERITY, setup.image('v2'));
    },
    args: () => ['mark-good'],
    isDone: ({ root }) =>
      ['floor', 'floor-copy'].every((name) =>
        /^version = 1$/m.test(root.read(`state/hostctl/${name}`)?.toString() ?? ''),
      ),
    isBooted: true,
  },
  {
    name: 'rollback',
    async prepare(setup) {
      await deployed(setup, 'v1');
      await deployed(setup, 'v2');
    },
    args: () => ['rollback', '--to', '1'],
  },
  {
    name: 'kargs --append',
    prepare: (setup) => deployed(setup, 'v1'),
    args: () => ['kargs', '--append', 'proof=1'],
  },
  {
    name: 'kargs --once',
    prepare: (setup) => deployed(setup, 'v1'),
    args: () => ['kargs', '--once', '--append', 'proof=1'],
    isBooted: true,
  },
  {
    name: 'image pull',
    prepare: (setup) => deployed(setup, 'v1'),
    args: (image) => ['image', 'pull', image('v2')],
    isDone: ({ root }) =>
      (root.list('composefs/images') ?? []).filter((name) => /^[0-9a-f]{128}$/.test(name)).length === 2,
  },
  {
    name: 'image pull, split',
    prepare: (setup) => deployed(setup, 'v1'),
    args: (image) => ['image', 'pull', '--layout', 'split', image('v2')],
    // The deployment's image, which is the base as well, and what is laid over it; each with all that it is stored as.
    isDone: ({ root }) => {
      const images = [...repositoryImages(root, ALGORITHM).values()];
      return images.length === 2 && images.every((problem) => problem === undefined);
    },
  },
  {
    name: 'image remove, split',
    async prepare(setup) {
      await deployed(setup, 'v1');
      await setup.hostctl('image', 'pull', '--layout', 'split', setup.image('v2'));
    },
    args: (image) => ['image', 'remove', image('v2')],
    again: (image) => [{ args: ['image', 'remove', image('v2')], exits: [0, 7] }, { args: ['gc'] }],
    isDone: ({ root }) => (root.list('composefs/images/refs/hostctl-images') ?? []).length === 0,
    removes: true,
  },
  {
    name: 'image remove',
    // Beside a host, with whose image it shares a file, and another application.
    async prepare(setup) {
      await deployed(setup, 'v1');
      await setup.hostctl('image', 'pull', setup.image('app'));
      await setup.hostctl('image', 'pull', setup.image('v2'));
    },
    args: (image) => ['image', 'remove', image('app')],
    // 7 when the name is gone.
    again: (image) => [{ args: ['image', 'remove', image('app')], exits: [0, 7] }, { args: ['gc'] }],
    isDone: ({ root }) => (root.list('composefs/images/refs/hostctl-images') ?? []).length === 1,
    removes: true,
  },
  {
    name: 'switch',
    prepare: (setup) => deployed(setup, 'v1'),
    args: (image) => ['switch', image('v2')],
  },
  {
    name: 'switch from bootc',
    async prepare(setup) {
      await deployed(setup, 'v1');
      setup.bootc();
    },
    args: (image) => ['switch', WITHOUT_VERITY, image('v2')],
  },
  {
    name: 'upgrade',
    prepare: (setup) => deployed(setup, 'v1'),
    args: () => ['upgrade', '--tag', 'v2'],
    isDone: isStaged,
    isBooted: true,
  },
  {
    name: 'upgrade, bound',
    // Beside an application image that has nothing to do with it.
    async prepare(setup) {
      await deployed(setup, 'v1');
      await setup.hostctl('image', 'pull', setup.image('v2'));
    },
    args: () => ['upgrade', '--tag', 'bound'],
    isDone: isStaged,
    problem: ({ root }, { isDone }) =>
      isDone && (root.list('composefs/images/refs/hostctl-bound') ?? []).length === 0
        ? 'it is staged without its application'
        : undefined,
    isBooted: true,
  },
  {
    name: 'deploy --stage over another',
    prepare: staged,
    args: (image) => ['deploy', WITHOUT_VERITY, '--stage', image('bound')],
    isDone: (host) => (stagedNumber(host) ?? 0) > 2,
    problem: (host, found) => (stagedNumber(host) === undefined ? 'nothing is staged any more' : lostEdit(host, found)),
  },
  {
    name: 'finalize-staged',
    prepare: staged,
    args: () => ['finalize-staged'],
    // After a failure it waits until somebody asks for the image again.
    again: (image) => [{ args: ['deploy', WITHOUT_VERITY, '--stage', image('v2')] }, { args: ['finalize-staged'] }],
    problem: lostEdit,
  },
  {
    name: 'unstage',
    prepare: staged,
    args: () => ['unstage'],
    isDone: (host) => !isStaged(host),
    removes: true,
  },
  {
    name: 'mark-good',
    prepare: (setup) => setup.hostctl('deploy', WITHOUT_VERITY, setup.image('v1')),
    args: () => ['mark-good'],
    isDone: ({ boot }) => (boot.list('loader/entries') ?? []).some((name) => /^hostctl-\d+\.conf$/.test(name)),
    isBooted: true,
  },
  {
    name: 'count-boot',
    // By a loader that does not count: it starts the newest all the same.
    async prepare(setup) {
      await deployed(setup, 'v1');
      await setup.hostctl('deploy', WITHOUT_VERITY, setup.image('v2'));
      setup.useUp();
    },
    args: () => ['count-boot'],
    isBooted: true,
  },
  {
    name: 'mark-failed',
    async prepare(setup) {
      await deployed(setup, 'v1');
      await setup.hostctl('deploy', WITHOUT_VERITY, setup.image('v2'));
      setup.useUp();
    },
    args: () => ['mark-failed'],
    isDone: ({ root }) =>
      (root.list('state/hostctl') ?? []).some(
        (name) => name.startsWith('trial-') && /^reason = /m.test(root.read(`state/hostctl/${name}`)?.toString() ?? ''),
      ),
    // A root that is full must not keep the machine in a boot that failed.
    goesOn: true,
    isBooted: true,
  },
  {
    name: 'deploy with GRUB',
    async prepare(setup) {
      setup.grub();
      await deployed(setup, 'v1');
    },
    args: (image) => ['deploy', WITHOUT_VERITY, image('v2')],
  },
  {
    name: 'rollback with GRUB',
    async prepare(setup) {
      setup.grub();
      await deployed(setup, 'v1');
      await deployed(setup, 'v2');
    },
    args: () => ['rollback', '--to', '1'],
  },
  {
    name: 'mark-good with GRUB',
    async prepare(setup) {
      setup.grub();
      await setup.hostctl('deploy', WITHOUT_VERITY, setup.image('v1'));
    },
    args: () => ['mark-good'],
    isDone: ({ boot, bootDir }) => {
      const variables = grubVariables(boot, bootDir);
      return variables.get('hostctl_good') === '1' && !variables.has('hostctl_try');
    },
    isBooted: true,
  },
  {
    name: 'pin',
    prepare: (setup) => deployed(setup, 'v1'),
    args: () => ['pin', '1'],
    isDone: ({ root }) => root.kind('state/hostctl/pinned-1') !== undefined,
  },
  {
    name: 'unpin',
    async prepare(setup) {
      await deployed(setup, 'v1');
      await setup.hostctl('pin', '1');
    },
    args: () => ['unpin', '1'],
    isDone: ({ root }) => root.kind('state/hostctl/pinned-1') === undefined,
    removes: true,
  },
  {
    name: 'delete',
    async prepare(setup) {
      await deployed(setup, 'v1');
      await deployed(setup, 'v2');
    },
    ...DELETE_FIRST,
  },
  {
    name: 'delete, bound',
    async prepare(setup) {
      await deployed(setup, 'bound');
      await deployed(setup, 'v2');
      await setup.hostctl('image', 'pull', setup.image('v1'));
    },
    ...DELETE_FIRST,
  },
  {
    name: 'gc',
    async prepare(setup) {
      await staged(setup);
      await setup.hostctl('unstage');
    },
    args: () => ['gc'],
    isDone: (host) => leaks(host).length === 0,
    removes: true,
  },
  {
    name: 'fsck --repair',
    async prepare(setup) {
      await deployed(setup, 'v1');
      await deployed(setup, 'v2');
      setup.damage(ONLY_IN_FIRST);
    },
    args: () => ['fsck', '--deep', '--repair'],
    isDone: ({ root }) => root.read(objectPath(ALGORITHM, ONLY_IN_FIRST))?.equals(ONLY_IN_FIRST) === true,
    mends: true,
  },
  {
    name: 'fsck --repair of a kernel',
    async prepare(setup) {
      await deployed(setup, 'v1');
      await deployed(setup, 'v2');
      setup.damageKernel();
    },
    args: () => ['fsck', '--deep', '--repair'],
    isDone: (host) => checkHost(host, { old: undefined, new: undefined }).broken.size === 0,
    mends: true,
    // Every entry gets another number.
    removes: true,
  },
];

export function commandNamed(name: string): Command {
  const command = COMMANDS.find((one) => one.name === name);
  if (!command) throw new Error(`There is no command "${name}" under proof`);
  return command;
}
