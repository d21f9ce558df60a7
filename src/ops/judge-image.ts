/**
 * Whether an image may be deployed here: what the host's policy asks of where it comes from, the seals and signatures
 * that speak of it, the list of revoked images. First by the manifest alone, before any layer is read; then once more
 * by the image that was built, whose digest must be the one that was sealed.
 */

import type { Deployment, Deployments } from '../deploy/deployments.ts';
import type { Sysroot } from '../deploy/sysroot.ts';
import { isRevokedBy, keysOf, readRevoked, readTrust, type Trust } from '../deploy/trust.ts';
import { HostctlError, isHostctlError } from '../errors.ts';
import { formatImageReference, parseImageReference, type ImageReference } from '../format/oci/reference.ts';
import { requirementsFor, type Policy, type Requirement } from '../format/policy.ts';
import type { ImageSource } from '../image/source.ts';
import { REVOKED_LIST, SEALS } from '../store/seals.ts';
import type { Host } from '../sys/host.ts';
import { ifSound } from '../deploy/records.ts';
import { parseSecurityVersion } from '../format/seal/seal.ts';
import { checkSeal, readSeals, type AcceptedSeal, type FoundSeals, type PublishedSeal } from './seals.ts';
import { checkSigstore } from './sigstore.ts';

export interface Judgement {
  readonly trust: Trust;
  /** Every seal beside the image, whoever signed it. Looked for once, and not at all where nothing asks for one. */
  readonly published: () => Promise<readonly PublishedSeal[]>;
  /** Those that fulfil what the policy asks, or where it asks for none, those that a trusted key signed. */
  readonly accepted: readonly AcceptedSeal[];
  readonly isSealRequired: boolean;
  /** Ids of the keys by which the manifest was found signed. */
  readonly signedBy: readonly string[];
  /** What the image says itself; where there is a seal, that one counts. */
  readonly labelled: number;
}

export interface JudgeOptions {
  /** Takes an image by a policy that asks for less than that of the image tracked so far. */
  readonly allowWeakerPolicy?: boolean | undefined;
}

const NO_SEALS: FoundSeals = { published: [], broken: [] };

/** The `/etc` of the deployment that goes on, which holds the host's keys and policy. */
export function hostTrust(sysroot: Sysroot, base: Deployment | undefined): Trust {
  return readTrust(base === undefined ? undefined : `${sysroot.deployments}/${base.name}/etc`);
}

/**
 * Throws 'policy-rejected', 'image-unsigned', 'signature-invalid', 'image-revoked' or 'config-invalid'. Reads documents
 * only, and writes nothing.
 */
export async function judgeImage(
  host: Host,
  sysroot: Sysroot,
  { deployments, base }: { readonly deployments: Deployments; readonly base: Deployment | undefined },
  source: ImageSource,
  { allowWeakerPolicy }: JudgeOptions,
): Promise<Judgement> {
  const trust = hostTrust(sysroot, base);
  for (const problem of trust.problems) host.log.warn(problem);
  const tracked = (deployments.staged ?? deployments.next ?? base)?.origin?.reference;
  const requirements = allRequirements(
    trust.policy,
    source.reference,
    allowWeakerPolicy === true ? undefined : tracked,
  );
  const reference = formatImageReference(source.reference);
  if (requirements.some(({ type }) => type === 'reject')) {
    throw new HostctlError('policy-rejected', `The policy rejects "${reference}"`);
  }
  const wanted = requirements.filter((each) => each.type === 'hostctlSealed');
  let found: Promise<FoundSeals> | undefined;
  const seals = (): Promise<FoundSeals> => (found ??= wanted.length > 0 ? readSeals(source) : sealsIfAny(host, source));
  // By no key nothing is signed.
  const { published, broken } = wanted.length > 0 || trust.keys.length > 0 ? await seals() : NO_SEALS;
  const signedBy = new Set<string>();
  const reasons: string[] = [...broken];
  const now = latestTime(host, base);
  const accepted = published.flatMap((seal) => {
    const checks = wanted.length > 0 ? wanted : [{ keys: undefined, identity: { type: 'matchRepository' } as const }];
    const results = checks.map(({ keys, identity }) =>
      checkSeal(seal, { keys: keysOf(trust, keys), identity, source, now: wanted.length > 0 ? now : undefined }),
    );
    reasons.push(...results.flatMap((result) => ('reason' in result ? result.reason : [])));
    const good = results.flatMap((result) => ('reason' in result ? [] : result));
    const [first] = good;
    return first === undefined || good.length < results.length
      ? []
      : { ...first, keys: [...new Set(good.flatMap(({ keys }) => keys))] };
  });
  if (wanted.length > 0 && accepted.length === 0) throw unsealed(reference, trust, reasons);
  for (const requirement of requirements) {
    if (requirement.type !== 'sigstoreSigned') continue;
    const keys = keysOf(trust, requirement.keys);
    signedBy.add(await checkSigstore(source, keys, requirement.identity));
  }
  const revoked = revokedLists(sysroot, trust);
  for (const { seal } of accepted) for (const { digest } of seal.digests) refuseRevoked(revoked, digest, reference);
  return {
    trust,
    published: async () => (await seals()).published,
    accepted,
    isSealRequired: wanted.length > 0,
    signedBy: [...signedBy],
    labelled: labelledVersion(source),
  };
}

