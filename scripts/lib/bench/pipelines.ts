/**
 * What is compared: hostctl, and what one would run instead. Each is a script that takes an OCI layout to objects and a
 * composefs image, or as far as the tool goes, on $TARGET, and ends with its data synced.
 *
 * Kept in favour of the others: they check no digest and apply no whiteouts, `umoci` and `podman` apart.
 */

/** How far a pipeline goes. */
export type Result = 'composefs' | 'something else';

export interface Pipeline {
  readonly name: string;
  /** Programs without which it is not measured. */
  readonly needs: readonly string[];
  readonly result: Result;
  /** Which of the peers it belongs to; hostctl is none. */
  readonly kind: 'hostctl' | 'no fsync' | 'as shipped' | 'for comparison';
  readonly script: string;
}

/** Layers as files, in order: $LAYERS. mkcomposefs comes from another system, with the loader of that one. */
export const unpack = {
  bsdtar: 'for layer in $LAYERS; do bsdtar -xpf "$layer" -C "$TARGET/tree" --exclude "*/.wh.*"; done',
  igzip: 'for layer in $LAYERS; do tar -I igzip -xpf "$layer" -C "$TARGET/tree" --exclude ".wh.*"; done',
} as const;
const tree = 'mkdir -p "$TARGET/tree" "$TARGET/objects"';
export const MKCOMPOSEFS =
  '"$SID/lib64/ld-linux-x86-64.so.2" --library-path "$SID/usr/lib/x86_64-linux-gnu" "$SID/usr/bin/mkcomposefs"';
const mkcomposefs = (tree: string): string =>
  `${MKCOMPOSEFS} --digest-store="$TARGET/objects" ${tree} "$TARGET/image.cfs"`;
const sync = 'sync --file-system "$TARGET"';
const shipped = mkcomposefs('"$TARGET/tree"');
const unsynced = `LD_PRELOAD="$NO_FSYNC" ${shipped}`;
export const hostctl = 'node "$HOSTCTL"';

export const PIPELINES: readonly Pipeline[] = [
  {
    name: 'hostctl deploy',
    needs: ['node'],
    result: 'composefs',
    kind: 'hostctl',
    script: `mkdir -p "$TARGET/boot"; ${hostctl} deploy "oci:$IMAGE" --sysroot "$TARGET" --hash sha256 --allow-missing-verity`,
  },
  {
    name: 'hostctl deploy, SHA-512',
    needs: ['node'],
    result: 'composefs',
    kind: 'for comparison',
    script: `mkdir -p "$TARGET/boot"; ${hostctl} deploy "oci:$IMAGE" --sysroot "$TARGET" --hash sha512 --allow-missing-verity`,
  },
  {
    name: 'hostctl image pull',
    needs: ['node'],
    result: 'composefs',
    kind: 'for comparison',
    script: `${hostctl} image pull "oci:$IMAGE" --repo "$TARGET/composefs" --hash sha256`,
  },
  {
    name: 'bsdtar, mkcomposefs without fsync',
    needs: ['bsdtar', 'mkcomposefs'],
    result: 'composefs',
    kind: 'no fsync',
    script: [tree, unpack.bsdtar, unsynced, sync].join('\n'),
  },
  {
    name: 'tar -I igzip, mkcomposefs without fsync',
    needs: ['igzip', 'mkcomposefs'],
    result: 'composefs',
    kind: 'no fsync',
    script: [tree, unpack.igzip, unsynced, sync].join('\n'),
  },
  {
    name: 'bsdtar, mkcomposefs',
    needs: ['bsdtar', 'mkcomposefs'],
    result: 'composefs',
    kind: 'as shipped',
    script: [tree, unpack.bsdtar, shipped, sync].join('\n'),
  },
  {
    name: 'umoci, mkcomposefs',
    needs: ['umoci', 'mkcomposefs'],
    result: 'composefs',
    kind: 'as shipped',
    script: [
      'mkdir "$TARGET/objects"',
      'umoci unpack --image "$IMAGE:$TAG" "$TARGET/bundle"',
      mkcomposefs('"$TARGET/bundle/rootfs"'),
      sync,
    ].join('\n'),
  },
  {
    name: 'bsdtar, ostree commit',
    needs: ['bsdtar', 'ostree'],
    result: 'something else',
    kind: 'for comparison',
    script: [
      'mkdir "$TARGET/tree"',
      unpack.bsdtar,
      'rm -rf "$TARGET/tree/dev"',
      'ostree --repo="$TARGET/repo" init --mode=bare',
      'ostree --repo="$TARGET/repo" commit --branch=image --tree=dir="$TARGET/tree"',
      sync,
    ].join('\n'),
  },
  {
    name: 'podman pull',
    needs: ['podman'],
    result: 'something else',
    kind: 'for comparison',
    script: `podman --root "$TARGET/storage" --runroot "$TARGET/run" pull -q "oci:$IMAGE:$TAG"\n${sync}`,
  },
  {
    name: 'skopeo copy (blobs as they are)',
    needs: ['skopeo'],
    result: 'something else',
    kind: 'for comparison',
    script: `skopeo --insecure-policy copy -q "oci:$IMAGE:$TAG" "oci:$TARGET/copy:$TAG"\n${sync}`,
  },
];
