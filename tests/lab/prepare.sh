#!/bin/bash
# Turns a fresh root into an ordinary host: a user `claw` whose services outlive its sessions, overlay storage, a quiet boot.
# mmdebstrap calls it with the root's directory; its text is part of the root's digest.
set -euo pipefail
root=$1

in_root() { chroot "$root" "$@"; }

in_root useradd --create-home --shell /bin/bash claw
install -d "$root/var/lib/systemd/linger"
touch "$root/var/lib/systemd/linger/claw" # as `loginctl enable-linger` leaves it
in_root install -d -o claw -g claw /home/claw/.config /home/claw/.config/containers /home/claw/.local /home/claw/.local/share
printf '[storage]\ndriver = "overlay"\n' > "$root/home/claw/.config/containers/storage.conf"
in_root chown claw: /home/claw/.config/containers/storage.conf

install -d "$root/opt/claw/venv" "$root/opt/claw/tree" "$root/lab"
printf 'export PATH=/opt/claw/venv/bin:$PATH\n' > "$root/etc/profile.d/claw.sh"

# Without logins, timers and waits that tell nothing about claw.
for unit in console-getty.service getty@tty1.service serial-getty@ttyS0.service systemd-networkd-wait-online.service \
  apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
  podman-auto-update.timer systemd-timesyncd.service; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
in_root systemctl --quiet set-default multi-user.target
echo lab > "$root/etc/hostname"
printf '127.0.0.1 localhost\n::1 localhost\n' > "$root/etc/hosts"
: > "$root/etc/fstab"
: > "$root/etc/machine-id" # each boot gets another
rm -rf "$root"/etc/apt/sources.list* "$root"/etc/apt/auth.conf* "$root"/etc/resolv.conf \
  "$root"/var/cache/apt/*.bin "$root"/var/lib/apt/lists/* "$root"/var/log/*
