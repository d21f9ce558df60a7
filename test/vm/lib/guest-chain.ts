/**
 * Boots in which each goes on with the disk that the one before has left. They have a folder of their own, which stays
 * where a test failed; and nothing is booted any more from a disk that a failed test has left.
 */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach } from 'vitest';
import { type GuestBoot, type GuestResult, runGuest } from './guest.ts';
import { copyDisk } from './installed-disk.ts';

export class GuestChain {
  readonly #say: (line: string) => void;
  #folder = '';
  /** The test that failed first since the chain began. */
  #failed: string | undefined;
  #isKept = false;

  /** To be made in a `describe`, since it watches the tests there. The folder exists from its `beforeAll` on. */
  constructor(name: string, say: (line: string) => void) {
    this.#say = say;
    beforeAll(async () => {
      this.#folder = await mkdtemp(join(tmpdir(), `hostctl-${name}-`));
    });
    beforeEach(({ task, onTestFailed }) => {
      onTestFailed(() => {
        this.#failed ??= task.name;
        this.#isKept = true;
      });
    });
    afterAll(async () => {
      if (this.#isKept) say(`Disks and logs are kept in ${this.#folder}`);
      else await rm(this.#folder, { recursive: true, force: true });
    });
  }

  get folder(): string {
    return this.#folder;
  }

  get disk(): string {
    return join(this.#folder, 'disk.img');
  }

  /** Begins again with a copy of this disk. */
  async start(original: string): Promise<void> {
    await copyDisk(original, this.disk);
    this.forget();
  }

  /** Begins again: no test has touched the disk that comes now. */
  forget(): void {
    this.#failed = undefined;
  }

  async boot(name: string, machine: Omit<GuestBoot, 'folder' | 'name'>): Promise<GuestResult> {
    if (this.#failed !== undefined) {
      throw new Error(`"${name}" is not booted: an earlier test of this chain failed: ${this.#failed}`);
    }
    const guest = await runGuest({ ...machine, folder: this.#folder, name });
    this.#say(`${name}: ${guest.seconds} s`);
    return guest;
  }
}
