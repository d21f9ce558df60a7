/**
 * A scene: two disks as they are before a command, and what the checker may find after it. Made by hostctl itself, once
 * for each command and pair of file systems, then only copied.
 */

import { spawn } from 'node:child_process';
import { createHash, generateKeyPairSync } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { run } from '../../../scripts/lib/run.ts';
import { asBootc, type BootcForm } from '../../helpers/bootc-host.ts';
import { stableId } from '../checker/entries.ts';
import { type Answer, checkHost, type Expectation, type Host, repositoryImages } from '../checker/check.ts';
import { INSTALL_MARK } from '../checker/leaks.ts';
import { mountedFiles } from '../checker/mounted.ts';
import { objectPath } from '../checker/verity.ts';
import { ALGORITHM, BOOTED_ROOT, type Command, EDIT, EDITED, type Setup } from '../commands.ts';
import { copyDisk, type FileSystem, makeDisk, mount } from './disks.ts';
import { type ProofRegistry, REGISTRY_SETTINGS } from './registry.ts';

/** What everything of one run of the proof shares. */
export interface Lab {
  /** Scratch folder on tmpfs. */
  readonly directory: string;
  /** The program under proof: `main.js` in a folder of its own. */
  readonly program: string;
  /** OCI layout with the tags of `oci-image.ts`. */
  readonly images: string;
  /** Serves them too; not in a guest. */
  readonly registry?: ProofRegistry;
}

export interface Disks {
  readonly root: string;
  readonly boot: string;
}

export interface Scene {
  readonly command: Command;
  readonly disks: Disks;
  readonly types: { readonly root: FileSystem; readonly boot: FileSystem };
  readonly expected: Expectation;
  /** Ids of entries that do not boot before the command, and need not until it is done. */
  readonly brokenBefore: readonly string[];
  /** Ids of the entries that boot whole before the command; each must still do so after it. */
  readonly goodBefore: readonly string[];
  /** State directories that booted whole before and must do so after it. */
  readonly goodStates: readonly string[];
}

/** A copy of a scene's disks, mounted. */
export interface Mounted {
  readonly root: string;
  readonly boot: string;
  close(): Promise<void>;
}

export interface Verdict {
  readonly answer: Answer;
  readonly reason?: string;
}

/** Where gc can do its work, and all loaders agree on the default: no GRUB prefers this version to ours. */
const BOOTC: BootcForm = { loader: 'systemd-boot', formatVersion: 1, hasStreams: false, version: '0.1' };

export function imageReference(lab: Lab): Setup['image'] {
  return (tag) => `oci:${lab.images}:${tag}`;
}

/** Where the command finds the images. */
export function imagesFor(lab: Lab, { isRemote }: Command): Setup['image'] {
  return isRemote ? (tag) => `docker://${lab.registry?.name ?? ''}:${tag}` : imageReference(lab);
}

/** The words that run hostctl on mounted disks. */
export function hostctlCommand(lab: Lab, at: { root: string; boot: string }, args: readonly string[]): string[] {
  return [process.execPath, lab.program, '--sysroot', at.root, '--boot', at.boot, ...args];
}

/**
 * The words that run the scene's command, by `through` if anything. One for a booted host runs in a mount namespace
 * where the root is at `/sysroot`, the kernel was started by the newest entry, and the loader says that it counts boots;
 * an installation in one where the new root is there, with the boot partition below it; one that fetches its image in
 * one where the registry is trusted.
 */
export function sceneCommand(
  lab: Lab,
  { isBooted, isInstall, isRemote }: Command,
  at: { root: string; boot: string },
  args: readonly string[],
  through: readonly string[] = [],
): string[] {
  if (isRemote) {
    const words = [...through, ...hostctlCommand(lab, at, args)];
    return [...IN_NAMESPACE, AS_REMOTE, 'sh', lab.registry?.settings ?? '', ...words];
  }
  const script = isBooted ? AS_BOOTED : isInstall ? AS_INSTALLER : undefined;
  if (script === undefined) return [...through, ...hostctlCommand(lab, at, args)];
  const words = [...through, ...hostctlCommand(lab, { ...at, root: BOOTED_ROOT }, args)];
  return [...IN_NAMESPACE, script, 'sh', at.root, at.boot, ...words];
}

