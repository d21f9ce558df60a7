#!/bin/sh
# A bootable Debian 13 image as an OCI layout, with hostctl in it:
#   build.sh HOSTCTL.deb LAYOUT [TAG]
# Needs root, mmdebstrap, umoci and zstd. Put what your hosts need into packages.txt and, before the layers are packed,
# into the trees: users, network and whatever makes it yours.
set -eu
deb=$(realpath "${1:?}")
layout=$(realpath "${2:?}")
tag=${3:-latest}
here=$(dirname "$(realpath "$0")")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/tree"
"$here/make-tree.sh" "$work/tree.tar.zst"
tar --extract --zstd --xattrs --xattrs-include='*' --numeric-owner -f "$work/tree.tar.zst" -C "$work/tree"
unshare --mount --propagation private sh "$here/compose-tree.sh" "$work/tree" "$deb" "$work/layers"

umoci init --layout "$layout"
umoci new --image "$layout:$tag"
for layer in tree layers/kernel layers/hostctl; do
    tar --create --file="$work/layer.tar" --format=pax --sort=name --numeric-owner --xattrs \
        --xattrs-include='security.*' --xattrs-include='user.*' \
        --pax-option='exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime' \
        --mtime=@1767225600 --clamp-mtime --directory="$work/$layer" .
    umoci raw add-layer --image "$layout:$tag" "$work/layer.tar"
done
umoci config --image "$layout:$tag" --config.label containers.bootc=1
