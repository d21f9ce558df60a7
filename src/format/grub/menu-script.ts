/**
 * What GRUB runs to choose a deployment: a script that is installed once and finds everything else by name, so that an
 * upgrade writes nothing that exists. It counts the tries of a new deployment in the environment block, which is all
 * that GRUB can write. GRUB's script has no arithmetic, and its wildcards promise no order.
 */

/** Key of the argument that a try has on its command line: `<tries left>/<tries in all>`. */
export const COUNTED_KARG = 'hostctl.counted';

/** Largest number of tries that the script can count. */
export const MAX_GRUB_TRIES = 9;

const COUNT_DOWN = Array.from({ length: MAX_GRUB_TRIES }, (_, at) => {
  const left = MAX_GRUB_TRIES - at;
  return `  ${at === 0 ? 'if' : 'elif'} [ "$hostctl_left" = ${left} ]; then set hostctl_less=${left - 1}`;
}).join('\n');

export const MENU_SCRIPT =
  String.raw`# Chooses the deployment to boot; made by "hostctl install" and not changed by upgrades.
#
# Read as the first thing that makes menu entries: what is chosen becomes entry 0, what is booted where that cannot be
# loaded entry 1. Each boot entry loader/entries/hostctl-NUMBER[+COUNTER].conf has a menu entry of GRUB beside it,
# hostctl-NUMBER.cfg. Which of them boots is said by variables in grub/grubenv, each a number or empty:
#   hostctl_try    tried as long as hostctl_left is not 0, which is counted down before each try
#   hostctl_good   booted otherwise; where there is no such entry, the newest one
#   hostctl_check  1 once GRUB has written this file: without it nothing is tried

set hostctl_check=
set hostctl_try=
set hostctl_left=
set hostctl_good=
set hostctl_counted=
set hostctl_tried=
set hostctl_known=
set hostctl_newest=

regexp --set=1:hostctl_boot --set=2:root '^(\(([^)]*)\).*)/[^/]*$' "$prefix"
set hostctl_environment="$hostctl_boot/grub/grubenv"

if load_env -f "$hostctl_environment" hostctl_check hostctl_try hostctl_left hostctl_good; then
  if [ "$hostctl_check" != 1 ]; then
    # Whether this can be counted is known from the next boot on.
    set hostctl_check=1
    save_env -f "$hostctl_environment" hostctl_check
    set hostctl_check=0
  fi
fi

for hostctl_file in "$hostctl_boot"/loader/entries/hostctl-*.conf; do
  if regexp --set=1:hostctl_id --set=2:hostctl_number '/(hostctl-0*([1-9][0-9]*))(\+[0-9]+(-[0-9]+)?)?\.conf$' "$hostctl_file"; then
    if [ -f "$hostctl_boot/loader/entries/$hostctl_id.cfg" ]; then
      if [ "$hostctl_number" = "$hostctl_try" ]; then set hostctl_tried="$hostctl_id"; fi
      if [ "$hostctl_number" = "$hostctl_good" ]; then set hostctl_known="$hostctl_id"; fi
      # All numbers have the same width.
      if [ "$hostctl_number" != "$hostctl_try" -a "$hostctl_id" \> "$hostctl_newest" ]; then
        set hostctl_newest="$hostctl_id"
      fi
    fi
  fi
done

if [ -z "$hostctl_known" ]; then set hostctl_known="$hostctl_newest"; fi
if [ -z "$hostctl_known" ]; then set hostctl_known="$hostctl_tried"; fi
set hostctl_first="$hostctl_known"
set hostctl_second="$hostctl_newest"

if [ -n "$hostctl_tried" -a "$hostctl_check" = 1 ]; then
  set hostctl_less=
COUNT_DOWN
  fi
  if [ -n "$hostctl_less" ]; then
    set hostctl_left="$hostctl_less"
    if save_env -f "$hostctl_environment" hostctl_left; then
      set hostctl_first="$hostctl_tried"
      set hostctl_second="$hostctl_known"
      set hostctl_counted="$hostctl_tried"
    fi
  fi
fi

if [ -n "$hostctl_first" ]; then source "$hostctl_boot/loader/entries/$hostctl_first.cfg"; fi
if [ -n "$hostctl_second" -a "$hostctl_second" != "$hostctl_first" ]; then
  source "$hostctl_boot/loader/entries/$hostctl_second.cfg"
fi
for hostctl_file in "$hostctl_boot"/loader/entries/hostctl-*.conf; do
  if regexp --set=1:hostctl_id '/(hostctl-[0-9]+)[^/]*$' "$hostctl_file"; then
    if [ "$hostctl_id" != "$hostctl_first" -a "$hostctl_id" != "$hostctl_second" ]; then
      if [ -f "$hostctl_boot/loader/entries/$hostctl_id.cfg" ]; then
        source "$hostctl_boot/loader/entries/$hostctl_id.cfg"
      fi
    fi
  fi
done
set default=0
set fallback=1
`.replace('COUNT_DOWN', COUNT_DOWN);
