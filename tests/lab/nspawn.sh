# Hosts in systemd-nspawn: systemd at native speed, without limits where this machine's cgroup2 tree has no controllers.
# Sourced by lab.sh.
# shellcheck shell=bash

boot_nspawn() { # NAME DIST
  local name=$1 place=$state/$1 root venv
  [ ! -e "$place" ] || die "a host $name is there already" "lab.sh down $name"
  root=$(make_root "$2")
  venv=$(make_venv "$2")
  mkdir -p "$place"/{upper,work,root,share,tree,containers}
  echo nspawn > "$place/kind"
  chmod 700 "$state"
  # A home and root's containers on an ordinary file system: Podman's overlay storage cannot lie on an overlay, and Debian 12
  # runs root's Podman at boot.
  cp -a "$root/home" "$place/home"
  copy_tree "$place/tree" "$(stat -c %u:%g "$root/home/claw")"
  printf '%s\n' "$root" "$venv" > "$place/below"
  say "booting $name ($2) in systemd-nspawn"
  start_nspawn "$name"
}

start_nspawn() { # NAME
  local name=$1 place=$state/$1 start below
  mapfile -t below < "$place/below"
  start=$(date +%s%N)
  setsid unshare --mount --propagation private "$here/machine.sh" "$name" "$place" "${below[@]}" </dev/null >>"$place/console" 2>&1 &
  echo $! > "$place/pid"
  wait_until 300 nspawn_is_up "$name" || { tail -n 20 "$place/console" >&2; die "$name did not boot within 300 s" "its console is above"; }
  allow_no_pids_limit "$name"
  say "$name is up after $((($(date +%s%N) - start) / 1000000)) ms"
}

# Without the controller, Podman's own default limit on processes would refuse every container.
allow_no_pids_limit() { # NAME
  if inside "$1" grep -qw pids /sys/fs/cgroup/cgroup.controllers; then return; fi
  printf '[containers]\npids_limit = 0\n' > "$state/$1/home/claw/.config/containers/containers.conf"
}

# The host's first process, as this machine counts.
leader() { pgrep -P "$(supervisor "$1")" -x systemd; }

# Whether systemd has started everything and claw's services can run.
nspawn_is_up() { # NAME
  is_alive "$(supervisor "$1")" || { tail -n 20 "$state/$1/console" >&2; die "$1 ended as it booted" "its console is above"; }
  leader "$1" >/dev/null || return 1
  inside "$1" sh -c 'systemctl is-active -q multi-user.target "user@$(id -u claw)" && [ -S "/run/user/$(id -u claw)/bus" ]' 2>/dev/null
}

# A command as the host's root, outside of any of its sessions; ended after `seconds`.
inside() { # NAME COMMAND…
  timeout --kill-after=5 "${seconds:-20}" nsenter --target "$(leader "$1")" --mount --pid --uts --ipc --net --cgroup --root --wd \
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "${@:2}"
}

run_nspawn() { # NAME USER LIMIT WORD…
  local name=$1 user=$2 id home as=()
  leader "$name" >/dev/null || die "$name does not run" "lab.sh down $name"
  if [ "$user" != root ]; then
    id=$(inside "$name" id -u "$user")
    home=$(inside "$name" getent passwd "$user" | cut -d: -f6)
    as=(runuser -u "$user" -- env "HOME=$home" "XDG_RUNTIME_DIR=/run/user/$id" "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/$id/bus")
  fi
  seconds=$(($3 + 10)) inside "$name" "${as[@]}" "${@:4}"
}

# As an ordinary host's `systemctl reboot`: everything ends, /run and the boot's id are new, the disk stays.
reboot_nspawn() { # NAME
  leader "$1" >/dev/null || die "$1 does not run" "lab.sh down $1"
  inside "$1" systemctl reboot || true # this process ends with the host
  wait_until 120 is_gone "$1" || die "$1 did not end within 120 s" "see $state/$1/console"
  find_leaks "$1"
  start_nspawn "$1"
}

down_nspawn() { # NAME
  if is_alive "$(supervisor "$1")"; then
    kill -TERM "$(supervisor "$1")" # nspawn asks systemd inside to stop everything
    wait_until 30 is_gone "$1" || say "$1 did not stop within 30 s: killing it"
  fi
  kill_all "$1"
}
