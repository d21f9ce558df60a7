/**
 * Runs the dracut root hook on this machine: in a private mount namespace and a chroot that looks like an initramfs,
 * with a command line, a physical root and an `fsverity` of the test's choosing. What the hook does to mounts is real;
 * what it measures is not, since few test machines have fs-verity. Needs root.
 */

import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  statSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

const source = (path: string): string => new URL(`../../${path}`, import.meta.url).pathname;
const HOOK = source('dracut/50hostctl/hostctl-root.sh');
/** What probes may call as well, by its name in /etc. */
const OTHERS = {
  emergency: source('dracut/50hostctl/hostctl-emergency.sh'),
  generator: source('systemd/hostctl-generator'),
};
const COUNTER = source('dracut/50hostctl/hostctl-counter.sh');

/** What the stand-in for `fsverity measure` answers about the image. */
export type Measured = 'right' | 'other' | 'none';

export interface HookOptions {
  /** Default: the right digest. */
  readonly measured?: Measured;
  /** Mount the physical root read-only first. */
  readonly readOnly?: boolean;
  /** The kernel cannot mount EROFS from a file. */
  readonly noFileMounts?: boolean;
  /** Files below `/etc/hostctl` of the initramfs; undefined for one without that directory. */
  readonly trust?: Readonly<Record<string, string | Uint8Array>> | undefined;
  /** Shell commands run after the hook in the same namespace, whatever it returned. */
  readonly probes?: readonly string[];
  /** The loader's EFI variables, by name; without any there is no EFI. */
  readonly variables?: Readonly<Record<string, string>>;
}

/** A variable of the boot loader as the kernel shows it: attributes, then text in UTF-16. */
export function loaderVariable(text: string): Buffer {
  return Buffer.concat([Buffer.from([6, 0, 0, 0]), Buffer.from(`${text}\0`, 'utf16le')]);
}

const LOADER_VENDOR = '4a67b082-0a4c-41cf-b6c7-440b29bb8c4f';

export interface HookRun {
  readonly status: number | null;
  readonly stderr: string;
  /** Lines of /proc/self/mountinfo, reduced to `point type source options`. */
  readonly mounts: readonly string[];
  /** Options of the overlay at /sysroot, or undefined where there is none. */
  readonly overlayOptions: string | undefined;
  /** Result of each probe command, run in the namespace after the hook. */
  readonly probes: readonly string[];
}

/** Why this machine cannot run the hook, or undefined. */
export function reasonNoHook(): string | undefined {
  if (process.getuid?.() !== 0) return 'mounting needs root';
  for (const program of ['mkfs.erofs', 'fsverity', 'losetup']) {
    if (spawnSync('sh', ['-c', `command -v ${program}`]).status !== 0) return `${program} is missing`;
  }
  spawnSync('modprobe', ['-q', '-a', 'erofs', 'overlay', 'loop']);
  const known = readFileSync('/proc/filesystems', 'utf8');
  return /\berofs$/m.test(known) && /\boverlay$/m.test(known) ? undefined : 'the kernel lacks erofs or overlay';
}

export class HookSandbox {
  readonly root: string;
  readonly physical: string;
  readonly digest: string;
  /** A variable that the firmware does not let anybody write. */
  lockedVariable: string | undefined;

