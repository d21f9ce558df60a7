#!/bin/sh
# A Debian 13 system as one archive, out of Debian's packages, by mmdebstrap as root. Takes about a minute and 60 MB of
# download:
#   make-tree.sh ARCHIVE.tar[.zst]
# The packages are those of packages.txt; the kernel there is for virtual machines, linux-image-amd64 is for hardware.
# fdisk and dosfstools are for a machine that installs others.
set -eu
archive=${1:?}
here=$(dirname "$0")
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# No file is dated later, so that the same packages give the same archive.
export SOURCE_DATE_EPOCH=1767225600
exec mmdebstrap --mode=root --variant=minbase --format=tar \
    --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --include="$(paste -sd, "$here/packages.txt")" \
    trixie "$archive" \
    "deb [signed-by=$keyring] http://deb.debian.org/debian trixie main" \
    "deb [signed-by=$keyring] http://deb.debian.org/debian-security trixie-security main"
