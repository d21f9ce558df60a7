/** What a run of the proof covers: the whole of it, or the slice that every run of the tests can afford. */

import { availableParallelism } from 'node:os';
import { COMMANDS } from './commands.ts';
import type { ConcurrencyOptions } from './concurrency.ts';
import type { FullDisksOptions } from './full-disks.ts';
import type { FileSystem } from './lib/disks.ts';
import { MUTANTS } from './mutants.ts';
import type { ReplayOptions } from './power/replay.ts';
import type { RealBootsOptions } from './real-boots.ts';

/** Calls of a first run at which it is killed; the second run then ends in a power cut. */
export interface KilledFirst {
  /** Every Nth call; undefined for none but the last. */
  readonly stride: number | undefined;
  /** And so many of the last calls, where the commit is. */
  readonly last: number;
}

export interface Plan {
  /** By name. */
  readonly commands: readonly string[];
  /** Every Nth call; 1 is all of them. Undefined leaves the part out. */
  readonly killStride: number | undefined;
  readonly errorStride: number | undefined;
  /** Commands of those above that power cuts are recorded of, where the boot partition is not FAT. */
  readonly cut: readonly string[];
  readonly power:
    | { readonly roots: readonly FileSystem[]; readonly boots: readonly FileSystem[]; readonly options: ReplayOptions }
    | undefined;
  readonly killedFirst: KilledFirst | undefined;
  /** FAT boot partitions, recorded in a guest. */
  readonly fat:
    | {
        /** Commands that are recorded. */
        readonly cut: readonly string[];
        readonly roots: readonly FileSystem[];
        readonly options: ReplayOptions;
        /** Of `deploy`; so many of the last calls, where the boot partition is written. */
        readonly killedFirst: number;
      }
    | undefined;
  /** Disks after a cut that are booted. */
  readonly realBoots: RealBootsOptions | undefined;
  /** Every Nth damage to a file; 1 is all of them. Undefined leaves the part out. */
  readonly damageStride: number | undefined;
  readonly fullDisks: FullDisksOptions | undefined;
  readonly concurrency: ConcurrencyOptions | undefined;
  /** By name. */
  readonly mutants: readonly string[];
  readonly jobs: number;
}

/** Those that write the boot partition and the store in ways of their own; the others are made of the same steps. */
const CUT = [
  ...['install to-filesystem', 'first deploy', 'deploy', 'deploy of a unified kernel', 'rollback', 'image pull'],
  ...['finalize-staged', 'delete'],
];
/** Its cache is on the root alone, and a guest has no registry. */
const CUT_OF_REGISTRY = ['deploy from a registry'];
/** They write GRUB's environment block; on the boot partitions that it is on. */
const CUT_WITH_GRUB = ['deploy with GRUB', 'rollback with GRUB'];

export const FULL: Plan = {
  commands: COMMANDS.map(({ name }) => name),
  cut: [...CUT, ...CUT_OF_REGISTRY, ...CUT_WITH_GRUB],
  killStride: 1,
  errorStride: 1,
  power: {
    roots: ['ext4', 'xfs', 'btrfs'],
    boots: ['ext4', 'xfs'],
    options: { subsets: { all: 4, boot: 0 }, againEvery: 40 },
  },
  killedFirst: { stride: 3, last: 12 },
  fat: { cut: CUT, roots: ['ext4', 'xfs', 'btrfs'], options: { subsets: { all: 4, boot: 1000 } }, killedFirst: 4 },
  realBoots: { recordings: 3, boots: 10 },
  damageStride: 1,
  fullDisks: {
    pairs: [
      { root: 'ext4', boot: 'ext4' },
      { root: 'xfs', boot: 'xfs' },
      { root: 'ext4', boot: 'vfat' },
    ],
    stepMib: 1,
  },
  concurrency: { workers: 8, seconds: 600, seed: 1 },
  mutants: MUTANTS.map(({ name }) => name),
  jobs: availableParallelism(),
};

/** A few minutes: enough that no broken step goes unseen for long. */
export const SLICE: Plan = {
  commands: ['deploy', 'rollback', 'image pull'],
  cut: CUT,
  killStride: 12,
  errorStride: 40,
  power: {
    roots: ['ext4'],
    boots: ['ext4'],
    options: { subsets: { all: 1, boot: 0 }, stride: 6, againEvery: 20 },
  },
  killedFirst: { stride: 40, last: 5 },
  fat: undefined,
  realBoots: undefined,
  damageStride: 29,
  fullDisks: { pairs: [{ root: 'ext4', boot: 'ext4' }], stepMib: 8 },
  concurrency: { workers: 3, seconds: 15, seed: 1 },
  // Those that a fault at a call finds, the same every time; power cuts find theirs only with more states than this.
  mutants: ['entry before its kernel', 'short write ignored'],
  jobs: availableParallelism(),
};
