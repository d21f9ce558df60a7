/**
 * A real registry on loopback, and a proxy before it that counts requests and does to answers what a test wants. What
 * stands in `/etc/containers` and `/run` is the test's own, in a mount namespace for each command.
 */

import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, request, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createListener, type AddressInfo } from 'node:net';
import os from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { PROGRAM } from './run-program.ts';

/** Deals with a request itself, or lets it go on to the registry, perhaps under another path. */
export type Intercept = (path: string, answer: ServerResponse, asked: IncomingMessage) => Promise<string | undefined>;

export interface TestRegistry {
  /** `127.0.0.1:PORT` of the proxy. */
  readonly host: string;
  readonly folder: string;
  /** Paths asked for since the last call, without `/v2/` and the repository. */
  takeRequests(): string[];
  intercept(by: Intercept | undefined): void;
  /** Pushes what skopeo can name, past the proxy. */
  push(source: string, name: string, ...args: string[]): void;
  close(): Promise<void>;
}

export async function startRegistry(): Promise<TestRegistry> {
  const folder = mkdtempSync(`${os.tmpdir()}/hostctl-registry-`);
  const port = await freePort();
  writeFileSync(
    `${folder}/config.yml`,
    `version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: ${folder}/data}}\nhttp: {addr: "127.0.0.1:${port}"}\n`,
  );
  const registry = spawn('docker-registry', ['serve', `${folder}/config.yml`], { stdio: 'ignore' });
  await untilAnswers(registry, port);
  const proxy = new Proxy(port);
  await new Promise<void>((resolve) => proxy.server.listen(0, '127.0.0.1', resolve));
  return {
    host: `127.0.0.1:${(proxy.server.address() as AddressInfo).port}`,
    folder,
    takeRequests: () => proxy.requests.splice(0),
    intercept: (by) => {
      proxy.intercept = by;
    },
    push(source, name, ...args) {
      const target = `docker://127.0.0.1:${port}/${name}`;
      execFileSync('skopeo', ['copy', '-q', '--dest-tls-verify=false', ...args, source, target], { stdio: 'pipe' });
    },
    async close() {
      proxy.server.closeAllConnections();
      proxy.server.close();
      registry.kill('SIGKILL');
      await new Promise((resolve) => registry.once('exit', resolve));
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

class Proxy {
  readonly requests: string[] = [];
  readonly server: Server;
  intercept: Intercept | undefined;
  readonly #port: number;

  constructor(port: number) {
    this.#port = port;
    this.server = createServer((asked, answer) => void this.#serve(asked, answer));
  }

  async #serve(asked: IncomingMessage, answer: ServerResponse): Promise<void> {
    const path = asked.url ?? '/';
    this.requests.push(path.replace(/^\/v2\/(.*?)(?=(manifests|blobs)\/|$)/, ''));
    const onward = this.intercept === undefined ? path : await this.intercept(path, answer, asked);
    if (onward === undefined) return;
    const options = { host: '127.0.0.1', port: this.#port, path: onward, method: asked.method, headers: asked.headers };
    const passed = request(options, (got) => {
      answer.writeHead(got.statusCode ?? 500, got.headers);
      got.pipe(answer);
    });
    asked.pipe(passed);
  }
}

async function freePort(): Promise<number> {
  const listener = createListener();
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const { port } = listener.address() as AddressInfo;
  await new Promise((resolve) => listener.close(resolve));
  return port;
}

async function untilAnswers(registry: ChildProcess, port: number): Promise<void> {
  while (registry.exitCode === null) {
    const answer = await fetch(`http://127.0.0.1:${port}/v2/`).catch(() => undefined);
    if (answer?.ok === true) return;
    await sleep(50);
  }
  throw new Error('docker-registry ended at once');
}

export interface Surroundings {
  readonly folder: string;
  /** `registries.conf`; by default `host` may be spoken to without TLS. */
  readonly registries?: string;
  readonly host?: string;
  readonly policy?: unknown;
  /** Files below `/run` by their paths there. */
  readonly run?: Readonly<Record<string, string>>;
}

export interface AsyncResult {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Starts the program with the given `/etc/containers` and `/run`, in a process group of its own. */
export function startHostctl(
  surroundings: Surroundings,
  args: readonly string[],
): { readonly child: ChildProcess; readonly result: Promise<AsyncResult> } {
  const { folder, host = '', policy = { default: [{ type: 'insecureAcceptAnything' }] }, run = {} } = surroundings;
  const place = mkdtempSync(`${folder}/surroundings-`);
  const write = (name: string, text: string): void => {
    const file = `${place}/${name}`;
    mkdirSync(file.slice(0, file.lastIndexOf('/')), { recursive: true });
    writeFileSync(file, text);
  };
  write('etc/registries.conf', surroundings.registries ?? `[[registry]]\nlocation = "${host}"\ninsecure = true\n`);
  write('etc/policy.json', JSON.stringify(policy));
  mkdirSync(`${place}/run`);
  for (const [name, text] of Object.entries(run)) write(`run/${name}`, text);
  const script = 'mount --bind "$1/etc" /etc/containers && mount --bind "$1/run" /run && shift && exec "$@"';
  const words = ['--mount', '--propagation', 'private', 'sh', '-c', script, 'sh', place, process.execPath, PROGRAM];
  const child = spawn('unshare', [...words, ...args], { detached: true, stdio: ['ignore', 'pipe', 'pipe', 'pipe'] });
  const texts = ['', '', ''];
  for (const [at, fd] of [1, 2, 3].entries()) child.stdio[fd]?.on('data', (piece) => (texts[at] += String(piece)));
  const result = new Promise<AsyncResult & { readonly progress: string }>((resolve) => {
    child.once('close', (exitCode) => {
      const [stdout = '', stderr = '', progress = ''] = texts;
      resolve({ exitCode, stdout, stderr, progress });
    });
  });
  return { child, result };
}
