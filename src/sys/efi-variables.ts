/**
 * What the boot loader says about itself and this boot, in EFI variables (systemd's Boot Loader Interface), and whether
 * the firmware verified it. Read only.
 */

import { readSmallFile } from './files.ts';

const DIRECTORY = '/sys/firmware/efi/efivars';
const LOADER_VENDOR = '4a67b082-0a4c-41cf-b6c7-440b29bb8c4f';
/** EFI_GLOBAL_VARIABLE of the UEFI specification. */
const GLOBAL_VENDOR = '8be4df61-93ca-11d2-aa0d-00e098032b8c';
const ATTRIBUTE_BYTES = 4;

/** The bytes of one of the loader's variables; undefined where there is none, or no EFI. */
export function readLoaderVariable(name: string): Uint8Array | undefined {
  return readSmallFile(`${DIRECTORY}/${name}-${LOADER_VENDOR}`)?.subarray(ATTRIBUTE_BYTES);
}

/** Whether Secure Boot is on. */
export function readSecureBoot(): boolean {
  return readSmallFile(`${DIRECTORY}/SecureBoot-${GLOBAL_VENDOR}`)?.[ATTRIBUTE_BYTES] === 1;
}
