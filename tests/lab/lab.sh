#!/bin/bash
# A laboratory of ordinary hosts: Debian with systemd, user sessions and rootless Podman, booted here. `lab.sh help` says more.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/claw-tests/lab
state=${CLAW_LAB_STATE:-/var/tmp/claw-lab}
. "$top/host/lib.sh"
. "$here/roots.sh"
. "$here/hosts.sh"
. "$here/nspawn.sh"
. "$here/uml.sh"

usage() {
  cat <<HELP
usage: lab.sh root DIST                      make the root of a Debian release, unless it is cached; print its directory
       lab.sh venv DIST                      make claw's virtual environment for that root, likewise
       lab.sh boot nspawn NAME DIST          boot a host on a copy-on-write view of the root, with this tree's claw in it
       lab.sh boot uml NAME DIST             boot one with a kernel of its own, in user-mode Linux: slower, with all limits
       lab.sh run NAME USER SCRIPT [WORD…]   run a script of this machine on the host, in USER's own session
       lab.sh reboot NAME                    boot it again, as `systemctl reboot` does; in systemd-nspawn only
       lab.sh cut NAME                       end a host in user-mode Linux as a power failure does; its disk stays
       lab.sh again NAME                     boot it again, on that disk
       lab.sh down NAME                      end the host, remove what it wrote, fail if anything is left
       lab.sh sweep                          end hosts that interrupted tests left
       lab.sh tools                          make the environment that the tests run in; print its directory
       lab.sh measuring                      make the environment that figures are measured in, likewise
       lab.sh check [uml]                    say why this machine cannot run hosts, or those in user-mode Linux, if so
       lab.sh missing [uml]                  list the releases whose root, or disk for user-mode Linux, is not made yet
DIST is bookworm (Debian 12, Podman 4.3) or trixie (Debian 13, Podman 5.4). Run it as root.

On a host, /lab is a directory that the host and this machine share: $state/NAME/share.
claw's tree is in /opt/claw/tree; its environment, in /opt/claw/venv, is on the PATH of login shells.
Cached below $cache, by a digest of what goes in.
CLAW_LAB_STATE sets another directory for running hosts; CLAW_LAB_SECONDS, the limit of one \`run\` (default 300).
HELP
}

say() { printf 'lab: %s\n' "$*" >&2; }
die() { say "error: $1"; [ -z "${2:-}" ] || say "hint: $2"; exit 1; }

dists=(bookworm trixie)
know_dist() { case " ${dists[*]} " in *" $1 "*) ;; *) die "unknown release: $1" "use bookworm or trixie" ;; esac; }

know_name() { [[ $1 =~ ^[a-z][a-z0-9-]{0,30}$ ]] || die "not a host's name: $1" "use a-z, 0-9 and -, at most 31 characters"; }

# Why this machine cannot run hosts; nothing when it can.
obstacle() {
  [ "$(id -u)" = 0 ] || { echo "it needs root"; return; }
  local program
  for program in mmdebstrap systemd-nspawn nsenter rsync; do
    command -v "$program" >/dev/null || { echo "$program is not installed"; return; }
  done
  unshare --mount true 2>/dev/null || { echo "root may not make namespaces here"; return; }
  [ -c /dev/net/tun ] || { echo "/dev/net/tun does not exist"; return; }
  grep -qw overlay /proc/filesystems || modprobe --quiet overlay 2>/dev/null || { echo "this kernel has no overlay file system"; return; }
}

# What hosts in user-mode Linux need besides.
obstacle_of_uml() {
  local program
  for program in ip ssh ssh-keygen mke2fs; do
    command -v "$program" >/dev/null || { echo "$program is not installed"; return; }
  done
}

need_machine() { # MORE…
  local why
  why=$(obstacle)
  [ -n "$why" ] || [ $# = 0 ] || why=$("$@")
  [ -z "$why" ] || die "hosts cannot run here: $why" "docs/TESTING.md lists what the laboratory needs"
}

# What a host in systemd-nspawn has written is in this machine's memory, which outlives it.
need_power() { # NAME
  [ -e "$state/$1" ] || die "there is no host $1" "lab.sh boot uml $1 DIST"
  [ "$(cat "$state/$1/kind")" = uml ] || die "$1 has no power to cut" "use a host in user-mode Linux: lab.sh boot uml NAME DIST"
}

main() {
  case ${1:-}/$# in
    root/2) know_dist "$2"; need_machine; make_root "$2" ;;
    venv/2) know_dist "$2"; need_machine; make_venv "$2" ;;
    tools/1) make_tools ;;
    measuring/1) make_measuring ;;
    sweep/1) sweep ;;
    check/1) obstacle ;;
    check/2) [ "$2" = uml ] || die "unknown kind of host: $2" "use uml"; obstacle_of_uml ;;
    missing/1) missing_roots ;;
    missing/2) [ "$2" = uml ] || die "unknown kind of host: $2" "use uml"; has_disk trixie || echo trixie ;;
    boot/4) know_name "$3"; know_dist "$4"; need_machine
      case $2 in
        nspawn) boot_nspawn "$3" "$4" ;;
        uml) need_machine obstacle_of_uml; boot_uml "$3" "$4" ;;
        *) die "unknown kind of host: $2" "use nspawn or uml" ;;
      esac ;;
    run/[4-9] | run/[1-9][0-9]) know_name "$2"; shift; run_script "$@" ;;
    reboot/2) know_name "$2"; reboot_host "$2" ;;
    cut/2 | again/2) know_name "$2"; need_power "$2"; "$1_uml" "$2" ;;
    down/2) know_name "$2"; end_host "$2" ;;
    help/1 | --help/1 | -h/1) usage ;;
    *) usage >&2; exit 2 ;;
  esac
}

main "$@"; exit
