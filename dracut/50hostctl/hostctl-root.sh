#!/bin/sh
# Replaces the physical root mounted at /sysroot by the composefs image that the kernel command line names.
# Invariant: either every byte of the new root is checked by fs-verity against that digest, or the machine does not
# boot; no other image is ever tried. Arguments, layout and the failure record are described in docs/boot.md.

set -euf
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
# shellcheck source=dracut/50hostctl/hostctl-counter.sh
. /usr/lib/hostctl/boot-counter

work=/run/hostctl-root
lower=$work/lower
root=$work/root
volatile=$work/volatile

# Where the physical root is at this moment; it moves below the new root towards the end.
physical=/sysroot
candidates=
state=
digest=
finished=

# Keys of those who seal images. Where there are any, nothing boots without a seal by one of them.
keys=/etc/hostctl/keys.d
seal_required=no
[ ! -e "$keys" ] || seal_required=yes

# What the image's hostctl.conf may change, and whether the command line leaves /var to systemd.
etc_mode=persistent
root_mode=read-only
var_mode=shared
var_is_systemds=no

say() {
    printf 'hostctl: %s\n' "$*" >&2
}

# A directory itself, not a link to one.
is_directory() {
    [ -d "$1" ] && [ ! -L "$1" ]
}

# Looks up the mount at $1; sets mount_options and mount_source of the topmost one.
find_mount() {
    mount_options=
    mount_source=
    while read -r _ _ _ _ mount_point options rest; do
        [ "$mount_point" = "$1" ] || continue
        rest=${rest#*- }
        rest=${rest#* }
        mount_options=$options,${rest#* }
        mount_source=${rest%% *}
    done </proc/self/mountinfo
}

# Binds inherit a read-only flag and nothing later repairs /etc and /var, so this comes before any of them.
make_physical_writable() {
    find_mount "$physical"
    case ,$mount_options, in
    *,ro,*) mount -o remount,rw "$physical" ;;
    esac
}

# Leaves code $1 and message $2 for the next boot to read. Best effort: the machine does not boot either way.
record_failure() {
    directory=$physical/state/hostctl
    is_directory "$physical/state" || return 1
    make_physical_writable 2>/dev/null || return 1
    is_directory "$directory" || mkdir -m 0700 "$directory" || return 1
    read -r boot </proc/sys/kernel/random/boot_id || return 1
    read -r kernel </proc/sys/kernel/osrelease || return 1
    set -- "$1" "$2" "$directory/boot-failure-${digest:-unknown}"
    rm -f "$3.tmp" || return 1
    printf 'version=1\nreason=%s\nmessage=%s\ndigest=%s\nstate=%s\nkernel=%s\nboot=%s\n' \
        "$1" "$2" "$digest" "$state" "$kernel" "$boot" >"$3.tmp" || return 1
    sync "$3.tmp" && mv -f "$3.tmp" "$3" && sync "$directory"
}

# Has the boot loader start entry $1 at the next boot, and not again.
boot_once() {
    case $1 in
    *[!A-Za-z0-9._+-]*) return 1 ;;
    esac
    # Set by a loader that looks at the other one.
    [ -e "$efi_variables/LoaderFeatures-$loader_vendor" ] || return 1
    rest=$1
    wide=
    while [ -n "$rest" ]; do
        tail=${rest#?}
        wide=$wide${rest%"$tail"}'\000'
        rest=$tail
    done
    # The attributes, and the name with its end in UTF-16; a variable is written in one piece.
    # shellcheck disable=SC2059 # the name is made of letters, digits and four signs
    printf "\\007\\000\\000\\000$wide\\000\\000" 2>/dev/null >"$efi_variables/LoaderEntryOneShot-$loader_vendor"
}

# Sets fallback to the newest good entry of another image that is there, as the last good boot left the list.
find_fallback() {
    fallback=
    while read -r entry name; do
        hex=${name%%.*}
        if [ "$hex" = "$digest" ] || [ ! -e "$physical/composefs/images/$hex" ]; then
            continue
        fi
        if is_directory "$physical/state/deploy/$name"; then
            fallback=$entry
            return 0
        fi
    done <"$1"
    return 1
}

# Where the loader would only start the same again, another deployment may run instead, once: until one comes up there is
# no second time, so that two that fail do not take turns.
offer_fallback() {
    directory=$physical/state/hostctl
    read_boot_counter
    if [ "$counted" = yes ] && [ "$left" != 0 ]; then
        return 0
    fi
    if [ ! -f "$directory/fallback" ] || [ -e "$directory/fallback-tried" ]; then
        return 0
    fi
    find_fallback "$directory/fallback" || return 0
    : >"$directory/fallback-tried" || return 0
    sync "$directory/fallback-tried" "$directory" || return 0
    if boot_once "$fallback"; then
        say "Booting \"$fallback\" once instead"
        : >/run/hostctl-fallback
    else
        say "Cannot have the boot loader start \"$fallback\" instead"
    fi
}

# Ends without a root: code $1, message $2. The unit's OnFailure= leads to hostctl-emergency.sh.
refuse() {
    finished=yes
    message=
    # One line, whatever a tool printed.
    while read -r line || [ -n "$line" ]; do
        message=${message:+$message; }$line
    done <<MESSAGE
$2
MESSAGE
    say "Refusing to boot: $message ($1)"
    record_failure "$1" "$message" || say "The reason could not be recorded on the root file system"
    offer_fallback
    # Nothing of a refused image stays mounted, unless the physical root has moved below it.
    [ "$physical" != /sysroot ] || umount -l "$work" 2>/dev/null || true
    exit 1
}

# Reached on every exit; one that neither succeeded nor gave a reason is a failure of this script.
at_exit() {
    [ -n "$finished" ] || refuse internal "The root hook ended before it was done"
}
trap at_exit EXIT

is_hex() {
    case $1 in
    '' | *[!0-9a-f]*) return 1 ;;
    esac
}

# Checks the hash name $4 and hex digits $5 of argument $1 and adds them to the candidates, as
# "optional:version:algorithm:hex".
add_candidate() {
    case $4:${#5} in
    sha256:64 | sha512:128) ;;
    *) refuse cmdline-invalid "The digest in \"$1\" has the wrong form" ;;
    esac
    is_hex "$5" || refuse cmdline-invalid "The digest in \"$1\" is not lower-case hexadecimal"
    candidates="$candidates $2:$3:$4:$5"
    digest=${digest:-$5}
}

