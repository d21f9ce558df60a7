/**
 * The commands under proof, one row each: where a host stands before, what is run, and what may be true afterwards. A
 * new command that changes a host joins the sweep and the power cuts by one row here.
 */

/** What a scene is given to set itself up with. */
export interface Setup {
  /** Runs hostctl on the scene's host; anything but exit 0 is an error. */
  hostctl(...args: string[]): Promise<void>;
  /** What a good boot of the newest entry does: its counter goes. */
  bless(): void;
  /** `oci:` reference of the proof's image, version 1 or 2. */
  image(version: 1 | 2): string;
}

export interface Command {
  readonly name: string;
  /** Brings an empty host to where the command starts. */
  prepare(setup: Setup): Promise<void>;
  /** Must be idempotent: it is run again after each crash, and must then succeed. */
  args(image: Setup['image']): string[];
  /** `boot`: another default is the outcome. `repository`: another image in the repository, the same default. */
  readonly changes: 'boot' | 'repository';
}

async function deployed(setup: Setup, version: 1 | 2): Promise<void> {
  await setup.hostctl('deploy', '--allow-missing-verity', setup.image(version));
  setup.bless();
}

export const COMMANDS: readonly Command[] = [
  {
    name: 'first deploy',
    prepare: async () => {},
    args: (image) => ['deploy', '--allow-missing-verity', image(1)],
    changes: 'boot',
  },
  {
    name: 'deploy',
    prepare: (setup) => deployed(setup, 1),
    args: (image) => ['deploy', '--allow-missing-verity', image(2)],
    changes: 'boot',
  },
  {
    name: 'rollback',
    async prepare(setup) {
      await deployed(setup, 1);
      await deployed(setup, 2);
    },
    args: () => ['rollback', '--to', '1'],
    changes: 'boot',
  },
  {
    name: 'kargs --append',
    prepare: (setup) => deployed(setup, 1),
    args: () => ['kargs', '--append', 'proof=1'],
    changes: 'boot',
  },
  {
    name: 'image pull',
    prepare: (setup) => deployed(setup, 1),
    args: (image) => ['image', 'pull', image(2)],
    changes: 'repository',
  },
];

export function commandNamed(name: string): Command {
  const command = COMMANDS.find((one) => one.name === name);
  if (!command) throw new Error(`There is no command "${name}" under proof`);
  return command;
}
