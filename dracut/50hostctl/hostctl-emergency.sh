# shellcheck shell=sh
# Sourced by dracut where a boot ends in the initramfs, before it does what rd.shell= and rd.emergency= say. Those stay
# in an entry that has been good, so what differs is decided here: a counted boot ends in a reboot, any other one stops.

# shellcheck source=dracut/50hostctl/hostctl-counter.sh
. /usr/lib/hostctl/boot-counter

hostctl_end_boot() {
    # The same hooks are called at shutdown, by process 1.
    [ "$$" -ne 1 ] || return 0
    case " $(cat /proc/cmdline)" in
    *' composefs='* | *' composefs.digest='*) ;;
    *) return 0 ;;
    esac
    read_boot_counter
    if [ -e /run/hostctl-fallback ]; then
        reboot -f
    # With more tries than any entry gets, its loader does not give it up.
    elif [ "$counted" = yes ] && [ "${#tried}" -lt 2 ]; then
        return 0
    # Somebody may have a look.
    elif getargbool 1 rd.shell; then
        return 0
    else
        {
            echo 'hostctl: The boot stops here, for the reason above: another one would end in the same way.'
            echo 'hostctl: Choose another entry in the menu of the boot loader, or add "rd.shell=1" to this one.'
        } >/dev/console
    fi
    while :; do sleep 3600; done
}

hostctl_end_boot