take_argument() {
    value=${1#*=}
    optional=no
    case $1 in
    composefs.digest=* | composefs=*)
        case $value in
        \?*)
            optional=yes
            value=${value#\?}
            ;;
        esac
        ;;
    esac
    case $1 in
    composefs.digest=*)
        case $value in
        v[0-9]-sha256-12:* | v[0-9]-sha512-12:*)
            algorithm=${value#v[0-9]-}
            add_candidate "$1" "$optional" "${value%%-*}" "${algorithm%%-*}" "${value#*:}"
            ;;
        *) refuse cmdline-invalid "Cannot understand the argument \"$1\"" ;;
        esac
        ;;
    composefs=*)
        case ${#value} in
        64) add_candidate "$1" "$optional" v2 sha256 "$value" ;;
        *) add_candidate "$1" "$optional" v2 sha512 "$value" ;;
        esac
        ;;
    composefs | composefs.digest) refuse cmdline-invalid "The argument \"$1\" has no digest" ;;
    systemd.volatile | systemd.volatile=*)
        # systemd makes such a /var by itself, or hides it with the whole root, but only where nothing is mounted yet.
        [ "$1" != systemd.volatile ] || value=yes
        case $value in
        1 | y | yes | t | true | on | state | overlay) var_is_systemds=yes ;;
        *) var_is_systemds=no ;;
        esac
        ;;
    # The kernel takes both spellings for one.
    hostctl.require-seal | hostctl.require-seal=* | hostctl.require_seal | hostctl.require_seal=*)
        seal_required=yes
        ;;
    hostctl.state=*)
        [ -z "$state" ] || refuse cmdline-invalid "The argument hostctl.state= is given twice"
        case $value in
        '' | *[!0-9a-f.]*) refuse cmdline-invalid "The name in \"$1\" is not a deployment's" ;;
        esac
        state=$value
        ;;
    esac
}

