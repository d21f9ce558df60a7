/**
 * A deployment's entry in GRUB's menu: a small script beside the boot entry, since GRUB as most distributions build it
 * cannot read boot entries. It means the same as the boot entry does to other loaders. Pure.
 */

import { HostctlError } from '../../errors.ts';
import { parseKarg, splitCmdline } from '../cmdline.ts';
import { COUNTED_KARG } from './menu-script.ts';

export interface GrubMenuEntry {
  /** The boot entry's name without counter and suffix. */
  readonly id: string;
  readonly title: string;
  readonly linuxPath: string;
  readonly initrdPath: string;
  /** The kernel command line. */
  readonly options: string;
  /** How often it is tried; undefined for one that is not counted. */
  readonly tries: number | undefined;
}

/** Throws `format-invalid` for an argument that GRUB would hand on as another one. */
export function formatGrubMenuEntry({ id, title, linuxPath, initrdPath, options, tries }: GrubMenuEntry): string {
  const args = splitCmdline(options).map(quoteArgument);
  const counted = `    if [ "$hostctl_counted" = ${id} ]; then set hostctl_argument="${COUNTED_KARG}=$hostctl_left/${tries}"; fi\n`;
  return `# Made by hostctl with the boot entry of the same name.
if [ -f ${quote(linuxPath)} ]; then
  menuentry ${quote(title)} --id ${id} {
    set hostctl_argument=
${tries === undefined ? '' : counted}    linux ${quote(linuxPath)} ${args.join(' ')} $hostctl_argument
    initrd ${quote(initrdPath)}
  }
fi
`;
}

/**
 * GRUB puts quotes around an argument with a blank, and a backslash before quotes and backslashes (but for `\xHH`),
 * which the kernel does not take away again.
 */
function quoteArgument(arg: string): string {
  const { key, value } = parseKarg(arg);
  const plain = value === undefined ? key : `${key}=${value}`;
  if (!/["']|\\(?!x[0-9a-f]{2})|[\t\n\v\f\r]/i.test(plain)) return quote(plain);
  throw new HostctlError('format-invalid', `GRUB cannot hand on the kernel argument ${JSON.stringify(arg)}`, {
    hint: 'Leave out quotes within a value and backslashes',
  });
}

/** One word of GRUB's script. */
function quote(text: string): string {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}