const IN_NAMESPACE = ['unshare', '--mount', '--propagation=slave', 'sh', '-c'];

/** Where that command finds the scene's root. */
export function rootOf({ isBooted, isInstall }: Command, at: { root: string }): string {
  return isBooted || isInstall ? BOOTED_ROOT : at.root;
}

/** Of the Boot Loader Interface's variables. */
const LOADER_VENDOR = '4a67b082-0a4c-41cf-b6c7-440b29bb8c4f';

const AS_BOOTED = `set -e
root=$1 boot=$2
shift 2
newest=$(ls "$boot/loader/entries" | grep 'conf$' | sort | tail -n 1)
mount -t tmpfs tmp /run
sed -n 's/^options *//p' "$boot/loader/entries/$newest" >/run/cmdline
mount --bind /run/cmdline /proc/cmdline
mount -t tmpfs tmp /sys/firmware
mkdir -p /sys/firmware/efi/efivars
printf '\\006\\0\\0\\0\\020\\0\\0\\0\\0\\0\\0\\0' >/sys/firmware/efi/efivars/LoaderFeatures-${LOADER_VENDOR}
mount --bind "$root" ${BOOTED_ROOT}
# It may ask for a reboot, which is not the test machine's.
! systemctl=$(command -v systemctl) || mount --bind /bin/true "$systemctl"
exec "$@"`;

/** Runs the words after the root and the boot partition as on an installer. */
export const AS_INSTALLER = `set -e
root=$1 boot=$2
shift 2
mkdir -p "$root/boot"
mount --bind "$root" ${BOOTED_ROOT}
mount --bind "$boot" ${BOOTED_ROOT}/boot
exec "$@"`;

const AS_REMOTE = `set -e
mount --bind "$1" ${REGISTRY_SETTINGS}
shift
exec "$@"`;

export interface Finished {
  readonly code: number | null;
  readonly output: string;
}

/** Runs a program to its end; one that takes longer than the limit is killed and has no exit code. */
export function runToEnd(words: readonly string[], limitMs = 300_000): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const [program = '', ...args] = words;
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: limitMs, killSignal: 'SIGKILL' });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => (output += text));
    }
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, output }));
  });
}

export async function mountDisks(disks: Disks, at: string): Promise<Mounted> {
  const root = `${at}/root`;
  const boot = `${at}/boot`;
  const closeRoot = await mount(disks.root, root);
  const closeBoot = await mount(disks.boot, boot);
  return {
    root,
    boot,
    close: async () => {
      await closeBoot();
      await closeRoot();
    },
  };
}