  /** Lays out a physical root with one image, the deployment of it and an empty shared /var. */
  constructor(
    algorithm: 'sha256' | 'sha512' = 'sha512',
    directories = ['etc', 'var', 'sysroot', 'usr', 'dev'],
    /** More of the image: text of files by path, or `-> target` for a link. */
    files: Readonly<Record<string, string>> = {},
  ) {
    this.root = mkdtempSync(join(tmpdir(), 'hostctl-hook-'));
    this.physical = join(this.root, 'physical');
    const tree = join(this.root, 'tree');
    for (const name of directories) mkdirSync(join(tree, name), { recursive: true });
    mkdirSync(join(tree, 'usr'), { recursive: true });
    writeFileSync(join(tree, 'usr/marker'), 'from the image\n');
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(join(tree, path)), { recursive: true });
      if (text.startsWith('-> ')) symlinkSync(text.slice(3), join(tree, path));
      else writeFileSync(join(tree, path), text);
    }
    const image = join(this.root, 'image.erofs');
    execFileSync('mkfs.erofs', ['-T0', image, tree], { stdio: 'pipe' });
    this.digest = execFileSync('fsverity', ['digest', `--hash-alg=${algorithm}`, '--compact', image], {
      encoding: 'utf8',
    }).trim();

    const object = join(this.physical, 'composefs/objects', this.objectPath);
    mkdirSync(dirname(object), { recursive: true });
    cpSync(image, object);
    mkdirSync(join(this.physical, 'composefs/images'));
    symlinkSync(`../objects/${this.objectPath}`, join(this.physical, 'composefs/images', this.digest));
    mkdirSync(join(this.physical, 'state/os/default/var'), { recursive: true });
    writeFileSync(join(this.physical, 'state/os/default/var/kept'), 'var\n');
    this.addDeployment(this.digest);
  }

  get objectPath(): string {
    return `${this.digest.slice(0, 2)}/${this.digest.slice(2)}`;
  }

  addDeployment(name: string): void {
    const deployment = join(this.physical, 'state/deploy', name);
    mkdirSync(join(deployment, 'etc'), { recursive: true });
    writeFileSync(join(deployment, 'etc/name'), `${name}\n`);
    symlinkSync('../../os/default/var', join(deployment, 'var'));
  }

  /** A failure record left on the physical root. */
  failure(name: string): string {
    return readFileSync(join(this.physical, 'state/hostctl', name), 'utf8');
  }

  /** What the hook wrote into a variable of the boot loader; undefined when it did not. */
  variable(name: string): Buffer | undefined {
    const path = join(this.root, 'efivars', `${name}-${LOADER_VENDOR}`);
    return existsSync(path) && statSync(path).isFile() ? readFileSync(path) : undefined;
  }

  /** Runs the hook with this kernel command line. */
  run(cmdline: string, options: HookOptions = {}): HookRun {
    const { measured = 'right', readOnly = false, noFileMounts = false, probes = [], trust, variables } = options;
    const chroot = join(this.root, 'chroot');
    for (const name of ['usr', 'proc', 'sys', 'dev', 'run', 'sysroot', 'etc', 'tmp']) {
      mkdirSync(join(chroot, name), { recursive: true });
    }
    for (const name of ['bin', 'sbin', 'lib', 'lib64']) {
      rmSync(join(chroot, name), { force: true });
      symlinkSync(`usr/${name}`, join(chroot, name));
    }
    // The drivers are the running kernel's, and the machine may have no kmod.
    this.#standIn('sbin/modprobe', '#!/bin/sh\n');
    this.#standIn('bin/fsverity', fsverityStandIn(measured, this.digest));
    cpSync('/usr/bin/fsverity', join(chroot, 'etc/fsverity'));
    cpSync('/usr/bin/mount', join(chroot, 'etc/mount'));
    if (noFileMounts) this.#standIn('bin/mount', REFUSES_FILES);
    rmSync(join(chroot, 'etc/hostctl'), { recursive: true, force: true });
    for (const [name, content] of Object.entries(trust ?? {})) {
      mkdirSync(dirname(join(chroot, 'etc/hostctl', name)), { recursive: true });
      writeFileSync(join(chroot, 'etc/hostctl', name), content);
    }
    writeFileSync(join(this.root, 'cmdline'), cmdline);
    cpSync(HOOK, join(chroot, 'etc/hook'));
    for (const [name, path] of Object.entries(OTHERS)) cpSync(path, join(chroot, 'etc', name));
    writeFileSync(join(chroot, 'etc/probes'), probes.map((probe) => `( ${probe} ) 2>&1; echo '#end'\n`).join(''));
    writeFileSync(join(this.root, 'enter'), ENTER);
    rmSync(join(this.root, 'efivars'), { recursive: true, force: true });
    if (variables !== undefined) mkdirSync(join(this.root, 'efivars'));
    for (const [name, text] of Object.entries(variables ?? {})) {
      writeFileSync(join(this.root, 'efivars', `${name}-${LOADER_VENDOR}`), loaderVariable(text));
    }
    if (this.lockedVariable !== undefined) {
      // A directory cannot be written, not even by root.
      mkdirSync(join(this.root, 'efivars', `${this.lockedVariable}-${LOADER_VENDOR}`));
    }
    this.#standIn('lib/hostctl/boot-counter', readFileSync(COUNTER, 'utf8'));

    const result = spawnSync(
      'unshare',
      ['--mount', '--propagation', 'private', 'sh', '-eu', join(this.root, 'enter'), this.root, readOnly ? 'ro' : 'rw'],
      { encoding: 'utf8' },
    );
    if (result.error !== undefined) throw result.error;
    const [status = '', mounts = '', answers = ''] = result.stdout.split('#part\n');
    return {
      status: status === '' ? null : Number(status),
      stderr: result.stderr,
      mounts: mounts.split('\n').filter(Boolean).map(reduceMount),
      overlayOptions: / - overlay composefs:\S+ (\S+)/.exec(mounts)?.[1],
      probes: answers.split('#end\n').slice(0, -1),
    };
  }

  #standIn(name: string, script: string): void {
    const path = join(this.root, 'stand-ins', name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, script);
    chmodSync(path, 0o755);
  }

  remove(): void {
    rmSync(this.root, { recursive: true, force: true });
  }
}

