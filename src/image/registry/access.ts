/**
 * How a registry is spoken to without skopeo, out of the same files that skopeo reads. Undefined wherever these hold
 * what only skopeo understands: then everything goes through it.
 */

import { existsSync, realpathSync } from 'node:fs';
import os from 'node:os';
import { findCredentials, type BasicCredentials } from '../../format/containers/auth-json.ts';
import { registryEndpoints } from '../../format/containers/registries-conf.ts';
import { listNames, readSmallText } from '../../sys/files.ts';
import type { AccessibleEndpoint } from './client.ts';
import { authFile } from '../skopeo.ts';

const REGISTRIES = '/etc/containers/registries.conf';
const CERTIFICATES = ['/etc/containers/certs.d', '/etc/docker/certs.d'] as const;
const SYSTEM_CERTIFICATES = '/etc/ssl/certs/ca-certificates.crt';
const MAX_BYTES = 1 << 20;

/** The places that `name` (`host/path`) is read from. */
export function registryAccess(name: string): readonly AccessibleEndpoint[] | undefined {
  const { homedir, uid } = os.userInfo();
  const own = `${homedir}/.config/containers/registries.conf`;
  if (existsSync(own) || existsSync(`${own}.d`)) return undefined;
  const endpoints = registryEndpoints(registryFiles(), name);
  const accessible = endpoints?.map((endpoint) => {
    const credentials = credentialsFor(endpoint.host, endpoint.repository, homedir, uid);
    const ca = certificatesFor(endpoint.host);
    return credentials === 'helper' || ca === 'client' ? undefined : { ...endpoint, credentials, ca };
  });
  return accessible?.every((endpoint) => endpoint !== undefined) === true ? accessible : undefined;
}

function registryFiles(): string[] {
  const dropIns = listNames(`${REGISTRIES}.d`).filter((file) => file.endsWith('.conf'));
  const paths = [REGISTRIES, ...dropIns.map((file) => `${REGISTRIES}.d/${file}`)];
  return paths.flatMap((path) => textOf(path) ?? []);
}

function credentialsFor(
  host: string,
  repository: string,
  home: string,
  uid: number,
): BasicCredentials | 'helper' | undefined {
  const chosen = authFile();
  // skopeo's order, each of them where the ones before have nothing for the name.
  const usual = [
    `/run/containers/${uid}/auth.json`,
    `${home}/.config/containers/auth.json`,
    `${home}/.docker/config.json`,
  ];
  for (const path of chosen === undefined ? usual : [chosen]) {
    const text = textOf(path);
    const found = text === undefined ? 'none' : findCredentials(text, host, repository);
    if (found !== 'none') return found;
  }
  return undefined;
}

/** Undefined: Node's own. A certificate of the client's is skopeo's business. */
function certificatesFor(host: string): readonly string[] | 'client' | undefined {
  const system = textOf(SYSTEM_CERTIFICATES);
  const own: string[] = [];
  for (const directory of CERTIFICATES) {
    const names = listNames(`${directory}/${host}`);
    if (names.some((name) => name.endsWith('.cert') || name.endsWith('.key'))) return 'client';
    for (const name of names) {
      if (name.endsWith('.crt')) own.push(textOf(`${directory}/${host}/${name}`) ?? '');
    }
  }
  return system === undefined && own.length === 0 ? undefined : [...(system === undefined ? [] : [system]), ...own];
}

/** A file of the administrator's, who may have it elsewhere. */
function textOf(path: string): string | undefined {
  return existsSync(path) ? readSmallText(realpathSync(path), MAX_BYTES) : undefined;
}
