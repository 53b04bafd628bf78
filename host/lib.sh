# Shared by the scripts of this folder: where things are on this host. Sourced, never run.
# shellcheck shell=sh

CLAW_USER=${CLAW_USER:-claw}

# What Podman and the builds need from Debian. Nothing else of the project is installed system-wide. A target that needs
# more names it in CLAW_EXTRA_PACKAGES.
CLAW_PACKAGES="podman crun runc uidmap slirp4netns catatonit ca-certificates mmdebstrap rsync git make
  python3 python3-venv util-linux procps busybox-static ${CLAW_EXTRA_PACKAGES:-}"

systemd_is_running() { [ -d /run/systemd/system ]; }
cgroup_is_unified() { [ "$(stat -f -c %T /sys/fs/cgroup 2>/dev/null)" = cgroup2fs ]; }

# An ordinary host gives its users delegated cgroups and a runtime directory by itself.
host_is_ordinary() { systemd_is_running && cgroup_is_unified; }

# Root's copy of these scripts, since the user may not be able to read the tree that they came from.
HOST_LIB=/run/claw-host/lib

# Where the prepared namespace of user $1 keeps its pid and its broker's socket.
holder_dir() { echo "/run/claw-host/$1"; }

# The bare cgroup2 tree: below /unified on a hybrid host.
cgroup2_root() { if [ -d /sys/fs/cgroup/unified ]; then echo /sys/fs/cgroup/unified; else echo /sys/fs/cgroup; fi; }

# The copy of root's tree in which CLAW_USER works, since the user may not be able to read root's.
work_tree() { echo "$(getent passwd "$CLAW_USER" | cut -d: -f6)/claw-work"; }

# Whether the kernel lets user $1 limit memory, processors and processes.
limits_work() {
  group=$(cgroup2_root)/$1
  if host_is_ordinary; then group=/sys/fs/cgroup/user.slice/user-$(id -u "$1").slice/user@$(id -u "$1").service; fi
  for controller in memory cpu pids; do
    grep -qw "$controller" "$group/cgroup.controllers" 2>/dev/null || return 1
  done
}

say() { printf '%s\n' "claw host: $*" >&2; }
die() { say "error: $1"; [ -z "${2:-}" ] || say "hint: $2"; exit 1; }
