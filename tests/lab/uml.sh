# Hosts in user-mode Linux: a kernel of their own, cgroup v2 with all controllers, one processor. Sourced by lab.sh.
# shellcheck shell=bash

kernel_of() { kept uml "user-mode-linux of trixie for $(uname -m)" tests/lab/packages.txt; }

make_kernel() { once "$(kernel_of)" fill_kernel; }

fill_kernel() { # NEW
  say "fetching user-mode Linux of Debian 13"
  debian trixie "$1" --variant=extract --include=user-mode-linux
}

disk_of() { # DIST
  kept "disk-$1" "$(basename "$(root_of "$1")") $(basename "$(venv_of "$1")") $(basename "$(kernel_of)")" tests/lab/disk.sh
}

# Whether a host in user-mode Linux can be booted without making anything.
has_disk() { [ -d "$(root_of "$1")" ] && [ -d "$(kernel_of)" ] && [ -d "$(disk_of "$1")" ]; } # DIST

# A file system image with root, environment and the kernel's modules; a booted host writes to a file beside it.
make_disk() { # DIST
  local root venv kernel
  root=$(make_root "$1")
  venv=$(make_venv "$1")
  kernel=$(make_kernel)
  once "$(disk_of "$1")" fill_disk "$root" "$venv" "$kernel"
}

fill_disk() { # NEW ROOT VENV KERNEL
  say "writing a disk"
  ssh-keygen -q -t ed25519 -N '' -C lab -f "$1/key" || return 1
  unshare --mount --propagation private "$here/disk.sh" "$@" >&2
}

netns() { echo "claw-lab-$1"; }

# A network namespace of this machine for the host's one cable.
make_network() { # NAME
  local space
  space=$(netns "$1")
  ip netns add "$space"
  ip -n "$space" link set lo up
  ip netns exec "$space" ip tuntap add tap0 mode tap
  ip -n "$space" addr add 10.99.0.1/24 dev tap0
  ip -n "$space" link set tap0 up
}

boot_uml() { # NAME DIST
  local name=$1 place=$state/$1 disk kernel below
  [ ! -e "$place" ] || die "a host $name is there already" "lab.sh down $name"
  disk=$(make_disk "$2")
  kernel=$(make_kernel)
  below=$(make_root trixie) # whose C library this kernel needs
  mkdir -p "$place"/{view,upper,work,share,tree}
  chmod 700 "$state"
  echo uml > "$place/kind"
  ln -s "$disk/key" "$place/key"
  printf '%s\n' "$kernel" "$below" "$disk" > "$place/parts"
  copy_tree "$place/tree" "$(stat -c %u:%g "$below/home/claw")"
  compile_tree "$place/tree" "$(make_root "$2")"
  make_network "$name"
  say "booting $name ($2) in user-mode Linux"
  start_uml "$name"
}

# Bytecode for the root's Python, since the host is slow at making it and keeps none.
compile_tree() { # TREE ROOT
  unshare --mount --propagation private sh -c \
    'mount --bind "$1" "$2/opt/claw/tree" && chroot "$2" python3 -m compileall -q /opt/claw/tree/entrypoint /opt/claw/tree/runtime' - "$@"
}

# Run the host's kernel on its disk, as it is, and wait until it is up.
start_uml() { # NAME
  local name=$1 start attempt
  start=$(date +%s%N)
  for attempt in 1 2 3; do
    start_kernel "$name"
    wait_until 600 is_decided "$name" || { tail -n 20 "$state/$name/console" >&2; die "$name did not boot within 600 s" "its console is above"; }
    has_frozen "$name" || { say "$name is up after $((($(date +%s%N) - start) / 1000000)) ms"; return; }
    # Beside much other load, systemd may wait in vain for its own children, and give up before it has started anything.
    say "systemd of $name gave up (attempt $attempt of 3)"
    cut_uml "$name"
  done
  die "$name did not boot" "this machine has too much other load"
}

is_decided() { has_frozen "$1" || uml_is_up "$1"; }

start_kernel() { # NAME
  local place=$state/$1 parts
  mapfile -t parts < "$place/parts"
  rm -rf "${place:?}/$1" # where a dead kernel had its control socket
  setsid nsenter "--net=/run/netns/$(netns "$1")" unshare --mount --propagation private \
    "$here/kernel.sh" "$1" "$place" "${parts[@]}" </dev/null >"$place/console" 2>&1 &
  echo $! > "$place/pid"
}

has_frozen() { grep -qs 'Freezing execution' "$state/$1/console"; }

# End the host as a power failure does: at once, with everything that it had in memory only.
cut_uml() { # NAME
  kill_all "$1"
  is_gone "$1" || die "$1 still runs" "see $(group_of "$1")"
}

again_uml() { # NAME
  is_gone "$1" || die "$1 runs" "lab.sh cut $1"
  say "booting $1 again"
  start_uml "$1"
}

uml_is_up() { # NAME
  is_alive "$(supervisor "$1")" || { tail -n 20 "$state/$1/console" >&2; die "$1 ended as it booted" "its console is above"; }
  by_ssh "$1" root 'systemctl is-active -q multi-user.target "user@$(id -u claw)" && [ -S "/run/user/$(id -u claw)/bus" ]' 2>/dev/null
}

# A command line on the host, over ssh; ended after `seconds`, since a dead host never answers.
by_ssh() { # NAME USER LINE
  timeout --kill-after=5 "${seconds:-20}" ip netns exec "$(netns "$1")" ssh -i "$state/$1/key" -o BatchMode=yes -o "ConnectTimeout=${connect:-5}" \
    -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "$2@10.99.0.2" "$3"
}

run_uml() { # NAME USER LIMIT WORD…
  local words=("${@:4}")
  connect=60 seconds=$(($3 + 90)) by_ssh "$1" "$2" "${words[*]@Q}"
}

down_uml() { # NAME
  local space
  space=$(netns "$1")
  if is_alive "$(supervisor "$1")"; then
    by_ssh "$1" root poweroff >/dev/null 2>&1 || true
    wait_until 60 is_gone "$1" || say "$1 did not stop within 60 s: killing it"
  fi
  kill_all "$1"
  [ ! -e "/run/netns/$space" ] || ip netns delete "$space"
}
