#!/bin/bash
# The process of one nspawn host: machine.sh NAME PLACE ROOT VENV. It runs in a mount namespace of its own, so that its
# mounts end with it, and in a cgroup of its own, so that everything in it can be found.
set -euo pipefail
name=$1 place=$2 root=$3 venv=$4

. "$(dirname "$0")/group.sh"
enter_group "$name"

mount -t overlay overlay -o "lowerdir=$root,upperdir=$place/upper,workdir=$place/work" "$place/root"
devices=(--bind=/dev/net/tun)
[ ! -c /dev/fuse ] || devices+=(--bind=/dev/fuse)
# All capabilities and system calls: the host's own users make namespaces, and systemd inside restricts its services.
exec systemd-nspawn --quiet --boot --directory="$place/root" --machine="$name" --register=no --keep-unit --console=pipe \
  --private-network --resolv-conf=off --timezone=off --link-journal=no --capability=all --system-call-filter=@known \
  "${devices[@]}" --bind="$place/home:/home" --bind="$place/containers:/var/lib/containers" --bind="$place/share:/lab" --bind="$place/tree:/opt/claw/tree" --bind-ro="$venv:/opt/claw/venv"
