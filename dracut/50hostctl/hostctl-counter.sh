# shellcheck shell=sh
# What the boot loader says about this boot, for the scripts that source this: the root hook, the emergency hook and the
# generator. A counted boot may end in a reboot, since the next try or another entry follows; any other may not.
# shellcheck disable=SC2034 # for those who source this

efi_variables=/sys/firmware/efi/efivars
loader_vendor=4a67b082-0a4c-41cf-b6c7-440b29bb8c4f

# Sets counted to yes or no; where it is yes, left and tried to how many tries there are still, and were with this one.
read_boot_counter() {
    counted=no
    left=
    tried=
    # What our script for GRUB adds: tries left, of how many.
    # shellcheck disable=SC2013 # arguments are words
    for argument in $(cat /proc/cmdline); do
        case $argument in
        hostctl.counted=[0-9]/[0-9])
            left=${argument#*=}
            tried=$((${left#*/} - ${left%/*}))
            left=${left%/*}
            counted=yes
            ;;
        esac
    done
    # Set by systemd-boot, with the path of the entry under its new name, in UTF-16.
    if [ -r "$efi_variables/LoaderBootCountPath-$loader_vendor" ]; then
        counter=$(tr -d '\000' <"$efi_variables/LoaderBootCountPath-$loader_vendor") || return 0
        counter=${counter##*+}
        counter=${counter%.*}
        left=${counter%%-*}
        tried=${counter#*-}
        counted=yes
    fi
}
