/**
 * Signatures in the form that the kernel takes for files with fs-verity: PKCS#7 over the formatted digest, without a
 * certificate and without attributes. OpenSSL makes and verifies them.
 */

import { createPrivateKey, X509Certificate } from 'node:crypto';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HostctlError } from '../errors.ts';
import { digestAlgorithm } from '../format/fsverity/digest.ts';
import { formattedDigest } from '../format/fsverity/formatted-digest.ts';
import { explainSystemError, readSmallText } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import type { VerityDigest } from '../tree/node.ts';

/** Files, PEM. */
export interface Pkcs7Signer {
  readonly privateKey: string;
  readonly certificate: string;
}

/** Throws 'usage' for files that are not a certificate and the key that it is for. */
export function checkSigner({ privateKey, certificate }: Pkcs7Signer): void {
  const parsed = readCertificate(certificate);
  const key = reading(privateKey, 'private key', (pem) => createPrivateKey(pem));
  if (!parsed.checkPrivateKey(key)) {
    throw new HostctlError('usage', `The certificate "${certificate}" is not for the key "${privateKey}"`);
  }
}

/** Throws 'usage' for a file that is none. */
export function readCertificate(path: string): X509Certificate {
  return reading(path, 'certificate', (pem) => new X509Certificate(pem));
}

function reading<T>(path: string, what: string, parse: (pem: string) => T): T {
  try {
    const pem = readSmallText(path);
    if (pem !== undefined) return parse(pem);
  } catch (error) {
    const { message } = explainSystemError(error, 'Cannot read it');
    throw new HostctlError('usage', `Cannot use the ${what} "${path}": ${message}`, { cause: error });
  }
  throw new HostctlError('usage', `The ${what} "${path}" does not exist`);
}

/** The same bytes as `fsverity sign` gives for a file with this digest, where the key's algorithm gives always the same. */
export async function signDigest(host: Host, digest: VerityDigest, signer: Pkcs7Signer): Promise<Uint8Array> {
  const { stdout } = await host.exec.run(
    'openssl',
    [
      ...['smime', '-sign', '-binary', '-noattr', '-nocerts', '-outform', 'PEM'],
      ...['-md', digestAlgorithm(digest), '-signer', signer.certificate, '-inkey', signer.privateKey],
    ],
    { input: formattedDigest(digest) },
  );
  const [, base64] = /^-----BEGIN PKCS7-----\n([A-Za-z0-9+/=\n]+)\n-----END PKCS7-----$/.exec(stdout) ?? [];
  if (base64 === undefined) throw new HostctlError('command-failed', 'openssl gave no PKCS#7 signature');
  return Buffer.from(base64, 'base64');
}

/** Whether a signature over the digest is by the key of this certificate. Who issued that, and until when, is not asked. */
export async function isDigestSigned(
  host: Host,
  digest: VerityDigest,
  signature: Uint8Array,
  certificate: string,
): Promise<boolean> {
  const directory = fs.mkdtempSync(join(tmpdir(), 'hostctl-pkcs7-'));
  try {
    const [content, der] = [join(directory, 'digest'), join(directory, 'signature')];
    fs.writeFileSync(content, formattedDigest(digest));
    fs.writeFileSync(der, signature);
    const { exitCode } = await host.exec.run(
      'openssl',
      [
        ...['cms', '-verify', '-binary', '-inform', 'DER', '-in', der, '-content', content, '-out', '/dev/null'],
        // No certificate but this one, whatever the signature brings along.
        ...['-certfile', certificate, '-nointern', '-noverify'],
      ],
      // 2 is for what is no PKCS#7 at all, once the certificate is known to be one.
      { allowed: [0, 2, 4] },
    );
    return exitCode === 0;
  } finally {
    fs.rmSync(directory, { recursive: true });
  }
}
