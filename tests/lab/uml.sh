# Hosts in user-mode Linux: a kernel of their own, cgroup v2 with all controllers, one processor. Sourced by lab.sh.
# shellcheck shell=bash

kernel_of() { kept uml "user-mode-linux of trixie for $(uname -m)" tests/lab/packages.txt; }

make_kernel() { once "$(kernel_of)" fill_kernel; }

fill_kernel() { # NEW
  say "fetching user-mode Linux of Debian 13"
  debian trixie "$1" --variant=extract --include=user-mode-linux
}

# A file system image with root, environment and the kernel's modules; a booted host writes to a file beside it.
make_disk() { # DIST
  local root venv kernel
  root=$(make_root "$1")
  venv=$(make_venv "$1")
  kernel=$(make_kernel)
  once "$(kept "disk-$1" "$(basename "$root") $(basename "$venv") $(basename "$kernel")" tests/lab/disk.sh)" \
    fill_disk "$root" "$venv" "$kernel"
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
  local name=$1 place=$state/$1 disk kernel below start
  [ ! -e "$place" ] || die "a host $name is there already" "lab.sh down $name"
  disk=$(make_disk "$2")
  kernel=$(make_kernel)
  below=$(make_root trixie) # whose C library this kernel needs
  start=$(date +%s%N)
  mkdir -p "$place"/{view,upper,work,share,tree}
  chmod 700 "$state"
  echo uml > "$place/kind"
  ln -s "$disk/key" "$place/key"
  copy_tree "$place/tree" "$(stat -c %u:%g "$below/home/claw")"
  make_network "$name"
  say "booting $name ($2) in user-mode Linux"
  setsid nsenter "--net=/run/netns/$(netns "$name")" unshare --mount --propagation private \
    "$here/kernel.sh" "$name" "$place" "$kernel" "$below" "$disk" </dev/null >"$place/console" 2>&1 &
  echo $! > "$place/pid"
  wait_until 300 uml_is_up "$name" || { tail -n 20 "$place/console" >&2; die "$name did not boot within 300 s" "its console is above"; }
  say "$name is up after $((($(date +%s%N) - start) / 1000000)) ms"
}

uml_is_up() { # NAME
  is_alive "$(supervisor "$1")" || { tail -n 20 "$state/$1/console" >&2; die "$1 ended as it booted" "its console is above"; }
  by_ssh "$1" root 'systemctl is-active -q multi-user.target "user@$(id -u claw)" && [ -S "/run/user/$(id -u claw)/bus" ]' 2>/dev/null
}

# A command line on the host, over ssh; ended after `seconds`, since a dead host never answers.
by_ssh() { # NAME USER LINE
  timeout --kill-after=5 "${seconds:-20}" ip netns exec "$(netns "$1")" ssh -i "$state/$1/key" -o BatchMode=yes -o ConnectTimeout=5 \
    -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "$2@10.99.0.2" "$3"
}

run_uml() { # NAME USER LIMIT WORD…
  local words=("${@:4}")
  seconds=$(($3 + 30)) by_ssh "$1" "$2" "${words[*]@Q}"
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