function reduceMount(line: string): string {
  const [left = '', right = ''] = line.split(' - ');
  const [type, source] = right.split(' ');
  return `${left.split(' ')[4]} ${type} ${source} ${left.split(' ')[5]}`;
}

/** `measure` answers as told; `digest` is the real program, kept in the chroot's /etc. */
function fsverityStandIn(measured: Measured, digest: string): string {
  const algorithm = digest.length === 64 ? 'sha256' : 'sha512';
  const answers: Record<Measured, string> = {
    right: `echo "${algorithm}:${digest} $2"`,
    other: `echo "${algorithm}:${'0'.repeat(digest.length)} $2"`,
    none: `echo "ERROR: FS_IOC_MEASURE_VERITY failed on '$2': No data available" >&2; exit 1`,
  };
  return `#!/bin/sh\ncase $1 in measure) ${answers[measured]} ;; *) exec /etc/fsverity "$@" ;; esac\n`;
}

/** A mount program of a system whose kernel cannot mount EROFS from a file, and that makes no loop device either. */
const REFUSES_FILES = `#!/bin/sh
case "$*" in *'erofs -o ro /proc/'*) echo 'mount: block device required' >&2; exit 32 ;; esac
exec /etc/mount "$@"
`;

const ENTER = `
scratch=$1
chroot=$scratch/chroot
mount --bind "$chroot" "$chroot"
mount -t overlay overlay -o "ro,lowerdir=$scratch/stand-ins:/usr" "$chroot/usr"
mount --rbind /dev "$chroot/dev"
mount -t proc proc "$chroot/proc"
mount -t sysfs sysfs "$chroot/sys"
mount -t tmpfs tmpfs "$chroot/run"
# The hook finds the machine's own firmware only where the test gives it some.
mount -t tmpfs tmpfs "$chroot/sys/firmware"
if [ -d "$scratch/efivars" ]; then
    mkdir -p "$chroot/sys/firmware/efi/efivars"
    mount --bind "$scratch/efivars" "$chroot/sys/firmware/efi/efivars"
fi
mount --bind "$scratch/cmdline" "$chroot/proc/cmdline"
mount --bind "$scratch/physical" "$chroot/sysroot"
[ "$2" = rw ] || mount -o remount,bind,ro "$chroot/sysroot"
chroot "$chroot" /bin/sh /etc/hook >"$scratch/hook.out" && status=0 || status=$?
printf '%s#part\\n' "$status"
cat "$chroot/proc/self/mountinfo" | sed "s: $chroot/: /:"
printf '#part\\n'
chroot "$chroot" /bin/sh /etc/probes
`;
