/**
 * Finds `hostctl.conf` and its drop-ins: `/usr/lib/hostctl`, `/etc/hostctl`, `/run/hostctl`, later ones override
 * earlier ones; `hostctl.conf.d/*.conf` of all three in the order of their names, a name in a later directory replacing
 * the same name in an earlier one. With `--config FILE` that file is all there is.
 */

import type { EtcMergePolicy } from '../deploy/etc-merge.ts';
import { HostctlError } from '../errors.ts';
import { parseConfig, type Config, type ConfigFile } from '../format/config.ts';
import { listNames, readSmallText } from '../sys/files.ts';
import { rawFromText } from '../tree/name.ts';

const DIRECTORIES = ['/usr/lib/hostctl', '/etc/hostctl', '/run/hostctl'] as const;
const [OF_IMAGE] = DIRECTORIES;
const NAME = 'hostctl.conf';

export function loadConfig(explicit: string | undefined): Config {
  return parseConfig(configFiles(explicit));
}

/** The files that make up the configuration, in the order in which they count, whatever is in them. */
export function configFiles(explicit: string | undefined): ConfigFile[] {
  return explicit === undefined ? usualFiles() : [requireFile(explicit)];
}

/** What the configuration says about conflicts in `/etc`, in the words of the merge. */
export function etcPolicyOf({ etcConflicts, etcPaths }: Config): EtcMergePolicy {
  const paths = new Map([...etcPaths].map(([path, rule]) => [rawFromText(path.slice('/etc/'.length)), rule]));
  return etcConflicts === 'ask' ? { paths } : { otherwise: etcConflicts, paths };
}

function requireFile(name: string): ConfigFile {
  const text = readSmallText(name);
  if (text !== undefined) return { name, text };
  throw new HostctlError('config-invalid', `The configuration "${name}" does not exist`);
}

function usualFiles(): ConfigFile[] {
  const dropIns = new Map<string, string>();
  for (const directory of DIRECTORIES) {
    for (const file of listNames(`${directory}/${NAME}.d`)) {
      if (file.endsWith('.conf')) dropIns.set(file, `${directory}/${NAME}.d/${file}`);
    }
  }
  const names = [...DIRECTORIES.map((directory) => `${directory}/${NAME}`)];
  names.push(...[...dropIns].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, path]) => path));
  return names.flatMap((name) => {
    const text = readSmallText(name);
    return text === undefined ? [] : [{ name, text, isOfImage: name.startsWith(`${OF_IMAGE}/`) }];
  });
}
