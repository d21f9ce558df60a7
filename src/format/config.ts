/**
 * `hostctl.conf`: an ini file, and drop-ins that override it one key at a time. Unknown sections and keys are errors,
 * since a misspelt key would otherwise be a setting that silently does nothing. Pure.
 */

import { parse } from 'ini';
import { HostctlError } from '../errors.ts';
import { isBootSetting } from './boot-config.ts';

export interface Config {
  /** Boots to try before a new deployment is given up; `--tries` wins. */
  readonly deployTries: number;
  /** Units that must not have failed for a boot to be good. */
  readonly requiredUnits: readonly string[];
  /** Deployments that stay on a host; pinned ones and those that a boot may need are never dropped. */
  readonly retentionKeep: number;
  /** Whose version of a path in `/etc` counts where local changes and a new image exclude each other. */
  readonly etcConflicts: EtcRule;
  /** The same by path, for it and everything below it; absolute paths below `/etc`. */
  readonly etcPaths: ReadonlyMap<string, EtcRule>;
}

export type EtcRule = 'ask' | 'keep-local' | 'take-image';

export const DEFAULT_CONFIG: Config = {
  deployTries: 3,
  requiredUnits: [],
  retentionKeep: 3,
  etcConflicts: 'ask',
  etcPaths: new Map(),
};

/** Largest number of tries that fits the one digit of an entry's name. */
export const MAX_TRIES = 9;
/** One to boot and one to go back to. */
const MIN_KEEP = 2;
const MAX_KEEP = 1000;

/** One file with the name that errors give it. */
export interface ConfigFile {
  readonly name: string;
  readonly text: string;
  /** From the image itself, which alone may say what the boot hook shall do. */
  readonly isOfImage?: boolean;
}

/** Applies files in order, the last one wins. Throws 'config-invalid' naming file and key. */
export function parseConfig(files: readonly ConfigFile[]): Config {
  let config = DEFAULT_CONFIG;
  for (const file of files) {
    for (const [section, keys] of Object.entries<unknown>(parse(file.text))) {
      if (typeof keys !== 'object' || keys === null) throw invalid(file, `"${section}" stands before any section`);
      for (const [key, value] of Object.entries<unknown>({ ...keys })) {
        const isSubsection = section === 'etc' && key === 'paths' && typeof value === 'object' && value !== null;
        config = isSubsection ? applyEtcPaths(config, file, value) : applyKey(config, file, `${section}.${key}`, value);
      }
    }
  }
  return config;
}

function applyKey(config: Config, file: ConfigFile, key: string, value: unknown): Config {
  if (isBootSetting(key)) {
    // Its value is the boot hook's to read, and was checked when the image was deployed.
    if (file.isOfImage === true) return config;
    throw invalid(file, `"${key}" can only be set by the image, in /usr/lib/hostctl`);
  }
  switch (key) {
    case 'deploy.tries':
      return { ...config, deployTries: wholeNumber(file, key, value, 1, MAX_TRIES) };
    case 'boot.require':
      return { ...config, requiredUnits: unitNames(file, key, value) };
    case 'retention.keep':
      return { ...config, retentionKeep: wholeNumber(file, key, value, MIN_KEEP, MAX_KEEP) };
    case 'etc.conflicts':
      return { ...config, etcConflicts: etcRule(file, key, value) };
    default:
      throw invalid(file, `there is no setting "${key}"`);
  }
}

function wholeNumber(file: ConfigFile, key: string, value: unknown, least: number, most: number): number {
  const number = Number(value);
  if (typeof value === 'string' && Number.isInteger(number) && number >= least && number <= most) return number;
  throw invalid(file, `"${key}" takes a whole number from ${least} to ${most}`);
}

/** Section `[etc.paths]`, which the ini reader nests. */
function applyEtcPaths(config: Config, file: ConfigFile, rules: object): Config {
  const etcPaths = new Map(config.etcPaths);
  for (const [path, value] of Object.entries<unknown>({ ...rules })) {
    const names = path.split('/');
    const isBelow = names[0] === '' && names[1] === 'etc' && names.length > 2;
    if (!isBelow || names.slice(1).some((name) => ['', '.', '..'].includes(name))) {
      throw invalid(file, `"${path}" in [etc.paths] is not a path below /etc, such as /etc/ssh`);
    }
    etcPaths.set(path, etcRule(file, `etc.paths.${path}`, value));
  }
  return { ...config, etcPaths };
}

/** Names with their suffix, as systemd shows them. */
const UNIT = /^[A-Za-z0-9:_.\\@-]+\.(service|socket|mount|automount|swap|target|path|timer|device|slice|scope)$/;

function unitNames(file: ConfigFile, key: string, value: unknown): string[] {
  const names = typeof value === 'string' ? value.split(/\s+/).filter((name) => name !== '') : undefined;
  if (names?.every((name) => UNIT.test(name)) === true) return names;
  throw invalid(file, `"${key}" takes names of units, such as sshd.service`);
}

function etcRule(file: ConfigFile, key: string, value: unknown): EtcRule {
  if (value === 'ask' || value === 'keep-local' || value === 'take-image') return value;
  throw invalid(file, `"${key}" takes "ask", "keep-local" or "take-image"`);
}

function invalid(file: ConfigFile, problem: string): HostctlError {
  return new HostctlError('config-invalid', `Cannot use the configuration "${file.name}": ${problem}`);
}
