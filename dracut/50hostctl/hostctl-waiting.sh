#!/bin/sh
# Says on the console, once, what a boot waits for that does not get through its initramfs: systemd waits for the root
# device without limit, and where the console is quiet nothing of that is seen. It ends nothing: a disk or a passphrase
# may still come.

set -euf

sleep 120
jobs=$(systemctl list-jobs --no-legend --no-pager)
waits=
while read -r _ unit _ state; do
    case $state in
    running) waits="$waits $unit" ;;
    esac
done <<END
$jobs
END
[ -n "$waits" ] || exit 0
echo "hostctl: The boot still waits, and goes on when this is there or done:$waits"
echo 'hostctl: For another deployment, choose its entry in the menu of the boot loader.'
