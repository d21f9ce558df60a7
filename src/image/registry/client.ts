/**
 * Speaks to a registry (distribution-spec): credentials and tokens, redirects, and trying again. What comes is
 * unchecked; whoever asks compares it with a digest. Credentials go to the registry and to the token server it names,
 * and to nobody else.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { HostctlError, isHostctlError } from '../../errors.ts';
import type { BasicCredentials } from '../../format/containers/auth-json.ts';
import type { RegistryEndpoint } from '../../format/containers/registries-conf.ts';
import { HttpBroken, parseUrl, sendHttp, shownUrl, type HttpAnswer, type HttpRequest } from '../../sys/http.ts';
import type { Host } from '../../sys/host.ts';
import { readBody } from './body.ts';
import { fetchToken, parseChallenge } from './token.ts';

export interface AccessibleEndpoint extends RegistryEndpoint {
  readonly credentials: BasicCredentials | undefined;
  readonly ca: readonly string[] | undefined;
}

export type Pause = (ms: number) => Promise<void>;

/** The registry understood, and says no. */
export class RegistryRefused extends HostctlError {
  readonly status: number;

  constructor(what: string, status: number, hint: string) {
    super('registry', `${what}: status ${status}`, { hint });
    this.status = status;
  }
}

/** What is sent, below the repository. */
export interface Sending {
  readonly method: 'POST' | 'PUT';
  /** Or a URL that the registry gave as the place to go on. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
}

type Action = 'pull' | 'pull,push';

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

  /** Sends to the registry itself, never to a mirror, once: a second time might do more than the first. */
  send(sending: Sending): Promise<HttpAnswer['headers']> {
    return this.#endpoints.at(-1)!.send(sending);
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

type RegistryRequest = Pick<HttpRequest, 'method' | 'url' | 'headers' | 'body'>;

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
        const answer = await this.#authorized({ url: await this.#urlOf(path), headers }, 'pull');
        if (answer.status === 200 || answer.status === 206 || answer.status === 416) return answer;
        answer.discard();
        if (!isPassing(answer.status) || tried >= retries) {
          throw refused(`Cannot read ${this.#shown(path)}`, answer.status);
        }
        waitMs = askedWait(answer.headers['retry-after']);
      } catch (error) {
        if (!(error instanceof HttpBroken) || tried >= retries) throw error;
      }
      await this.#pause(waitMs ?? backOff(tried));
    }
  }

  async send({ method, path, headers = {}, body }: Sending): Promise<HttpAnswer['headers']> {
    const url = await this.#urlOf(path);
    const answer = await this.#authorized({ method, url, headers, body }, 'pull,push');
    answer.discard();
    if (answer.status === 201 || answer.status === 202) return answer.headers;
    throw refused(`Cannot write to ${this.#shown(url.pathname)}`, answer.status);
  }

  #shown(path: string): string {
    return `"${this.#endpoint.host}/${this.#endpoint.repository}/${path}"`;
  }

  /** Of a path below the repository, or of a place that the registry named, which must be its own. */
  async #urlOf(path: string): Promise<URL> {
    const base = await this.#base();
    if (!/^(?:\/|https?:)/.test(path)) return new URL(`${base}/v2/${this.#endpoint.repository}/${path}`);
    const url = parseUrl(path, base);
    if (url?.origin === new URL(base).origin) return url;
    throw new HostctlError('registry', `"${this.#endpoint.host}" wants what is sent to go elsewhere`);
  }

  /** With the credentials there are; fresh ones, once, where the registry wants others. */
  async #authorized(request: RegistryRequest, action: Action): Promise<HttpAnswer> {
    const first = await this.#follow(request);
    if (first.status !== 401) return first;
    first.discard();
    this.#authorization = await this.#authorize(first.headers['www-authenticate'] ?? '', request.url, action);
    return this.#follow(request);
  }

  async #authorize(header: string, url: URL, action: Action): Promise<string> {
    const { credentials } = this.#endpoint;
    const challenge = parseChallenge(header);
    if (challenge?.scheme === 'bearer') {
      const token = await fetchToken(challenge, {
        credentials,
        scope: `repository:${this.#endpoint.repository}:${action}`,
        isPlain: url.protocol === 'http:',
        send: (at, headers) => this.#send({ url: at, headers }),
      });
      return `Bearer ${token}`;
    }
    if (challenge?.scheme === 'basic' && credentials !== undefined) return `Basic ${credentials}`;
    throw new HostctlError('registry', `"${shownUrl(url)}" wants credentials`, {
      hint: 'Put them into /etc/hostctl/auth.json, see containers-auth.json(5)',
    });
  }

  async #follow({ url: start, headers, ...rest }: RegistryRequest): Promise<HttpAnswer> {
    let url = start;
    for (let redirects = 0; ; redirects++) {
      const own = url.origin === start.origin && this.#authorization !== undefined;
      const all = own ? { ...headers, authorization: this.#authorization! } : headers;
      const answer = await this.#send({ ...rest, url, headers: all });
      if (!REDIRECTS.has(answer.status) || rest.body !== undefined) return answer;
      answer.discard();
      if (redirects === MAX_REDIRECTS) {
        throw new HostctlError('registry', `"${shownUrl(start)}" is redirected more than ${MAX_REDIRECTS} times`);
      }
      url = redirectTarget(url, answer.headers.location);
    }
  }

  #send(request: RegistryRequest): Promise<HttpAnswer> {
    const { insecure, ca } = this.#endpoint;
    return sendHttp({ ...request, insecure, ca, signal: this.#host.signal });
  }

  /** Only where it may be insecure is http tried, and only after https. */
  async #base(): Promise<string> {
    const { host, insecure } = this.#endpoint;
    if (!insecure) return `https://${host}`;
    if (this.#scheme === undefined) {
      try {
        (await this.#send({ url: new URL(`https://${host}/v2/`), headers: {} })).discard();
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

function refused(what: string, status: number): RegistryRefused {
  const hints = new Map([
    [401, 'The registry does not accept the credentials; see containers-auth.json(5)'],
    [403, 'The registry does not give it to these credentials; see containers-auth.json(5)'],
    [404, 'Is the name right?'],
  ]);
  return new RegistryRefused(what, status, hints.get(status) ?? 'Nothing was changed; run the command again');
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
