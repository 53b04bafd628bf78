#!/bin/bash
# The process of one host in user-mode Linux: kernel.sh NAME PLACE KERNEL ROOT DISK. Like machine.sh, in a mount namespace and a
# cgroup of its own; also in a network namespace of its own.
set -euo pipefail
name=$1 place=$2 kernel=$3 root=$4 disk=$5
. "$(dirname "$0")/group.sh"
enter_group "$name"

# The program needs a newer C library than this machine may have: it runs in a view of the root.
mount -t overlay overlay -o "lowerdir=$kernel:$root,upperdir=$place/upper,workdir=$place/work" "$place/view"
mount --bind "$place" "$place/view/lab"
mount --bind "$disk" "$place/view/mnt"
mount --rbind /dev "$place/view/dev"
mount -t proc proc "$place/view/proc"
export TMPDIR=/dev/shm # where its memory lies
# Its first disk is a copy-on-write file upon the image that all hosts share. It has no devices to find, which would take half
# of the boot; and a unit may need minutes on a machine with other load.
exec chroot "$place/view" /usr/bin/linux.uml "umid=$name" uml_dir=/lab/ mem=2G ubd0=/lab/written,/mnt/disk root=/dev/ubda rw \
  con=null con0=null,fd:1 console=tty0 quiet vec0:transport=tap,ifname=tap0,depth=128,gro=1 "systemd.hostname=$name" \
  systemd.mask=systemd-udev-trigger.service systemd.mask=ldconfig.service systemd.default_timeout_start_sec=600
