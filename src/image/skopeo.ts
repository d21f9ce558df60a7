/**
 * skopeo, which reaches images that do not lie in a layout on this host. It reads `registries.conf`, `policy.json`,
 * certificates and credentials by itself; the only thing hostctl adds is a place for credentials that lasts over a
 * reboot. What it says about a failure is text alone, so the one place that has to tell failures apart by text is here.
 */

import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { HostctlError, type ErrorCode } from '../errors.ts';
import { displayRaw, rawFromText } from '../tree/name.ts';
import { blobPath, type OciDigest } from '../format/oci/digest.ts';
import { split } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';

/** In the form of containers-auth.json(5); skopeo's own places are looked at where none of them exists. */
const AUTH_FILES = ['/run/hostctl/auth.json', '/etc/hostctl/auth.json', '/usr/lib/hostctl/auth.json'] as const;
/** Connecting, waiting for an answer, trying again: more than a document of 4 MiB ever takes. */
const DOCUMENT_TIMEOUT = '120s';
/** skopeo waits 1, 2, 4 and 8 seconds in between, and does not repeat what the registry refuses. */
const RETRIES = '4';
/** Longer than any wait of skopeo's, and than a registry may take to begin to answer. */
const IDLE_MS = 60_000;
const WATCH_MS = 500;

/** What skopeo failed at, by its own words; anything else is what is usual for the transport. */
const FAILURES: readonly (readonly [RegExp, ErrorCode, string | undefined])[] = [
  [/source image rejected/i, 'policy-rejected', 'See /etc/containers/policy.json'],
  [/digest did not match|does not match provided manifest digest/i, 'digest-mismatch', undefined],
  [/exceeded maximum allowed size/i, 'image-unsupported', undefined],
  [/no space left on device|disk quota exceeded/i, 'no-space', 'Free space, then run the command again'],
];

/** Where skopeo takes an image from, and what its failures mostly are. */
export interface SkopeoSource {
  /** As in containers-transports(5). */
  readonly name: string;
  readonly failure: ErrorCode;
}

/** The manifest or index that a name leads to, byte for byte, at most `maxBytes` long. */
export function inspectManifest(host: Host, source: SkopeoSource, maxBytes: number): Promise<Uint8Array> {
  return inspect(host, source, ['--raw'], maxBytes);
}

/** The config of the image that a name leads to, byte for byte. */
export function inspectConfig(host: Host, source: SkopeoSource, maxBytes: number): Promise<Uint8Array> {
  return inspect(host, source, ['--raw', '--config'], maxBytes);
}

function inspect(host: Host, source: SkopeoSource, args: string[], maxBytes: number): Promise<Uint8Array> {
  const words = [
    `--command-timeout=${DOCUMENT_TIMEOUT}`,
    'inspect',
    `--retry-times=${RETRIES}`,
    ...authArgs('--authfile'),
  ];
  return run(host, source, [...words, ...args, source.name], { maxBytes });
}

/**
 * Copies the layers of one image into a directory of blobs, but for those that are there; refused by the policy before
 * the first. `grown` tells how much has come so far; where that stands still the copy is given up.
 */
export async function copyLayers(
  host: Host,
  source: SkopeoSource,
  target: { readonly layout: string; readonly blobs: string },
  grown?: () => number,
): Promise<void> {
  const args = [
    'copy',
    '--quiet',
    `--retry-times=${RETRIES}`,
    // Of the image in the layout only the blobs are wanted; as they are.
    `--dest-shared-blob-dir=${target.blobs}`,
    '--dest-oci-accept-uncompressed-layers',
    ...authArgs('--src-authfile'),
  ];
  await run(host, source, [...args, source.name, `oci:${withoutColon(target.layout)}:image`], { maxBytes: 0, grown });
}

/**
 * Refuses what the policy does not allow. skopeo judges only what it copies, and copies no blob that is there: so it is
 * given a directory in which every layer seems to be, and reads no more than manifest, config and signatures.
 * @param scratch - an empty directory
 */
export async function checkPolicy(
  host: Host,
  source: SkopeoSource,
  layers: readonly OciDigest[],
  scratch: string,
): Promise<void> {
  const target = { layout: `${scratch}/layout`, blobs: `${scratch}/blobs` };
  for (const digest of layers) {
    const file = `${scratch}/${blobPath(digest)}`;
    mkdirSync(split(file).directory, { recursive: true });
    writeFileSync(file, '');
  }
  await copyLayers(host, source, target);
}

