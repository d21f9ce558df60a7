#!/bin/sh
# Turns an unpacked Debian tree into the layers of a bootable image. Run in a private mount namespace:
#   compose-tree.sh TREE DEB LAYERS [TRUST]
# TREE becomes the base system; LAYERS/kernel gets the kernel, its modules and the initramfs, LAYERS/hostctl what
# installing DEB changes. What lies in TRUST goes to /etc/hostctl of the image, before the initramfs is made. Follows
# docs/image.md.
set -eu
tree=${1:?}
deb=${2:?}
layers=${3:?}
trust=${4:-}

version=$(ls "$tree/usr/lib/modules")
mkdir -p "$layers/kernel/usr/lib" "$layers/hostctl" "$layers/work" "$layers/merged"

# What a package installation leaves behind and an image must not have.
for name in var/log var/cache var/lib/apt/lists run tmp dev; do
    find "$tree/$name" -mindepth 1 -delete
done
rm -f "$tree"/etc/resolv.conf "$tree"/etc/hostname "$tree"/etc/.updated "$tree"/var/.updated
rm -f "$tree"/vmlinuz* "$tree"/initrd.img*
: >"$tree/etc/machine-id"
mkdir -p "$tree/sysroot"
chmod 0755 "$tree/sysroot"

# What the package tools know of /usr goes with /usr: in /var it would stay that of a host's first deployment.
rm -f "$tree/var/lib/systemd/catalog/database"
mkdir -p "$tree/usr/lib/sysimage"
for path in "$tree"/var/lib/dpkg "$tree"/var/lib/apt/extended_states "$tree"/var/lib/pam "$tree"/var/lib/shells.state \
    "$tree"/var/lib/systemd/deb-systemd-*; do
    name=$(basename "$path")
    mv "$path" "$tree/usr/lib/sysimage/$name"
    ln -s "/usr/lib/sysimage/$name" "$path"
done

# The root is read-only: what people write outside of /etc lives in /var.
for name in home srv opt mnt; do
    mkdir -p "$tree/var/$name"
    rmdir "$tree/$name"
    ln -s "var/$name" "$tree/$name"
done
rm -rf "$tree/root"
mkdir -m 0700 "$tree/var/roothome"
ln -s var/roothome "$tree/root"

cp "$tree/boot/vmlinuz-$version" "$tree/usr/lib/modules/$version/vmlinuz"
find "$tree/boot" -mindepth 1 -delete

mount -t overlay overlay -o "lowerdir=$tree,upperdir=$layers/hostctl,workdir=$layers/work" "$layers/merged"
for directory in proc dev sys; do
    mount --bind "/$directory" "$layers/merged/$directory"
done
mount -t tmpfs tmpfs "$layers/merged/run"
mount -t tmpfs tmpfs "$layers/merged/tmp"
cp "$deb" "$layers/merged/tmp/hostctl.deb"
# The caller's folder for temporary files is not in the tree.
unset TMPDIR
chroot "$layers/merged" dpkg --install /tmp/hostctl.deb
if [ -n "$trust" ]; then
    mkdir -p "$layers/merged/etc/hostctl"
    cp -R "$trust/." "$layers/merged/etc/hostctl"
fi
chroot "$layers/merged" dracut --force --reproducible --no-hostonly --no-hostonly-cmdline --no-early-microcode \
    --no-compress --kver "$version" \
    --modules "base systemd systemd-initrd udev-rules rootfs-block fs-lib kernel-modules dracut-systemd shutdown hostctl" \
    --drivers "virtio_blk nvme erofs overlay loop" --filesystems "ext4 erofs overlay" /tmp/initramfs.img
chmod 0644 "$layers/merged/tmp/initramfs.img"
mv "$layers/merged/tmp/initramfs.img" "$layers/initramfs.img"
umount -R "$layers/merged"
rm -rf "$layers/hostctl"/var/log "$layers/hostctl"/var/cache

# A deletion would be an overlay whiteout, which is no file of a layer; installing one package makes none.
if [ -n "$(find "$layers/hostctl" -type c)" ]; then
    echo "The package installation deleted files" >&2
    exit 1
fi

mv "$tree/usr/lib/modules" "$layers/kernel/usr/lib/modules"
mkdir "$tree/usr/lib/modules"
mv "$layers/initramfs.img" "$layers/kernel/usr/lib/modules/$version/initramfs.img"
rmdir "$layers/merged"
rm -rf "$layers/work"
