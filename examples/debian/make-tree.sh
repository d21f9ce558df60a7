#!/bin/sh
# A Debian 13 system as one archive, out of Debian's packages, by mmdebstrap as root. Takes about a minute and 60 MB of
# download:
#   make-tree.sh ARCHIVE.tar[.zst] [PACKAGES]
# PACKAGES is a list such as packages.txt. The kernel there is for virtual machines, linux-image-amd64 is for hardware;
# grub-common, grub-pc-bin and grub-efi-amd64-bin in place of systemd-boot and systemd-boot-efi make GRUB the loader.
# fdisk and dosfstools are for a machine that installs others.
set -eu
archive=${1:?}
packages=${2:-$(dirname "$0")/packages.txt}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# No file is dated later, so that the same packages give the same archive.
export SOURCE_DATE_EPOCH=1767225600
exec mmdebstrap --mode=root --variant=minbase --format=tar \
    --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --include="$(paste -sd, "$packages")" \
    trixie "$archive" \
    "deb [signed-by=$keyring] http://deb.debian.org/debian trixie main" \
    "deb [signed-by=$keyring] http://deb.debian.org/debian-security trixie-security main"
