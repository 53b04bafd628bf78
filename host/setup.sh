#!/bin/sh
# Prepare this Debian host for rootless Podman; safe to run again at once (a second run changes nothing).
#   as root:   installs Debian packages, makes the unprivileged user (CLAW_USER, default `claw`), and on a host without
#              systemd or with a v1/hybrid cgroup tree prepares a namespace in which that user's Podman works fully
#   as a user: installs nothing without a password-less sudo; checks, and writes Podman's configuration if there is none
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"

missing_packages() {
  for package in $CLAW_PACKAGES; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || printf '%s ' "$package"
  done
}

install_packages() { # $1: what to put before apt-get
  missing=$(missing_packages)
  [ -n "$missing" ] || return 0
  say "installing Debian packages: $missing"
  $1 apt-get update -qq
  # shellcheck disable=SC2086
  $1 env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

make_user() {
  id "$CLAW_USER" >/dev/null 2>&1 || { say "creating the unprivileged user $CLAW_USER"; useradd -m -s /bin/bash "$CLAW_USER"; }
  for file in /etc/subuid /etc/subgid; do
    grep -q "^$CLAW_USER:" "$file" 2>/dev/null || die "$CLAW_USER has no range in $file" "as root: usermod --add-subuids 200000-265535 --add-subgids 200000-265535 $CLAW_USER"
  done
}

# As the user itself: Debian's Podman 4.3 silently picks vfs, which copies the image for every container.
configure_podman() {
  config=${XDG_CONFIG_HOME:-$HOME/.config}/containers
  mkdir -p "$config"
  [ -e "$config/storage.conf" ] || { say "writing $config/storage.conf (overlay)"; printf '[storage]\ndriver = "overlay"\n' > "$config/storage.conf"; }
  # A keyring for each container would use up the user's kernel keys. The daemon asks for none itself, from Podman 4.4 on.
  [ -e "$config/containers.conf.d/60-claw.conf" ] || { mkdir -p "$config/containers.conf.d"; printf '[containers]\nkeyring = false\n' > "$config/containers.conf.d/60-claw.conf"; }
  host_is_ordinary && return 0
  # Without systemd there is no journal and no systemd cgroup manager. crun refuses a hybrid cgroup tree, runc does not;
  # inside the prepared namespace the tree is plain cgroup2 and host/run selects crun, which also can pause.
  [ -e "$config/containers.conf" ] || { say "writing $config/containers.conf (no systemd here)"; cat > "$config/containers.conf" <<CONF
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
log_driver = "k8s-file"
keyring = false
CONF
  }
  [ -e "$config/claw-holder.conf" ] || sed 's/"runc"/"crun"/' "$config/containers.conf" > "$config/claw-holder.conf"
}

runtime_dir() { # of user $1
  uid=$(id -u "$1")
  install -d -m 755 /run/user
  install -d -m 700 -o "$1" -g "$(id -g "$1")" "/run/user/$uid"
  echo "/run/user/$uid"
}

alive() { kill -0 "$(cat "$1" 2>/dev/null)" 2>/dev/null; } # the process whose id is in file $1

# A private mount namespace with a bare cgroup2 tree.
start_holder() {
  dir=$(holder_dir "$CLAW_USER")
  alive "$dir/holder.pid" && return 0
  say "preparing a namespace with plain cgroup2 for $CLAW_USER (this host has no systemd, or a v1/hybrid cgroup tree)"
  mkdir -p "$dir"
  chown "$CLAW_USER:" "$dir"
  kill "$(cat "$dir/broker.pid" 2>/dev/null)" 2>/dev/null || true
  rm -f "$dir/broker.pid" "$dir/holder.pid"
  setsid unshare -m --propagation private sh -c '
    umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; mount --make-rshared /
    echo $$ > "$1/holder.pid"; exec sleep infinity' holder "$dir" </dev/null >/dev/null 2>&1 &
  wait_for "$dir/holder.pid"
  # A pause process from before would pin Podman to the old mount namespace. Its id may be another process's by now.
  pause=$(runtime_dir "$CLAW_USER")/libpod/tmp/pause.pid
  if alive "$pause" && [ "$(stat -c %U "/proc/$(cat "$pause")")" = "$CLAW_USER" ]; then kill "$(cat "$pause")" || true; fi
  rm -f "$pause"
}

# The user's broker inside it, in a delegated cgroup. $1: yes when an older one must go; what it started continues.
start_broker() {
  dir=$(holder_dir "$CLAW_USER")
  if [ "$1" != yes ] && [ -S "$dir/broker.sock" ] && alive "$dir/broker.pid"; then return 0; fi
  kill "$(cat "$dir/broker.pid" 2>/dev/null)" 2>/dev/null || true
  rm -f "$dir/broker.pid" "$dir/broker.sock"
  root=$(cgroup2_root)
  # A leaf of its own each time: one that was killed through cgroup.kill ends whatever is put into it later.
  find "$root/$CLAW_USER" -mindepth 1 -maxdepth 1 -name 'leaf*' -exec rmdir {} + 2>/dev/null || true
  leaf=$root/$CLAW_USER/leaf-$(date +%s)
  mkdir -p "$leaf"
  chown "$CLAW_USER:" "$root/$CLAW_USER" "$root/$CLAW_USER"/cgroup.* "$leaf" "$leaf"/cgroup.*
  setsid sh -c 'echo $$ > "$1/cgroup.procs"; exec nsenter -t "$(cat "$3/holder.pid")" -m \
      setpriv --reuid "$2" --regid "$2" --init-groups sh -c '"'"'echo $$ > "$1/broker.pid"; exec /usr/bin/python3 "$0" serve "$1/broker.sock"'"'"' "$4" "$3"' \
    broker "$leaf" "$CLAW_USER" "$dir" "$HOST_LIB/broker.py" </dev/null >/dev/null 2>"$dir/broker.log" &
  wait_for "$dir/broker.sock"
}

wait_for() { # a file to appear
  tries=0
  until [ -e "$1" ]; do
    tries=$((tries + 1)); [ "$tries" -le 100 ] || die "$1 did not appear" "see $(dirname "$1")/broker.log"
    sleep 0.1
  done
}

open_tun() { # slirp4netns needs it; ordinary hosts have it open already
  [ -e /dev/net/tun ] || { mkdir -p /dev/net; mknod /dev/net/tun c 10 200; }
  [ "$(stat -c %a /dev/net/tun)" = 666 ] || { say "opening /dev/net/tun for unprivileged networks"; chmod 666 /dev/net/tun; }
}

# The kernel counts both for all containers of a user together, and Debian's limits end at some 120 and 190 containers.
# A container, or a kernel that does not let us, is no reason to stop: `doctor` compares the limits with the pools.
raise_limits() {
  wanted=''
  for setting in kernel.keys.maxkeys=20000 kernel.keys.maxbytes=2000000 fs.inotify.max_user_instances=8192; do
    now=$(cat "/proc/sys/$(echo "${setting%=*}" | tr . /)" 2>/dev/null) || continue
    [ "$now" -ge "${setting#*=}" ] || wanted="$wanted $setting"
  done
  [ -n "$wanted" ] || return 0
  say "raising limits of the kernel:$wanted"
  for setting in $wanted; do
    [ ! -d /etc/sysctl.d ] || echo "$setting" >> /etc/sysctl.d/60-claw.conf
    echo "${setting#*=}" 2>/dev/null > "/proc/sys/$(echo "${setting%=*}" | tr . /)" || say "warning: this kernel does not let root set $setting"
  done
}

if [ "$(id -u)" = 0 ]; then
  install_packages ""
  raise_limits
  make_user
  open_tun
  if host_is_ordinary; then
    loginctl enable-linger "$CLAW_USER"
  else
    runtime_dir "$CLAW_USER" >/dev/null
  fi
  mkdir -p "$HOST_LIB"
  if cmp -s "$here/broker.py" "$HOST_LIB/broker.py"; then new_broker=no; else new_broker=yes; fi
  cp "$here/lib.sh" "$here/setup.sh" "$here/run" "$here/broker.py" "$HOST_LIB/"
  home=$(getent passwd "$CLAW_USER" | cut -d: -f6)
  (cd / && setpriv --reuid "$CLAW_USER" --regid "$CLAW_USER" --init-groups env -i HOME="$home" PATH=/usr/bin:/bin "$HOST_LIB/setup.sh")
  if ! host_is_ordinary; then
    start_holder
    start_broker "$new_broker"
  fi
else
  missing=$(missing_packages)
  if [ -n "$missing" ]; then
    if sudo -n true 2>/dev/null; then install_packages sudo; else
      die "Debian packages are missing: $missing" "as root: apt-get install $missing   (or run this once as root)"
    fi
  fi
  [ -w /dev/net/tun ] || say "warning: you cannot open /dev/net/tun, so containers have no network (as root: chmod 666 /dev/net/tun)"
  configure_podman
fi