/** Where none is asked for, a registry that cannot be asked for seals is no hindrance: all else may be here already. */
async function sealsIfAny(host: Host, source: ImageSource): Promise<FoundSeals> {
  try {
    return await readSeals(source);
  } catch (error) {
    if (!isHostctlError(error, 'registry')) throw error;
    host.log.warn(`Cannot look for seals: ${error.message}`);
    return NO_SEALS;
  }
}

/** Lists that are in force: the host's own, and the one that the initramfs consults. */
export function revokedLists(sysroot: Pick<Sysroot, 'repo'>, trust: Trust): Parameters<typeof isRevokedBy>[0] {
  const stored = ifSound(() => readRevoked(`${sysroot.repo}/${SEALS}/${REVOKED_LIST}`, trust.keys));
  return [trust.revoked, stored];
}

/** Throws 'image-revoked'. */
export function refuseRevoked(lists: Parameters<typeof isRevokedBy>[0], digest: string, what: string): void {
  if (!isRevokedBy(lists, digest)) return;
  throw new HostctlError('image-revoked', `The image ${digest} of "${what}" is revoked`, {
    hint: 'Deploy another version',
  });
}

/**
 * Those of the reference, and of the image tracked so far those that it does not ask for: another name is no way around
 * a policy. What is rejected by now may well be left.
 */
function allRequirements(
  policy: Policy,
  reference: ImageReference,
  tracked: string | undefined,
): readonly Requirement[] {
  const own = requirementsFor(policy, reference);
  if (tracked === undefined) return own;
  const kept = requirementsFor(policy, parseImageReference(tracked)).filter(
    ({ type }) => type !== 'reject' && type !== 'insecureAcceptAnything' && !own.some((each) => each.type === type),
  );
  return [...own, ...kept];
}

/** No clock that was set back makes a seal last longer than the system that runs. */
function latestTime(host: Host, base: Deployment | undefined): number {
  const created = Date.parse(base?.origin?.created ?? '');
  return Math.max(host.now().getTime(), Number.isNaN(created) ? 0 : created);
}

function labelledVersion({ config, manifest }: ImageSource): number {
  const text = config.labels.get(SECURITY_VERSION) ?? manifest.annotations.get(SECURITY_VERSION);
  return text === undefined ? 0 : parseSecurityVersion(text);
}

const SECURITY_VERSION = 'security-version';

function unsealed(reference: string, trust: Trust, reasons: readonly string[]): HostctlError {
  const hint = trust.isPolicyWritten
    ? 'The policy in /etc/hostctl/policy.json asks for a seal; the publisher makes one with "hostctl image seal"'
    : 'There are keys in /etc/hostctl/keys.d, so a seal is needed; the publisher makes one with "hostctl image seal"';
  if (reasons.length === 0) return new HostctlError('image-unsigned', `The image "${reference}" has no seal`, { hint });
  const why = [...new Set(reasons)].join('; ');
  return new HostctlError('signature-invalid', `No seal of "${reference}" can be accepted: ${why}`, { hint });
}
