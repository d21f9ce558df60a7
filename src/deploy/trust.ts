/**
 * What a host trusts, read from its own `/etc/hostctl`: public keys in `keys.d`, the policy, the list of revoked images.
 * Keys in `keys.d` mean that seals are wanted: without a policy of its own such a host takes sealed images only.
 */

import { HostctlError, isHostctlError, isShortage } from '../errors.ts';
import { parsePublicKey, type PublicKey } from '../format/seal/key.ts';
import { MAX_SEAL_BYTES } from '../format/seal/lines.ts';
import { isRevoked, parseRevoked, type RevokedList } from '../format/seal/revoked.ts';
import { parseSignatures, signersOf } from '../format/seal/signatures.ts';
import { parsePolicy, type KeySource, type Policy } from '../format/policy.ts';
import { isDirectory, listNames, readSmallFile, readSmallText } from '../sys/files.ts';

export interface Trust {
  /** The `/etc` it was read from; undefined for a host without any. */
  readonly etc: string | undefined;
  readonly keys: readonly PublicKey[];
  readonly policy: Policy;
  /** Whether the policy is the host's own words. */
  readonly isPolicyWritten: boolean;
  readonly revoked: SignedRevoked | undefined;
  /** What could not be used; each makes less trusted, never more. */
  readonly problems: readonly string[];
}

/** A list of revoked images that a trusted key signed. */
export interface SignedRevoked extends RevokedList {
  readonly bytes: Uint8Array;
  readonly signatures: Uint8Array;
}

/** Below `/etc` and, for those of an image, in its tree. */
export const KEYS_DIRECTORY = 'hostctl/keys.d';
const POLICY = 'hostctl/policy.json';
const REVOKED = 'hostctl/revoked';
const MAX_POLICY_BYTES = 1 << 20;

const ACCEPT: Policy = { default: [{ type: 'insecureAcceptAnything' }], transports: new Map() };
const SEALED: Policy = {
  default: [{ type: 'hostctlSealed', keys: undefined, identity: { type: 'matchRepository' } }],
  transports: new Map(),
};

/** Reads what the host with this `/etc` trusts. Throws 'config-invalid' for a policy that cannot be used. */
export function readTrust(etc: string | undefined): Trust {
  if (etc === undefined || !isDirectory(etc)) {
    return { etc: undefined, keys: [], policy: ACCEPT, isPolicyWritten: false, revoked: undefined, problems: [] };
  }
  const problems: string[] = [];
  const { keys, isWanted } = readKeys(`${etc}/${KEYS_DIRECTORY}`, problems);
  const policy = readSmallFile(`${etc}/${POLICY}`, MAX_POLICY_BYTES);
  return {
    etc,
    keys,
    policy: policy === undefined ? (isWanted ? SEALED : ACCEPT) : parsePolicy(policy),
    isPolicyWritten: policy !== undefined,
    revoked: tellUnusable(problems, () => readRevoked(`${etc}/${REVOKED}`, keys)),
    problems,
  };
}

/** Every key of a directory. One that cannot be read is a problem, and nobody's. */
function readKeys(directory: string, problems: string[]): { keys: PublicKey[]; isWanted: boolean } {
  const names = isDirectory(directory) ? listNames(directory).filter((name) => name.endsWith('.pub')) : [];
  const keys = names.flatMap(
    (name) =>
      tellUnusable(problems, () => {
        try {
          return parsePublicKey(readSmallText(`${directory}/${name}`) ?? '');
        } catch (error) {
          const problem = `The key "/etc/${KEYS_DIRECTORY}/${name}" cannot be used: ${messageOf(error)}`;
          throw isShortage(error) ? error : new HostctlError('config-invalid', problem, { cause: error });
        }
      }) ?? [],
  );
  return { keys, isWanted: names.length > 0 };
}

/** The keys that a requirement names. One that is missing or broken verifies nothing. */
export function keysOf({ etc, keys }: Trust, sources: readonly KeySource[] | undefined): readonly PublicKey[] {
  if (sources === undefined) return keys;
  return sources.flatMap((source) => {
    const pem = source.kind === 'data' ? source.pem : readSmallText(`${etc}${source.path.slice('/etc'.length)}`);
    try {
      return pem === undefined ? [] : parsePublicKey(pem);
    } catch (error) {
      if (isHostctlError(error)) return [];
      throw error;
    }
  });
}

/** The list at `path` and `path.sig`, signed by one of `keys`. Throws when there is one that is not. */
export function readRevoked(path: string, keys: readonly PublicKey[]): SignedRevoked | undefined {
  const bytes = readSmallFile(path, MAX_SEAL_BYTES);
  if (bytes === undefined) return undefined;
  const signatures = readSmallFile(`${path}.sig`, MAX_SEAL_BYTES) ?? new Uint8Array();
  if (signersOf(bytes, parseSignatures(signatures), keys).length === 0) {
    throw new HostctlError('signature-invalid', `The list "${path}" is not signed by a trusted key`);
  }
  return { ...parseRevoked(bytes), bytes, signatures };
}

/** Whether any of these lists has the digest. */
export function isRevokedBy(lists: readonly (RevokedList | undefined)[], digest: string): boolean {
  return lists.some((list) => list !== undefined && isRevoked(list, digest));
}

function tellUnusable<T>(problems: string[], read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (isShortage(error)) throw error;
    problems.push(messageOf(error));
    return undefined;
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
