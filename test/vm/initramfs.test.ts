import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { buildPackage } from '../../scripts/lib/deb.ts';
import { projectPath } from '../../scripts/lib/project.ts';
import { run } from '../../scripts/lib/run.ts';
import { commandsOf } from '../helpers/shell-commands.ts';
import { reasonNoMachines } from './lib/requirements.ts';
import { testImage } from './lib/test-image.ts';

const say = (line: string): void => console.error(line);
const reason = await reasonNoMachines(say);
if (reason !== undefined) say(`Skipping the initramfs tests: ${reason}`);

describe.skipIf(reason !== undefined)('The initramfs that dracut makes with hostctl installed', () => {
  let files: Set<string>;

  beforeAll(async () => {
    const folder = await mkdtemp(join(tmpdir(), 'hostctl-initramfs-'));
    try {
      const { installer } = await testImage(await buildPackage(folder), say);
      const listing = await run('sh', ['-c', 'cpio --list --quiet <"$1"', 'sh', installer.initrd]);
      files = new Set(listing.split('\n').filter(Boolean));
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  test('has every program that our scripts call', async () => {
    const scripts = ['hostctl-root.sh', 'hostctl-counter.sh', 'hostctl-emergency.sh', 'hostctl-waiting.sh'];
    const paths = [...scripts.map((name) => `dracut/50hostctl/${name}`), 'systemd/hostctl-generator'];
    const texts = await Promise.all(paths.map((path) => readFile(projectPath(path), 'utf8')));
    // A function of dracut's; and seals are only checked where the image has keys.
    const called = commandsOf(texts.join('\n')).filter((name) => !['getargbool', 'openssl'].includes(name));
    const missing = ['sh', ...called].filter((name) => !files.has(`usr/bin/${name}`) && !files.has(`usr/sbin/${name}`));
    expect(missing).toEqual([]);
  });

  test('has the hook, and its unit where nothing can pass it by', () => {
    const wanted = [
      'usr/lib/hostctl/hostctl-root',
      'usr/lib/hostctl/boot-counter',
      'var/lib/dracut/hooks/emergency/99-hostctl-emergency.sh',
      'var/lib/dracut/hooks/shutdown-emergency/99-hostctl-emergency.sh',
      'usr/lib/systemd/system-generators/hostctl-generator',
      'usr/lib/systemd/system/hostctl-root.service',
      'etc/systemd/system/initrd-root-fs.target.requires/hostctl-root.service',
      'usr/lib/hostctl/hostctl-waiting',
      'usr/lib/systemd/system/hostctl-waiting.service',
      'etc/systemd/system/initrd.target.wants/hostctl-waiting.service',
    ];
    expect(wanted.filter((name) => !files.has(name))).toEqual([]);
  });

  test('has the drivers of the root', () => {
    for (const driver of ['erofs', 'overlay', 'loop']) {
      expect([...files].some((name) => new RegExp(`/${driver}\\.ko(\\.\\w+)?$`).test(name))).toBe(true);
    }
  });

  test('has no Node in it', () => {
    expect([...files].filter((name) => /\/(node|nodejs|libnode.*)$/.test(name))).toEqual([]);
  });
});
