# A cgroup for everything that one host is made of. Sourced, in a mount namespace of its own.
# shellcheck shell=bash

enter_group() { # NAME
  if [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ]; then # systemd 256 and newer refuse a v1 or hybrid tree
    umount -R /sys/fs/cgroup
    mount -t cgroup2 none /sys/fs/cgroup
  fi
  mkdir -p "/sys/fs/cgroup/claw-lab-$1" # it is there when the host boots again
  echo $$ > "/sys/fs/cgroup/claw-lab-$1/cgroup.procs"
}