/** Copies what a name leads to into a directory (`dir:`), manifests and blobs as they are. */
export async function copyAll(
  host: Host,
  source: SkopeoSource,
  target: {
    readonly directory: string;
    /** For files of skopeo's own. */
    readonly work: string;
    /** Every image of an index. */
    readonly all: boolean;
  },
): Promise<void> {
  const all = target.all ? ['--all'] : [];
  const args = [`--tmpdir=${target.work}`, 'copy', '--quiet', ...all, source.name, `dir:${target.directory}`];
  await run(host, source, args, { maxBytes: 0 });
}

/** The file of credentials that hostctl looks at before those of podman. */
export function authFile(): string | undefined {
  return AUTH_FILES.find((path) => existsSync(path));
}

function authArgs(option: string): string[] {
  const file = authFile();
  return file === undefined ? [] : [`${option}=${file}`];
}

/** skopeo takes what follows the first colon for the tag. */
function withoutColon(path: string): string {
  if (!path.includes(':')) return path;
  throw new HostctlError('usage', `Cannot fetch into "${path}": its path has a colon`, {
    hint: 'Use a repository whose path has none',
  });
}

async function run(
  host: Host,
  source: SkopeoSource,
  args: readonly string[],
  { maxBytes, grown }: { readonly maxBytes: number; readonly grown?: (() => number) | undefined },
): Promise<Uint8Array> {
  const child = host.exec.filter('skopeo', args);
  // It reads nothing, and may be gone before this.
  child.stdin.on('error', () => undefined);
  child.stdin.end();
  let isIdle = false;
  const stopWatching = watch(grown, () => {
    isIdle = true;
    child.kill();
  });
  try {
    const pieces: Buffer[] = [];
    let length = 0;
    child.stdout.on('data', (piece: Buffer) => {
      length += piece.length;
      if (length <= maxBytes) pieces.push(piece);
      else child.kill();
    });
    const { exitCode, stderr } = await child.ended;
    if (host.signal.aborted) throw new HostctlError('interrupted', 'Stopped "skopeo"', { cause: host.signal.reason });
    if (length > maxBytes) {
      throw new HostctlError('image-unsupported', `"${source.name}" leads to more than ${maxBytes} bytes`);
    }
    if (exitCode !== 0) throw failure(source, isIdle ? `nothing came for ${IDLE_MS / 1000} seconds` : stderr);
    return Buffer.concat(pieces);
  } finally {
    stopWatching();
  }
}

/** Calls `giveUp` once `grown` has said the same for too long. */
function watch(grown: (() => number) | undefined, giveUp: () => void): () => void {
  if (grown === undefined) return () => undefined;
  let last = -1;
  let idleMs = 0;
  const timer = setInterval(() => {
    const now = grown();
    idleMs = now === last ? idleMs + WATCH_MS : 0;
    last = now;
    if (idleMs >= IDLE_MS) giveUp();
  }, WATCH_MS);
  return () => clearInterval(timer);
}

function failure(source: SkopeoSource, stderr: string): HostctlError {
  const said = shown(stderr);
  const [, code, hint] = FAILURES.find(([pattern]) => pattern.test(said)) ?? [undefined, source.failure, undefined];
  const retry = code === 'registry' ? 'Nothing was changed; run the command again' : hint;
  const options = retry === undefined ? {} : { hint: retry };
  return new HostctlError(code, `Cannot read "${source.name}": ${said}`, options);
}

/** The last message of skopeo's log, without queries: those of redirects can be credentials. */
function shown(stderr: string): string {
  const line = stderr.trim().split('\n').at(-1) ?? '';
  const quoted = /\bmsg=("(?:[^"\\]|\\.)*")/.exec(line)?.[1];
  const message = quoted === undefined ? line : unquoted(quoted);
  return displayRaw(rawFromText(message.replaceAll(/\?[^\s"']*/g, '?…').slice(0, 1000)));
}

/** Go's quoting is JSON's but for bytes that are no text. */
function unquoted(quoted: string): string {
  try {
    return JSON.parse(quoted) as string;
  } catch (error) {
    if (error instanceof SyntaxError) return quoted;
    throw error;
  }
}
