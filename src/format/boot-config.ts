/**
 * What an image's `hostctl.conf` says about its mounts: `[etc]`, `[root]` and `[var] mode`. The boot hook reads the
 * same files in shell, so the dialect is the smaller one: one `key = value` a line, no quotes, comments on lines of
 * their own. What the hook would refuse is refused here, before it is deployed. Pure.
 */

import { HostctlError } from '../errors.ts';
import type { ConfigFile } from './config.ts';

export interface BootConfig {
  /** `/etc`: the deployment's own, or the image's with changes that are gone at the next boot. */
  readonly etc: 'persistent' | 'transient';
  /** `/`: as the image is, or with changes that are gone at the next boot. */
  readonly root: 'read-only' | 'transient';
  /** `/var`: one that all deployments share, or a file system that the host mounts itself. */
  readonly var: 'shared' | 'mount';
}

export const DEFAULT_BOOT_CONFIG: BootConfig = { etc: 'persistent', root: 'read-only', var: 'shared' };

const VALUES: ReadonlyMap<string, readonly Partial<BootConfig>[]> = new Map([
  ['etc.mode', [{ etc: 'persistent' }, { etc: 'transient' }]],
  ['root.mode', [{ root: 'read-only' }, { root: 'transient' }]],
  ['var.mode', [{ var: 'shared' }, { var: 'mount' }]],
]);

/** Whether `section.key` is one that the boot hook reads, and only from the image. */
export function isBootSetting(key: string): boolean {
  return VALUES.has(key);
}

/** Applies files in order, the last one wins. Throws 'config-invalid' for what the boot hook would refuse. */
export function parseBootConfig(files: readonly ConfigFile[]): BootConfig {
  return files.reduce(applyFile, DEFAULT_BOOT_CONFIG);
}

function applyFile(before: BootConfig, file: ConfigFile): BootConfig {
  let config = before;
  let section = '';
  // The shell would drop it and read on.
  if (file.text.includes('\0')) throw invalid(file, 'it has a NUL byte');
  for (const line of file.text.split('\n').map(trim)) {
    if (line === '' || line.startsWith('#') || line.startsWith(';')) continue;
    if (line.startsWith('[') && line.endsWith(']')) {
      section = line.slice(1, -1);
      continue;
    }
    const equals = line.indexOf('=');
    if (equals < 0) throw invalid(file, `cannot understand "${line}"`);
    config = applySetting(config, file, `${section}.${trim(line.slice(0, equals))}`, trim(line.slice(equals + 1)));
  }
  return config;
}

function applySetting(config: BootConfig, file: ConfigFile, key: string, value: string): BootConfig {
  const choices = VALUES.get(key);
  if (choices === undefined) return config;
  const choice = choices.find((candidate) => Object.values(candidate)[0] === value);
  if (choice !== undefined) return { ...config, ...choice };
  const known = choices.flatMap((candidate) => Object.values(candidate));
  throw invalid(file, `"${key}" is "${value}", not one of ${known.join(', ')}`);
}

/** The blanks of the C locale, which is the hook's. */
function trim(text: string): string {
  return text.replace(/^[ \t\v\f\r]+|[ \t\v\f\r]+$/g, '');
}

function invalid(file: ConfigFile, problem: string): HostctlError {
  return new HostctlError('config-invalid', `Cannot use the configuration "${file.name}": ${problem}`);
}
