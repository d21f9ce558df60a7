/** What the loader of the running machine said by variables of the Boot Loader Interface. */

import type { Host } from '../sys/host.ts';

/** A variable that is a text; undefined where there is none. */
export function loaderText(
  host: Host,
  name: 'LoaderInfo' | 'LoaderEntrySelected' | 'LoaderBootCountPath',
): string | undefined {
  const bytes = host.loaderVariable(name);
  return bytes === undefined ? undefined : new TextDecoder('utf-16le').decode(bytes).replace(/\0.*$/s, '');
}

/** The version of the systemd-boot that started the machine; empty where it does not say, undefined where it was not one. */
export function runningSystemdBoot(host: Host): string | undefined {
  return /^systemd-boot\b\s*(\S*)/.exec(loaderText(host, 'LoaderInfo') ?? '')?.[1];
}
