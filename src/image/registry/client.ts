/**
 * Reads from a registry (distribution-spec, pull only): credentials and tokens, redirects, and trying again. What comes
 * is unchecked; whoever asks compares it with a digest. Credentials go to the registry and to the token server it
 * names, and to nobody else.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { HostctlError, isHostctlError } from '../../errors.ts';
import type { BasicCredentials } from '../../format/containers/auth-json.ts';
import type { RegistryEndpoint } from '../../format/containers/registries-conf.ts';
import { HttpBroken, parseUrl, sendHttp, shownUrl, type HttpAnswer } from '../../sys/http.ts';
import type { Host } from '../../sys/host.ts';
import { readBody } from './body.ts';
import { fetchToken, parseChallenge } from './token.ts';

export interface AccessibleEndpoint extends RegistryEndpoint {
  readonly credentials: BasicCredentials | undefined;
  readonly ca: readonly string[] | undefined;
}

export type Pause = (ms: number) => Promise<void>;

const MAX_REDIRECTS = 5;
export const RETRIES = 6;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 60_000;
/** What a server may ask for. */
const LONGEST_ASKED_WAIT_MS = 600_000;
const REDIRECTS = new Set([301, 302, 303, 307, 308]);
/** Answers that another try may better. */
const isPassing = (status: number): boolean => status === 408 || status === 429 || status >= 500;

export class RegistryClient {
  /** Waits, unless the command is stopped. */
  readonly pause: Pause;
  readonly #endpoints: readonly EndpointClient[];

  constructor(host: Host, endpoints: readonly AccessibleEndpoint[], pause: Pause = pauseOf(host)) {
    this.pause = pause;
    this.#endpoints = endpoints.map((endpoint) => new EndpointClient(host, endpoint, pause));
  }

  /** The answer to a GET below the repository, 200 or 206 (or 416 to a range), by the first endpoint that gives one. */
  async get(path: string, headers: Readonly<Record<string, string>> = {}): Promise<HttpAnswer> {
    const mirrors = this.#endpoints.slice(0, -1);
    for (const mirror of mirrors) {
      try {
        return await mirror.get(path, headers, 0);
      } catch (error) {
        // What one mirror has not, or cannot, the next one may.
        if (!isHostctlError(error, 'registry')) throw error;
      }
    }
    return this.#endpoints.at(-1)!.get(path, headers, RETRIES);
  }

  /** A small document, at most `maxBytes` long. */
  async document(path: string, headers: Readonly<Record<string, string>>, maxBytes: number): Promise<Uint8Array> {
    for (let tried = 0; ; tried++) {
      try {
        return await readBody(await this.get(path, headers), path, maxBytes);
      } catch (error) {
        if (!(error instanceof HttpBroken) || tried >= RETRIES) throw error;
      }
      await this.pause(backOff(tried));
    }
  }
}

function pauseOf({ signal }: Host): Pause {
  return async (ms) => {
    try {
      await sleep(ms, undefined, { signal });
    } catch (cause) {
      throw new HostctlError('interrupted', 'Stopped fetching', { cause });
    }
  };
}

class EndpointClient {
  readonly #host: Host;
  readonly #endpoint: AccessibleEndpoint;
  readonly #pause: Pause;
  #scheme: 'https' | 'http' | undefined;
  /** Of the `Authorization` header. */
  #authorization: string | undefined;

  constructor(host: Host, endpoint: AccessibleEndpoint, pause: Pause) {
    this.#host = host;
    this.#endpoint = endpoint;
    this.#pause = pause;
  }

  async get(path: string, headers: Readonly<Record<string, string>>, retries: number): Promise<HttpAnswer> {
    for (let tried = 0; ; tried++) {
      let waitMs: number | undefined;
      try {
        const answer = await this.#authorized(path, headers);
        if (answer.status === 200 || answer.status === 206 || answer.status === 416) return answer;
        answer.discard();
        const what = `Cannot read "${this.#endpoint.host}/${this.#endpoint.repository}/${path}": status ${answer.status}`;
        if (!isPassing(answer.status) || tried >= retries) throw refused(what, answer.status);
        waitMs = askedWait(answer.headers['retry-after']);
      } catch (error) {
        if (!(error instanceof HttpBroken) || tried >= retries) throw error;
      }
      await this.#pause(waitMs ?? backOff(tried));
    }
  }

