# What hosts of both kinds have: a directory below `state`, a process that holds them, a cgroup. Sourced by lab.sh.
# shellcheck shell=bash

# This tree as the host's user gets it; what belongs to this machine alone stays here.
copy_tree() { # TARGET OWNER
  rsync -a --delete --exclude=/.git --exclude=/.venv --exclude=/evidence --exclude='.*_cache' --exclude=__pycache__ \
    --exclude='*.egg-info' "--chown=$2" "$top/" "$1/"
}

wait_until() { # SECONDS COMMAND…
  local end=$((SECONDS + $1))
  until "${@:2}"; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.1
  done
}

supervisor() { cat "$state/$1/pid" 2>/dev/null || echo 0; }

is_alive() { [ -d "/proc/$1" ] && [ "$(cut -d' ' -f3 "/proc/$1/stat" 2>/dev/null)" != Z ]; }

# A script of this machine as a service of the user's own systemd, as after a login, but without a terminal.
run_script() { # NAME USER SCRIPT WORD…
  local name=$1 user=$2 limit=${CLAW_LAB_SECONDS:-300} own status=0 service
  [ -e "$state/$name" ] || die "there is no host $name" "lab.sh boot KIND $name DIST"
  own=$(mktemp "$state/$name/share/script-XXXXXX")
  cat -- "$3" > "$own"
  chmod 755 "$own"
  service=(systemd-run --quiet --pipe --wait --collect --service-type=exec --property="RuntimeMaxSec=$limit")
  [ "$user" = root ] || service+=(--user)
  "run_$(cat "$state/$name/kind")" "$name" "$user" "$limit" "${service[@]}" bash -l "/lab/$(basename "$own")" "${@:4}" || status=$?
  rm -f "$own"
  return "$status"
}

reboot_host() { # NAME
  [ -e "$state/$1" ] || die "there is no host $1" "lab.sh boot nspawn $1 DIST"
  [ "$(cat "$state/$1/kind")" = nspawn ] || die "a host in user-mode Linux cannot be rebooted" "use one in systemd-nspawn"
  reboot_nspawn "$1"
}

end_host() { # NAME
  [ -e "$state/$1" ] || { say "there is no host $1"; return 0; }
  "down_$(cat "$state/$1/kind")" "$1"
  find_leaks "$1"
  rm -rf --one-file-system "${state:?}/$1"
}

# End hosts that tests booted, such as n123-trixie, if the process 123 that did it ended without ending them.
sweep() {
  local place name owner
  for place in "$state"/[nu][0-9]*-*; do
    [ -e "$place/kind" ] || continue
    name=$(basename "$place")
    owner=${name#?}
    if [ ! -d "/proc/${owner%%-*}" ]; then
      say "ending $name, which an interrupted test left"
      end_host "$name"
    fi
  done
}

group_of() { echo "$(cgroup2_root)/claw-lab-$1"; }

is_gone() { ! grep -qs 'populated 1' "$(group_of "$1")/cgroup.events"; }

kill_all() { # NAME
  [ -d "$(group_of "$1")" ] || return 0
  echo 1 > "$(group_of "$1")/cgroup.kill"
  wait_until 10 is_gone "$1" || true
}

# Fails if a process, a cgroup or a mount of the host is left.
find_leaks() { # NAME
  local group holders
  group=$(group_of "$1")
  is_gone "$1" || die "processes of $1 are left: $(find "$group" -name cgroup.procs -exec cat {} + | tr '\n' ' ')" "see $group"
  [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} +
  holders=$(grep -ls " $state/$1/" /proc/[0-9]*/mountinfo || true)
  [ -z "$holders" ] || die "mounts of $1 are left: $holders" "end these processes"
}
