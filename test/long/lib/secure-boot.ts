/**
 * Machines with Secure Boot and keys of their own: programs of Debian 13 that make and sign what they boot, and the
 * firmware's variables with those keys in them, written without a machine.
 */

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../../../scripts/lib/run.ts';
import type { Host } from '../../../src/sys/host.ts';
import { cached } from '../../vm/lib/cache.ts';

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';
const SOURCE = `deb [signed-by=${KEYRING}] http://deb.debian.org/debian trixie main`;
const PACKAGES = 'base-files,coreutils,openssl,systemd-ukify,sbsigntool,python3-virt-firmware';
const EMPTY_VARIABLES = '/usr/share/OVMF/OVMF_VARS_4M.fd';
/** Of whoever enrolls keys; any will do. */
const OWNER = '5d3a3c80-9d0f-4d35-9a44-0c4c5a1f6b11';

/** Programs that see one folder of this machine, under its own name. */
export class SigningTools {
  readonly #root: string;
  readonly #folder: string;

  private constructor(root: string, folder: string) {
    this.#root = root;
    this.#folder = folder;
  }

  /** Debian 12 has no ukify. Unpacked only, which these programs do with. */
  static async open(folder: string): Promise<SigningTools> {
    const place = await cached('trixie-signing', [SOURCE, PACKAGES], async (scratch) => {
      const args = ['--mode=root', '--variant=extract', '--aptopt=APT::Install-Recommends "false"'];
      await run('mmdebstrap', [...args, `--include=${PACKAGES}`, 'trixie', join(scratch, 'root'), SOURCE]);
    });
    return new SigningTools(join(place, 'root'), folder);
  }

  /** Runs one of them. */
  async run(program: string, args: readonly string[]): Promise<void> {
    const enter = [
      // The folder usually lies there; what is made for it is gone afterwards.
      'mount -t tmpfs tmpfs "$1/tmp"',
      'mkdir -p "$1$2"',
      'mount --bind "$2" "$1$2"',
      'mount --rbind /dev "$1/dev"',
      'root=$1',
      'shift 2',
      'exec chroot "$root" "$@"',
    ].join(' && ');
    const inside = ['sh', '-c', enter, 'sh', this.#root, this.#folder, program, ...args];
    await run('unshare', ['--mount', '--propagation', 'private', ...inside]);
  }

  /** A host whose ukify is the one here. */
  hostWith(host: Host): Host {
    return {
      ...host,
      exec: {
        ...host.exec,
        run: async (program, args, options) => {
          if (program !== 'ukify') return host.exec.run(program, args, options);
          await this.run(program, args);
          return { exitCode: 0, stdout: '', stderr: '' };
        },
      },
    };
  }
}

export interface SecureBootKeys {
  readonly key: string;
  readonly certificate: string;
}

/** A key with its certificate, in the folder. */
export async function makeKeys(tools: SigningTools, folder: string): Promise<SecureBootKeys> {
  const [key, certificate] = [join(folder, 'db.key'), join(folder, 'db.crt')];
  const files = ['-keyout', key, '-out', certificate];
  const config = join(folder, 'openssl.cnf');
  await writeFile(config, '[req]\ndistinguished_name = dn\n[dn]\n');
  const subject = ['-subj', '/CN=hostctl test/', '-days', '3650'];
  await tools.run('openssl', [
    'req',
    '-config',
    config,
    '-new',
    '-x509',
    '-newkey',
    'rsa:2048',
    '-nodes',
    ...subject,
    ...files,
  ]);
  return { key, certificate };
}

/** The firmware's variables for a folder's machines: Secure Boot is on, and this certificate is the only one it knows. */
export async function enroll(tools: SigningTools, { certificate }: SecureBootKeys, folder: string): Promise<void> {
  const empty = join(folder, 'empty.fd');
  await run('cp', [EMPTY_VARIABLES, empty]);
  const keys = ['--set-pk', '--add-kek', '--add-db'].flatMap((what) => [what, OWNER, certificate]);
  await tools.run('virt-fw-vars', ['--input', empty, '--output', join(folder, 'vars.fd'), ...keys, '--secure-boot']);
}

/** A signed copy of an EFI program. */
export async function sign(
  tools: SigningTools,
  { key, certificate }: SecureBootKeys,
  from: string,
  to: string,
): Promise<void> {
  await run('cp', [from, `${to}.unsigned`]);
  await tools.run('sbsign', ['--key', key, '--cert', certificate, '--output', to, `${to}.unsigned`]);
}
