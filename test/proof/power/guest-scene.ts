/** Makes a scene of what a guest recorded: the host's disks at both ends of the command are looked at from outside. */

import { mkdirSync } from 'node:fs';
import { fatFiles } from '../checker/fat.ts';
import { mountedFiles } from '../checker/mounted.ts';
import { mount } from '../lib/disks.ts';
import { type Lab, look, type Look, type Scene, sceneBetween } from '../lib/scene.ts';
import { DiskImage } from './disk-image.ts';
import type { GuestRecording } from './guest.ts';

/** The recording must be of a program that works; a mutant's recording is judged by the same command's scene. */
export async function sceneOfGuest(lab: Lab, { job, disks, recording }: GuestRecording): Promise<Scene> {
  const directory = `${lab.directory}/look`;
  mkdirSync(directory, { recursive: true });
  const root = new DiskImage(disks.root, recording, 0);
  const boot = new DiskImage(disks.boot, recording, 1);
  const lookAt = async (events: number): Promise<Look> => {
    root.advance(events);
    boot.advance(events);
    root.save(`${directory}/root.img`);
    const unmount = await mount(`${directory}/root.img`, `${directory}/root`);
    try {
      const files = boot.with([], (bytes) => fatFiles(Buffer.from(bytes)));
      return look({ boot: files, bootDir: '', root: mountedFiles(`${directory}/root`) }, job.command);
    } finally {
      await unmount();
    }
  };
  const old = await lookAt(0);
  return sceneBetween(job.command, job.types, disks, old, await lookAt(recording.events.length));
}
