/**
 * containers-registries.conf(5), version 2, as far as it says where an image is read from: prefixes, locations, mirrors,
 * `insecure`. What it says beyond that, or in another version, is undefined here, and left to skopeo.
 */

import { parse } from 'smol-toml';

/** A place to ask, first the one that is asked first. */
export interface RegistryEndpoint {
  /** `host[:port]`. */
  readonly host: string;
  /** Path of the repository below it. */
  readonly repository: string;
  /** Whether http will do, and a certificate that cannot be checked. */
  readonly insecure: boolean;
}

interface Location {
  readonly location: string;
  readonly insecure: boolean;
}

interface Entry extends Location {
  readonly prefix: string;
  readonly blocked: boolean;
  readonly mirrors: readonly Location[];
}

/** What Docker's own registry is called, and where it is. */
const DOCKER_NAME = 'docker.io';
const DOCKER_HOST = 'registry-1.docker.io';

/**
 * Where `name` (`host/path`) is read from, mirrors before the place itself. Undefined where the files hold what only
 * skopeo understands, or block the image.
 * @param texts - the file and its drop-ins; later ones replace entries of the same prefix
 */
export function registryEndpoints(texts: readonly string[], name: string): readonly RegistryEndpoint[] | undefined {
  const entries = new Map<string, Entry>();
  for (const text of texts) {
    const parsed = parseEntries(text);
    if (parsed === undefined) return undefined;
    for (const entry of parsed) entries.set(entry.prefix, entry);
  }
  const fitting = [...entries.values()].filter(({ prefix }) => name === prefix || name.startsWith(`${prefix}/`));
  const [best] = fitting.toSorted((a, b) => b.prefix.length - a.prefix.length);
  if (best === undefined) return [endpoint(name, false)];
  if (best.blocked) return undefined;
  const rest = name.slice(best.prefix.length);
  return [...best.mirrors, best].map(({ location, insecure }) => endpoint(location + rest, insecure));
}

function endpoint(name: string, insecure: boolean): RegistryEndpoint {
  const slash = name.indexOf('/');
  const host = name.slice(0, slash);
  const repository = name.slice(slash + 1);
  if (host !== DOCKER_NAME) return { host, repository, insecure };
  return { host: DOCKER_HOST, repository: repository.includes('/') ? repository : `library/${repository}`, insecure };
}

function parseEntries(text: string): readonly Entry[] | undefined {
  let document: Record<string, unknown>;
  try {
    document = parse(text);
  } catch {
    // skopeo will say what is wrong with it.
    return undefined;
  }
  const { registry = [], registries } = document;
  if (!Array.isArray(registry) || registries !== undefined) return undefined;
  const entries = registry.map(parseEntry);
  return entries.every((entry) => entry !== undefined) ? entries : undefined;
}

const ENTRY_KEYS = new Set(['prefix', 'location', 'insecure', 'blocked', 'mirror']);
const MIRROR_KEYS = new Set(['location', 'insecure']);

function parseEntry(value: unknown): Entry | undefined {
  const table = tableOf(value, ENTRY_KEYS);
  if (table === undefined) return undefined;
  const { location, prefix = location, mirror = [] } = table;
  const own = locationOf({ location: location ?? prefix, insecure: table['insecure'] });
  if (own === undefined || typeof prefix !== 'string' || prefix.includes('*') || !Array.isArray(mirror))
    return undefined;
  const mirrors = mirror.map((item) => locationOf(tableOf(item, MIRROR_KEYS)));
  if (!mirrors.every((item) => item !== undefined)) return undefined;
  return { ...own, prefix, blocked: table['blocked'] === true, mirrors };
}

/** A table with no key but these: another one may change what an entry means. */
function tableOf(value: unknown, keys: ReadonlySet<string>): Record<string, unknown> | undefined {
  if (typeof value !== 'object' || value === null || Object.keys(value).some((key) => !keys.has(key))) return undefined;
  return value as Record<string, unknown>;
}

function locationOf(table: Record<string, unknown> | undefined): Location | undefined {
  const location = table?.['location'];
  return typeof location === 'string' && location !== ''
    ? { location, insecure: table?.['insecure'] === true }
    : undefined;
}