  /** With the credentials there are; fresh ones, once, where the registry wants others. */
  async #authorized(path: string, headers: Readonly<Record<string, string>>): Promise<HttpAnswer> {
    const url = new URL(`${await this.#base()}/v2/${this.#endpoint.repository}/${path}`);
    const first = await this.#follow(url, headers);
    if (first.status !== 401) return first;
    first.discard();
    this.#authorization = await this.#authorize(first.headers['www-authenticate'] ?? '', url);
    return this.#follow(url, headers);
  }

  async #authorize(header: string, url: URL): Promise<string> {
    const { credentials } = this.#endpoint;
    const challenge = parseChallenge(header);
    if (challenge?.scheme === 'bearer') {
      const token = await fetchToken(challenge, {
        credentials,
        scope: `repository:${this.#endpoint.repository}:pull`,
        isPlain: url.protocol === 'http:',
        send: (at, headers) => this.#send(at, headers),
      });
      return `Bearer ${token}`;
    }
    if (challenge?.scheme === 'basic' && credentials !== undefined) return `Basic ${credentials}`;
    throw new HostctlError('registry', `"${shownUrl(url)}" wants credentials`, {
      hint: 'Put them into /etc/hostctl/auth.json, see containers-auth.json(5)',
    });
  }

  async #follow(start: URL, headers: Readonly<Record<string, string>>): Promise<HttpAnswer> {
    let url = start;
    for (let redirects = 0; ; redirects++) {
      const own = url.origin === start.origin && this.#authorization !== undefined;
      const answer = await this.#send(url, own ? { ...headers, authorization: this.#authorization! } : headers);
      if (!REDIRECTS.has(answer.status)) return answer;
      answer.discard();
      if (redirects === MAX_REDIRECTS) {
        throw new HostctlError('registry', `"${shownUrl(start)}" is redirected more than ${MAX_REDIRECTS} times`);
      }
      url = redirectTarget(url, answer.headers.location);
    }
  }

  #send(url: URL, headers: Readonly<Record<string, string>>): Promise<HttpAnswer> {
    const { insecure, ca } = this.#endpoint;
    return sendHttp({ url, headers, insecure, ca, signal: this.#host.signal });
  }

  /** Only where it may be insecure is http tried, and only after https. */
  async #base(): Promise<string> {
    const { host, insecure } = this.#endpoint;
    if (!insecure) return `https://${host}`;
    if (this.#scheme === undefined) {
      try {
        (await this.#send(new URL(`https://${host}/v2/`), {})).discard();
        this.#scheme = 'https';
      } catch (error) {
        if (!(error instanceof HttpBroken)) throw error;
        this.#scheme = 'http';
      }
    }
    return `${this.#scheme}://${host}`;
  }
}

function redirectTarget(from: URL, location: string | undefined): URL {
  const target = parseUrl(location ?? '', from.href);
  if (location === undefined || target === undefined || !/^https?:$/.test(target.protocol)) {
    throw new HostctlError('registry', `"${shownUrl(from)}" is redirected to nowhere`);
  }
  if (from.protocol === 'https:' && target.protocol === 'http:') {
    throw new HostctlError('registry', `"${shownUrl(from)}" is redirected to http`);
  }
  return target;
}

function refused(what: string, status: number): HostctlError {
  const hints = new Map([
    [401, 'The registry does not accept the credentials; see containers-auth.json(5)'],
    [403, 'The registry does not give it to these credentials; see containers-auth.json(5)'],
    [404, 'Is the name right?'],
  ]);
  return new HostctlError('registry', what, {
    hint: hints.get(status) ?? 'Nothing was changed; run the command again',
  });
}

/** `Retry-After` in seconds; a date says nothing to a clock that may be wrong. */
function askedWait(header: string | undefined): number | undefined {
  return header !== undefined && /^[0-9]{1,9}$/.test(header)
    ? Math.min(Number(header) * 1000, LONGEST_ASKED_WAIT_MS)
    : undefined;
}

/** Full jitter. */
export function backOff(tried: number): number {
  const most = Math.min(FIRST_WAIT_MS * 2 ** (tried + 1), LONGEST_WAIT_MS);
  return FIRST_WAIT_MS + Math.random() * (most - FIRST_WAIT_MS);
}