/** Makes the disks for a command and runs the command once, to learn what its end looks like. */
export async function makeScene(
  lab: Lab,
  command: Command,
  types: { root: FileSystem; boot: FileSystem },
): Promise<Scene> {
  const directory = `${lab.directory}/scene-${command.name.replaceAll(' ', '-')}-${types.root}-${types.boot}`;
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  const made = { root: `${directory}/made-root.img`, boot: `${directory}/made-boot.img` };
  await makeDisk(made.root, types.root);
  await makeDisk(made.boot, types.boot);
  const hostctl = async (mounted: Mounted, args: readonly string[]): Promise<void> => {
    const { code, output } = await runToEnd(hostctlCommand(lab, mounted, args));
    if (code !== 0) throw new Error(`hostctl ${args.join(' ')} ended with ${String(code)}: ${output}`);
  };

  const before = await mountDisks(made, `${directory}/mnt`);
  const old = await closing(before, async () => {
    await command.prepare({
      hostctl: (...args) => hostctl(before, args),
      bless: () => blessNewest(before.boot),
      edit: () => editAll(before.root),
      damage: (content) => flipBit(`${before.root}/${objectPath(ALGORITHM, content)}`),
      damageKernel: () => flipBit(oldestKernel(before.boot)),
      bootc: () => void asBootc(before.root, before.boot, BOOTC),
      useUp: () => useUpNewest(before),
      grub: () => {
        mkdirSync(`${before.boot}/grub`);
        writeFileSync(`${before.boot}/grub/hostctl.cfg`, 'script\n');
        writeGrubVariables(before.boot, 'hostctl_check=1\n');
      },
      cutOff: () => cutOff(before),
      image: imageReference(lab),
      async trust(securityVersion) {
        const key = generateKeyPairSync('ed25519');
        const file = `${directory}/seal.key`;
        writeFileSync(file, key.privateKey.export({ type: 'pkcs8', format: 'pem' }));
        for (const tag of ['v1', 'v2'] as const) {
          const words = ['image', 'seal', imageReference(lab)(tag), '--key', file, '--hash', ALGORITHM];
          await hostctl(before, [...words, '--security-version', String(securityVersion)]);
        }
        const states = `${before.root}/state/deploy`;
        for (const name of readdirSync(states)) {
          const keys = `${states}/${name}/etc/hostctl/keys.d`;
          mkdirSync(keys, { recursive: true });
          writeFileSync(`${keys}/proof.pub`, key.publicKey.export({ type: 'spki', format: 'pem' }));
        }
      },
    });
    // A mount namespace of another program may hold on to the mounts, so that to unmount them writes nothing.
    for (const at of [before.root, before.boot]) await run('sync', ['--file-system', at]);
    return look(hostAt(before), command);
  });
  const disks = { root: `${directory}/root.img`, boot: `${directory}/boot.img` };
  await copyDisk(made.root, disks.root);
  await copyDisk(made.boot, disks.boot);
  rmSync(made.root);
  rmSync(made.boot);

  const copy = { root: `${directory}/after-root.img`, boot: `${directory}/after-boot.img` };
  await copyDisk(disks.root, copy.root);
  await copyDisk(disks.boot, copy.boot);
  const after = await mountDisks(copy, `${directory}/mnt`);
  const words = sceneCommand(lab, command, after, command.args(imagesFor(lab, command)));
  const next = await closing(after, async () => {
    const { code, output } = await runToEnd(words);
    if (code !== 0) throw new Error(`"${command.name}" ended with ${String(code)}: ${output}`);
    return look(hostAt(after), command);
  });
  rmSync(copy.root);
  rmSync(copy.boot);
  return sceneBetween(command, types, disks, old, next);
}

/** Closes disks whatever happens, so that what happened is what is said. */
async function closing<T>(mounted: Mounted, body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } finally {
    await mounted.close();
  }
}

/** The scene of a command of which both ends have been looked at. */
export function sceneBetween(command: Command, types: Scene['types'], disks: Disks, old: Look, next: Look): Scene {
  if (command.isDone === undefined) {
    if (next.identity === undefined || next.identity === old.identity) {
      throw new Error(`"${command.name}" changes nothing that boots`);
    }
  } else if (old.isDone || !next.isDone) {
    throw new Error(`"${command.name}" does not do what it is known by`);
  }
  const after = new Set(next.good.map(stableId));
  return {
    command,
    disks,
    types,
    expected: { old: old.identity, new: command.isDone === undefined ? next.identity : old.identity },
    brokenBefore: old.broken,
    goodBefore: old.good.map(stableId).filter((id) => !command.removes || after.has(id)),
    goodStates: [...old.goodStates].filter((state) => !command.removes || next.goodStates.has(state)),
  };
}

/** What stands on a host that no fault has met. */
export interface Look {
  /** What the default entry boots. */
  readonly identity: string | undefined;
  readonly good: readonly string[];
  readonly goodStates: ReadonlySet<string>;
  /** Ids of entries that do not boot. */
  readonly broken: readonly string[];
  readonly isDone: boolean;
}

/** Looks at a host; throws when it is not whole. */
export function look(host: Host, command: Command): Look {
  const report = checkHost(host, { old: undefined, new: undefined });
  // Without knowing what to expect every default is "neither old nor new"; anything else is a fault of the scene.
  if (report.answer === 'BAD' && !report.reason?.includes('is neither old nor new')) throw new Error(report.reason);
  if (report.broken.size > 0 && command.mends !== true) throw new Error([...report.broken].join());
  const { options, good, goodStates, broken } = report;
  return {
    identity: options,
    good,
    goodStates,
    broken: [...broken.keys()].map(stableId),
    isDone: command.isDone?.(host) ?? false,
  };
}

export function hostAt(at: { root: string; boot: string }): Host {
  return { boot: mountedFiles(at.boot), bootDir: '', root: mountedFiles(at.root) };
}

function editAll(root: string): void {
  const states = `${root}/state/deploy`;
  for (const name of readdirSync(states)) writeFileSync(`${states}/${name}/${EDITED}`, EDIT);
}

