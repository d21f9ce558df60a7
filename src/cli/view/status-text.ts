/** `status` for people. Pure. */

import type { DeploymentDocument, StatusDocument } from './status-json.ts';

const DIGEST_SHOWN = 16;
/** Enough to name one that has no number. */
const SHORT_ID = 8;

export function statusText(document: StatusDocument, verbose: boolean): string {
  const blocks = document.deployments.map((deployment) => deploymentText(deployment, verbose));
  if (blocks.length === 0) blocks.push('No deployments\n');
  if (verbose) blocks.push(hostText(document.host));
  for (const { message, hint } of document.warnings) {
    blocks.push(`Warning: ${message}\n${hint === undefined ? '' : `  ${hint}\n`}`);
  }
  return blocks.join('\n');
}

function deploymentText(deployment: DeploymentDocument, verbose: boolean): string {
  const { state, triesLeft, pinned, roles, image, composefs, entry, problems, level, sealAtBoot } = deployment;
  const tries = state === 'trying' && triesLeft !== null ? `, ${triesLeft} tries left` : '';
  const rows: [string, string | null][] = [
    ['image', image.reference],
    ['version', image.version],
    ['composefs', shorten(composefs.digest, verbose)],
    ['signature', signatureText(image.signature, sealAtBoot, verbose)],
    ['level', levelText(level)],
    ['verity', composefs.verity === 'required' ? null : verityText(composefs.verity)],
    ['entry', entry?.file ?? null],
  ];
  if (verbose) {
    rows.push(
      ['manifest', image.manifestDigest],
      ['created', image.created],
      ['hash', composefs.hash],
      ['linux', entry?.linux ?? null],
      ['initrd', entry === null || entry.initrd.length === 0 ? null : entry.initrd.join(' ')],
      ['efi', entry?.efi ?? null],
      ['options', entry?.kargs.join(' ') ?? null],
    );
  }
  const lines = rows.flatMap(([name, value]) => (value === null ? [] : `  ${name.padEnd(10)} ${printable(value)}`));
  for (const { message } of problems) lines.push(`  problem    ${printable(message)}`);
  const heading = [
    deploymentName(deployment),
    `(${state}${tries})`,
    ...roles.map((role) => role.toUpperCase()),
    ...(pinned ? ['PINNED'] : []),
  ];
  return `${[heading.join(' '), ...lines].join('\n')}\n`;
}

function deploymentName({ id, tool, composefs }: DeploymentDocument): string {
  if (id !== null) return tool === null ? `Deployment ${id}` : `Deployment ${id} of ${tool}`;
  return tool === null
    ? 'Deployment (no number)'
    : `Deployment ${composefs.digest?.slice(0, SHORT_ID) ?? ''} of ${tool}`;
}

function hostText(host: StatusDocument['host']): string {
  const rows = Object.entries(host).filter(([, value]) => value !== null) as [string, string][];
  return ['Host', ...rows.map(([name, value]) => `  ${name.padEnd(10)} ${printable(value)}`)].join('\n') + '\n';
}

/** Keys are shown by their beginnings, as digests are. */
function signatureText(signature: string, sealAtBoot: boolean, verbose: boolean): string {
  const shown = verbose ? signature : signature.replace(/[0-9a-f]{64}/g, (id) => shorten(id, false) ?? id);
  return sealAtBoot ? `${shown}, asked for at each boot` : shown;
}

/** What is not verified at all says so in a line of its own. */
function levelText(level: DeploymentDocument['level']): string | null {
  if (level === 'pinned') return 'pinned: whoever can write the boot partition can replace it';
  return level === 'sealed-by-uki' ? 'sealed by UKI: the firmware verifies kernel, initramfs and digest' : null;
}

function verityText(verity: DeploymentDocument['composefs']['verity']): string | null {
  return verity === null ? null : `${verity}: this deployment is NOT verified at boot`;
}

function shorten(digest: string | null, verbose: boolean): string | null {
  return digest === null || verbose ? digest : `${digest.slice(0, DIGEST_SHOWN)}…`;
}

/** Labels and references come from outside: no terminal control from them. */
export function printable(text: string): string {
  return text.replace(/[\x00-\x1f\x7f-\x9f]/g, '�');
}