# Splits $1 as the kernel does: blanks separate, double quotes group, nothing escapes.
take_command_line() {
    rest=$1
    word=
    quoted=no
    while :; do
        case $rest in
        *\"*)
            part=${rest%%\"*}
            rest=${rest#*\"}
            last=no
            ;;
        *)
            part=$rest
            last=yes
            ;;
        esac
        while [ "$quoted" = no ]; do
            case $part in
            *[[:space:]]*)
                take_argument "$word${part%%[[:space:]]*}"
                word=
                part=${part#*[[:space:]]}
                ;;
            *) break ;;
            esac
        done
        word=$word$part
        if [ "$last" = yes ]; then
            break
        fi
        if [ "$quoted" = yes ]; then quoted=no; else quoted=yes; fi
    done
    take_argument "$word"
}

# The state directory belongs to the digest: `<digest>`, or `<digest>.<number>` for a later deployment of it.
check_state_name() {
    for candidate in $candidates; do
        hex=${candidate##*:}
        case $state in
        "$hex") return 0 ;;
        "$hex".*)
            case ${state#"$hex".} in
            '' | *[!0-9]*) ;;
            *) return 0 ;;
            esac
            ;;
        esac
    done
    refuse cmdline-invalid "The state directory \"$state\" does not belong to a digest on the command line"
}

