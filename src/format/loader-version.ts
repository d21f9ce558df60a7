/** Which systemd-boot an EFI program is: by the mark that systemd leaves in it for `bootctl`. Pure. */

const MARK = '#### LoaderInfo: systemd-boot ';
const END = ' ####';
const MAX_LENGTH = 100;

/** The version, such as `257.9-1~deb13u1`; undefined where the program is not systemd-boot. */
export function systemdBootVersion(program: Uint8Array): string | undefined {
  const bytes = Buffer.from(program.buffer, program.byteOffset, program.byteLength);
  const at = bytes.indexOf(MARK, 0, 'latin1');
  if (at < 0) return undefined;
  const from = at + MARK.length;
  const [version, rest] = bytes.toString('latin1', from, from + MAX_LENGTH).split(END, 2);
  return rest === undefined || !/^[\w.+~^:-]+$/.test(version ?? '') ? undefined : version;
}
