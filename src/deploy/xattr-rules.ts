/**
 * Which extended attributes belong to a file's owner, and which to the kernel or the file system it happens to lie on.
 */

const ACLS: readonly string[] = ['system.posix_acl_access', 'system.posix_acl_default'];

/**
 * Whether an xattr goes along when a file is copied. Properties of one file system (`btrfs.*`) do not, nor does
 * `security.evm`, which holds only for the inode it was computed for.
 */
export function isCarriedXattr(name: string): boolean {
  return /^(?:user|trusted|security)\../.test(name) ? name !== 'security.evm' : ACLS.includes(name);
}

/** Whether an xattr is a label, which the running kernel may have given of its own accord (SELinux, Smack, IMA). */
export function isLabelXattr(name: string): boolean {
  return name.startsWith('security.') && name !== 'security.capability';
}