# Only an image listed in images/ is ever mounted, and each must be a link to the object of its own name.
choose_image() {
    for candidate in $candidates; do
        hex=${candidate##*:}
        [ -e "$physical/composefs/images/$hex" ] || [ -L "$physical/composefs/images/$hex" ] || continue
        optional=${candidate%%:*}
        version=${candidate#*:}
        algorithm=${version#*:}
        version=${version%%:*}
        algorithm=${algorithm%%:*}
        digest=$hex
        rest=${hex#??}
        object=objects/${hex%"$rest"}/$rest
        link=$(readlink "$physical/composefs/images/$hex") ||
            refuse image-invalid "The image $hex is not a link to an object"
        [ "$link" = "../$object" ] || refuse image-invalid "The image $hex links to \"$link\", not to its own object"
        object=$physical/composefs/$object
        if [ ! -f "$object" ] || [ -L "$object" ]; then
            refuse image-missing "The object of image $hex does not exist"
        fi
        return 0
    done
    refuse image-missing "The image ${candidates##*:} does not exist in the repository"
}

# Compares the digest of descriptor 3 with the command line; sets verity, the overlay's option.
check_image() {
    if measured=$(fsverity measure /proc/self/fd/3 2>&1); then
        measured=${measured%% *}
        verity=require
    elif [ "$optional" = yes ]; then
        # Without fs-verity the content can still be compared once, though nothing guards it afterwards.
        measured=$(fsverity digest --hash-alg="$algorithm" --compact /proc/self/fd/3 2>&1) ||
            refuse image-unreadable "Cannot read the image: $measured"
        measured=$algorithm:$measured
        verity=off
    else
        refuse image-unverified "The image $digest has no usable fs-verity: $measured"
    fi
    [ "$measured" = "$algorithm:$digest" ] ||
        refuse image-mismatch "The image $digest has the digest $measured instead"
    [ "$verity" = require ] ||
        say "WARNING: fs-verity is missing and optional by the command line: THE ROOT FILE SYSTEM IS NOT VERIFIED"
}

# Whether one of the keys signed file $1; $2 has lines of "key-id base64". The id only saves userspace some work: here
# each key is tried.
is_signed() {
    count=0
    while read -r _ signature && [ "$count" -lt 16 ]; do
        count=$((count + 1))
        printf '%s\n' "$signature" | openssl base64 -d -A >"$work/signature" 2>/dev/null || continue
        set +f
        for key in "$keys"/*.pub; do
            openssl pkeyutl -verify -pubin -inkey "$key" -rawin -in "$1" -sigfile "$work/signature" \
                >/dev/null 2>&1 || continue
            set -f
            return 0
        done
        set -f
    done <"$2"
    return 1
}

# Copies a seal or list $1 and its signatures to $2: what is verified is then what is read. The memory there is bounded.
take_signed() {
    for file in "$1" "$1.sig"; do
        [ -f "$file" ] && [ ! -L "$file" ] || return 1
    done
    cat "$1" >"$2" 2>/dev/null && cat "$1.sig" >"$2.sig" 2>/dev/null
}

# Whether a line of file $1, whose first one is $2, is "digest $3".
states_digest() {
    read -r line <"$1" && [ "$line" = "$2" ] || return 1
    while read -r line; do
        [ "$line" != "digest $3" ] || return 0
    done <"$1"
    return 1
}

# The image must have a seal by one of the keys, for this digest by these parameters, and be in no list of revoked ones.
check_seal() {
    [ "$seal_required" = yes ] || return 0
    sealed=$version-$algorithm-12:$digest
    for list in "$physical/composefs/seals/revoked" "${keys%/*}/revoked"; do
        [ -e "$list" ] || continue
        if take_signed "$list" "$work/revoked" && is_signed "$work/revoked" "$work/revoked.sig"; then
            ! states_digest "$work/revoked" 'hostctl-revoked 1' "$sealed" ||
                refuse image-revoked "The image $digest is revoked"
        else
            say "The list of revoked images ${list#"$physical"/} is not signed by a known key and not used"
        fi
    done
    take_signed "$physical/composefs/seals/$digest" "$work/seal" ||
        refuse seal-missing "The image $digest has no seal in the repository"
    is_signed "$work/seal" "$work/seal.sig" ||
        refuse seal-invalid "The seal of image $digest is not signed by a known key"
    states_digest "$work/seal" 'hostctl-seal 1' "$sealed" ||
        refuse seal-invalid "The seal of image $digest is not for $sealed"
}

mount_image() {
    if ! error=$(mount -c -t erofs -o ro /proc/self/fd/3 "$lower" 2>&1); then
        # Kernels before 6.12 need a loop device; it goes away by itself with its mount.
        if ! loop=$(losetup -f --show -r /proc/self/fd/3 2>&1); then
            refuse mount-failed "Cannot mount the image: $error; nor by a loop device: $loop"
        fi
        mounted=yes
        error=$(mount -t erofs -o ro "$loop" "$lower" 2>&1) || mounted=
        losetup -d "$loop"
        [ -n "$mounted" ] || refuse mount-failed "Cannot mount the image from a loop device: $error"
    fi
    find_mount "$lower"
    case $mount_source in
    /dev/loop*)
        # A loop device was given a path, not our descriptor: it must be the file that was measured.
        set -- "$(losetup -n -O BACK-INO "$mount_source")" "$(stat -L -c %i /proc/self/fd/3)"
        [ "${1##* }" = "$2" ] || refuse image-mismatch "The loop device holds another file than the one measured"
        ;;
    esac
}

# Checks the deployment's own directory and its /etc; sets etc.
check_state() {
    state=${state:-$digest}
    deployment=$physical/state/deploy/$state
    is_directory "$deployment" || refuse state-missing "The state directory state/deploy/$state does not exist"
    etc=$deployment/etc
    is_directory "$etc" || refuse state-missing "The directory state/deploy/$state/etc does not exist"
}

# Finds the /var that deployments share; sets var.
find_var() {
    var=$deployment/var
    if [ -L "$var" ]; then
        # Followed by hand: a link out of the physical root would end in the initramfs.
        link=$(readlink "$var")
        stateroot=${link#../../os/}
        stateroot=${stateroot%/var}
        case $stateroot in
        '' | . | .. | */*) refuse state-invalid "The link state/deploy/$state/var leads to \"$link\"" ;;
        esac
        [ "$link" = "../../os/$stateroot/var" ] ||
            refuse state-invalid "The link state/deploy/$state/var leads to \"$link\""
        var=$physical/state/os/$stateroot/var
    fi
    is_directory "$var" || refuse state-missing "The directory for /var does not exist"
}

# Sets trimmed to $1 without white space around it.
trim() {
    trimmed=${1#"${1%%[![:space:]]*}"}
    trimmed=${trimmed%"${trimmed##*[![:space:]]}"}
}

# Reads the keys of one configuration file that concern the mounts; the others are not for the initramfs. An unknown
# value asks for something that this hook does not know: the machine must not run as if it had not been asked.
read_settings() {
    if [ -L "$1" ] || [ ! -f "$1" ]; then
        refuse config-invalid "\"${1#"$root"}\" is not a regular file"
    fi
    text=$(cat "$1" 2>&1) || refuse config-invalid "Cannot read \"${1#"$root"}\": $text"
    section=
    while read -r line || [ -n "$line" ]; do
        trim "$line"
        line=$trimmed
        case $line in
        '' | '#'* | ';'*) continue ;;
        '['*']')
            section=${line#?}
            section=${section%?}
            continue
            ;;
        *=*) ;;
        *) refuse config-invalid "Cannot understand \"$line\" in \"${1#"$root"}\"" ;;
        esac
        trim "${line%%=*}"
        setting=$section.$trimmed
        trim "${line#*=}"
        case "$setting=$trimmed" in
        etc.mode=persistent | etc.mode=transient) etc_mode=$trimmed ;;
        root.mode=read-only | root.mode=transient) root_mode=$trimmed ;;
        var.mode=shared | var.mode=mount) var_mode=$trimmed ;;
        etc.mode=* | root.mode=* | var.mode=*)
            refuse config-invalid "\"${1#"$root"}\" sets \"$setting\" to the unknown value \"$trimmed\""
            ;;
        esac
    done <<SETTINGS
