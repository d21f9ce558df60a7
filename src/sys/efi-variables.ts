/** What the boot loader says about itself and this boot, in EFI variables (systemd's Boot Loader Interface). Read only. */

import { readSmallFile } from './files.ts';

const DIRECTORY = '/sys/firmware/efi/efivars';
const LOADER_VENDOR = '4a67b082-0a4c-41cf-b6c7-440b29bb8c4f';
const ATTRIBUTE_BYTES = 4;

/** The bytes of one of the loader's variables; undefined where there is none, or no EFI. */
export function readLoaderVariable(name: string): Uint8Array | undefined {
  return readSmallFile(`${DIRECTORY}/${name}-${LOADER_VENDOR}`)?.subarray(ATTRIBUTE_BYTES);
}
