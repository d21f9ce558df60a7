#!/bin/bash
# Puts the root hook, its unit, its tools and its drivers into the initramfs. Everything the hook calls is installed
# here; a test compares the two lists.

# shellcheck disable=SC2154 # moddir, initdir, dracutsysrootdir and systemdsystemunitdir are dracut's

keys=/etc/hostctl/keys.d

# Whether the image has keys of those who seal it: then its initramfs asks for seals.
has_keys() {
    [ -n "$(find "${dracutsysrootdir:-}$keys" -maxdepth 1 -name '*.pub' -print -quit 2>/dev/null)" ]
}

# called by dracut
check() {
    require_binaries fsverity losetup modprobe mount umount readlink stat sync || return 1
    # Keys that nothing checks would be worse than none: without the program the initramfs is not built.
    ! has_keys || require_binaries openssl || return 1
    return 0
}

# called by dracut
depends() {
    # dracut-systemd brings the emergency service that carries out rd.emergency=.
    echo base systemd-initrd dracut-systemd shutdown
}

# called by dracut
installkernel() {
    # The image's initramfs is not built on the host that boots it: what is loaded here and now says nothing.
    hostonly='' instmods erofs overlay loop efivarfs
}

# called by dracut
install() {
    inst_multiple sh cat fsverity grep ln losetup mkdir modprobe mount mv readlink reboot rm rmdir sleep stat sync systemctl tr umount
    if has_keys; then
        inst_multiple openssl
        local key
        for key in "${dracutsysrootdir:-}$keys"/*.pub; do
            inst_simple "${key#"${dracutsysrootdir:-}"}"
        done
        inst_multiple -o "${keys%/*}/revoked" "${keys%/*}/revoked.sig"
    fi
    inst_script "$moddir/hostctl-root.sh" /usr/lib/hostctl/hostctl-root
    inst_simple "$moddir/hostctl-counter.sh" /usr/lib/hostctl/boot-counter
    # Which of the two dracut calls differs with rd.shell= and with who gives up; the decision is the same.
    inst_hook emergency 99 "$moddir/hostctl-emergency.sh"
    inst_hook shutdown-emergency 99 "$moddir/hostctl-emergency.sh"
    # A boot that is counted and hangs in the initramfs has to end as well.
    inst_script "$systemdutildir/system-generators/hostctl-generator"
    inst_simple "$moddir/hostctl-root.service" "$systemdsystemunitdir/hostctl-root.service"
    inst_script "$moddir/hostctl-waiting.sh" /usr/lib/hostctl/hostctl-waiting
    inst_simple "$moddir/hostctl-waiting.service" "$systemdsystemunitdir/hostctl-waiting.service"
    $SYSTEMCTL -q --root "$initdir" add-wants initrd.target hostctl-waiting.service
    # Required, not wanted: where the hook fails, nothing after initrd-root-fs.target may start.
    $SYSTEMCTL -q --root "$initdir" add-requires initrd-root-fs.target hostctl-root.service
}