$text
SETTINGS
}

# Only the image is asked, through the verified mount: the writable side of the machine has no say in this.
read_config() {
    directory=$root
    for name in usr lib hostctl; do
        directory=$directory/$name
        # A link could lead out of the image.
        [ ! -L "$directory" ] || refuse config-invalid "\"${directory#"$root"}\" is a link"
    done
    if [ -e "$directory/hostctl.conf" ] || [ -L "$directory/hostctl.conf" ]; then
        read_settings "$directory/hostctl.conf"
    fi
    directory=$directory/hostctl.conf.d
    [ ! -L "$directory" ] || refuse config-invalid "\"${directory#"$root"}\" is a link"
    set +f
    for file in "$directory"/*.conf; do
        [ -e "$file" ] || [ -L "$file" ] || continue
        read_settings "$file"
    done
    set -f
}

# Where systemd cannot be read, process 1 would stand still for ever in its place; here the boot ends, with a reason.
check_init() {
    init=$root/usr/lib/systemd/systemd
    [ -e "$init" ] || return 0
    error=$({ cat "$init" >/dev/null; } 2>&1) ||
        refuse image-unreadable "Cannot read ${init#"$root"} of the image: $error"
}

# Mounts the verified image at $1 with the further overlay options $2.
mount_root() {
    must_mount -t overlay -o \
        "$2,lowerdir=$lower::$physical/composefs/objects,metacopy=on,redirect_dir=on,verity=$verity" \
        "composefs:$digest" "$1"
}

# The same image once more with a writable layer in memory; sets transient to where it is.
mount_transient() {
    mkdir "$volatile"
    must_mount -t tmpfs -o mode=0700 hostctl-volatile "$volatile"
    mkdir -m "$(stat -c %a "$root")" "$volatile/upper"
    mkdir "$volatile/work" "$volatile/root"
    transient=$volatile/root
    mount_root "$transient" "rw,upperdir=$volatile/upper,workdir=$volatile/work"
}

# Generators of the real root find the disk by this link; without it the boot partition stays unmounted and the boot
# is never counted as good. mountinfo's own numbers are anonymous on btrfs, so they come from the device node.
link_volatile_root() {
    find_mount "$physical"
    case $mount_source in
    /dev/*) ;;
    *) return 0 ;;
    esac
    if [ -L /run/systemd/volatile-root ]; then
        return 0
    fi
    set -- "$(stat -L -c %t "$mount_source")" "$(stat -L -c %T "$mount_source")"
    mkdir -p /run/systemd
    ln -s "/dev/block/$((0x$1)):$((0x$2))" /run/systemd/volatile-root
}

# Runs a command of mount(8) that has to succeed.
must_mount() {
    error=$(mount "$@" 2>&1) || refuse mount-failed "Cannot mount: mount $*: $error"
}

command_line=
while read -r line || [ -n "$line" ]; do
    command_line="$command_line $line"
done </proc/cmdline
take_command_line "$command_line"
[ -n "$candidates" ] || refuse cmdline-invalid "The kernel command line names no composefs digest"
if [ "$seal_required" = yes ]; then
    case $candidates in
    *yes:*) refuse cmdline-invalid "fs-verity cannot be optional where images must have a seal" ;;
    esac
fi
[ -z "$state" ] || check_state_name

# Drivers may be built in; a missing one shows itself when its file system is mounted.
modprobe -q -a erofs overlay loop || true

choose_image
command exec 3<"$object" || refuse image-unreadable "Cannot open the object of image $digest"
check_image
error=$(make_physical_writable 2>&1) || refuse root-read-only "Cannot make the root file system writable: $error"
check_state

# Mounts cannot be moved away from a shared parent.
must_mount --make-private /
must_mount --make-private "$physical"
mkdir -p "$work"
must_mount -t tmpfs -o mode=0700,size=512k hostctl-root "$work"
must_mount --make-private "$work"
mkdir "$lower" "$root"

check_seal
mount_image
mount_root "$root" ro
for directory in etc var sysroot; do
    is_directory "$root/$directory" || refuse image-unsuitable "The image has no directory /$directory"
done
check_init
read_config
case $root_mode:$etc_mode in
transient:*)
    mount_transient
    umount "$root"
    must_mount --move "$transient" "$root"
    ;;
*:transient)
    mount_transient
    must_mount --bind "$transient/etc" "$root/etc"
    ;;
esac
# The overlays hold image and memory by themselves; the names of those mounts are not needed again.
umount -l "$lower"
if [ "$etc_mode" = persistent ]; then
    must_mount --bind "$etc" "$root/etc"
fi
if [ "$var_mode:$var_is_systemds" = shared:no ]; then
    find_var
    must_mount --bind "$var" "$root/var"
fi
link_volatile_root
must_mount --move "$physical" "$root/sysroot"
physical=$root/sysroot
must_mount --move "$root" /sysroot
physical=/sysroot/sysroot
must_mount -o remount,bind,ro "$physical"
if [ -d "$volatile" ]; then
    umount -l "$volatile"
fi
umount "$work"
rmdir "$work"

finished=yes
# To the journal only: the console is for what went wrong.
printf 'Mounted composefs:%s with verity=%s, state %s; root %s, etc %s, var %s\n' \
    "$digest" "$verity" "$state" "$root_mode" "$etc_mode" "$var_mode"