function flipBit(path: string): void {
  const bytes = readFileSync(path);
  bytes[0] = (bytes[0] ?? 0) ^ 1;
  writeFileSync(path, bytes);
}

function oldestKernel(boot: string): string {
  const [oldest = ''] = readdirSync(`${boot}/loader/entries`).sort();
  return boot + (/^linux (.*)$/m.exec(readFileSync(`${boot}/loader/entries/${oldest}`, 'utf8'))?.[1] ?? '');
}

function blessNewest(boot: string): void {
  const entries = `${boot}/loader/entries`;
  const newest =
    readdirSync(entries)
      .filter((name) => name.endsWith('.conf'))
      .sort()
      .at(-1) ?? '';
  renameSync(`${entries}/${newest}`, `${entries}/${stableId(newest)}.conf`);
  if (!existsSync(`${boot}/grub`)) return;
  writeGrubVariables(boot, `hostctl_check=1\nhostctl_good=${Number(/\d+/.exec(newest)?.[0])}\n`);
}

function writeGrubVariables(boot: string, lines: string): void {
  writeFileSync(`${boot}/grub/grubenv`, `# GRUB Environment Block\n${lines}`.padEnd(1024, '#'));
}

function cutOff({ root, boot }: Mounted): void {
  const entries = `${boot}/loader/entries`;
  for (const name of readdirSync(entries)) renameSync(`${entries}/${name}`, `${entries}/${name}.tmp`);
  mkdirSync(`${boot}/EFI/BOOT`, { recursive: true });
  writeFileSync(`${boot}/EFI/BOOT/BOOTX64.EFI`, 'half');
  rmSync(`${root}/state/hostctl/history`, { recursive: true });
  for (const place of [root, boot]) writeFileSync(`${place}/${INSTALL_MARK}`, '');
}

/** The record of three boots, all that an update gets by default. */
function useUpNewest({ root, boot }: Mounted): void {
  const entries = `${boot}/loader/entries`;
  const newest = readdirSync(entries).sort().at(-1) ?? '';
  const [, digest = ''] = /composefs\.digest=\S*:([0-9a-f]+)/.exec(readFileSync(`${entries}/${newest}`, 'utf8')) ?? [];
  const text = '[trial]\nattempts = 3\ntries = 3\nboot = another\nfailed = no\n';
  const checksum = createHash('sha256').update(text).digest('hex');
  writeFileSync(`${root}/state/hostctl/trial-${digest}`, `${text}; sha256 ${checksum}\n`);
}

/**
 * The checker's answer for a scene, with what it must hold besides: nothing that booted before is lost. Only `gc` may
 * take an entry away, where another one boots the same.
 */
export function judge(scene: Scene, host: Host, isCollected = false): Verdict {
  const report = checkHost(host, scene.expected);
  if (report.answer === 'BAD') return { answer: 'BAD', reason: report.reason ?? '' };
  const { isDone } = scene.command;
  const isChanged = isDone === undefined ? report.answer === 'NEW' : isDone(host);
  const wrong = scene.command.problem?.(host, { ...report, isDone: isChanged });
  if (wrong !== undefined) return { answer: 'BAD', reason: wrong };
  const mayBeBroken = isChanged ? [] : scene.brokenBefore;
  for (const [file, problem] of report.broken) {
    if (!mayBeBroken.includes(stableId(file))) return { answer: 'BAD', reason: `${file} does not boot: ${problem}` };
  }
  const good = report.good.map(stableId);
  const lost = [
    ...scene.goodStates.filter((state) => !report.goodStates.has(state)),
    ...scene.goodBefore.filter((id) => !isCollected && !good.includes(id)),
  ];
  if (lost.length > 0) return { answer: 'BAD', reason: `${lost.join()} booted before and does not now` };
  for (const [digest, problem] of repositoryImages(host.root, ALGORITHM)) {
    // What an installation made that was cut off is nobody's: the next one takes it away before anything else.
    const isNobodys = !isChanged && host.root.kind(INSTALL_MARK) !== undefined;
    if (problem === undefined || mayBeBroken.length > 0 || isNobodys) continue;
    return { answer: 'BAD', reason: `image ${digest}: ${problem}` };
  }
  return { answer: isChanged ? 'NEW' : 'OLD' };
}
