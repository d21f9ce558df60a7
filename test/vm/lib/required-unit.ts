/** Units that decide whether a boot is good. */

export const SYSTEM = 'usr/lib/systemd/system';

/** A service below `folder` that the boot is not good without: text by path, `-> target` for a link. */
export function required(name: string, command: string, folder = SYSTEM): Record<string, string> {
  return {
    [`${folder}/${name}.service`]: `[Unit]\nBefore=boot-complete.target\n[Service]\nType=oneshot\nExecStart=${command}\n`,
    [`${folder}/boot-complete.target.requires/${name}.service`]: `-> ../${name}.service`,
  };
}
