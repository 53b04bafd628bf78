#!/bin/bash
# Write the disk of a host in user-mode Linux: disk.sh NEW ROOT VENV KERNEL. In a mount namespace of its own, like install.sh.
set -euo pipefail
new=$1 root=$2 venv=$3 kernel=$4

view=$new/view
mkdir "$view" "$new/upper" "$new/work"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$new/upper,workdir=$new/work" "$view"
mount -t proc proc "$view/proc"
cp -a "$venv/." "$view/opt/claw/venv/"
mkdir -p "$view/usr/lib/modules"
cp -a "$kernel"/usr/lib/uml/modules/* "$view/usr/lib/modules/"

install -d -m 700 "$view/root/.ssh" "$view/home/claw/.ssh"
cp "$new/key.pub" "$view/root/.ssh/authorized_keys"
cp "$new/key.pub" "$view/home/claw/.ssh/authorized_keys"
chroot "$view" chown -R claw: /home/claw/.ssh

# The directories that the host shares with this machine, as the kernel's program sees them; and the host's address.
printf '%s\n' 'none /lab hostfs hostfs=/lab/share 0 0' 'none /opt/claw/tree hostfs hostfs=/lab/tree 0 0' > "$view/etc/fstab"
cat > "$view/etc/systemd/system/lab-network.service" <<'UNIT'
[Unit]
Description=Address of this host in the laboratory
Before=network.target ssh.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/ip addr add 10.99.0.2/24 dev vec0
ExecStart=/usr/sbin/ip link set vec0 up
ExecStart=/usr/sbin/ip route add default via 10.99.0.1

[Install]
WantedBy=multi-user.target
UNIT
chroot "$view" systemctl --quiet enable lab-network.service ssh.service

umount "$view/proc"
mke2fs -q -t ext4 -L root -d "$view" "$new/disk" 6G
umount "$view"
rm -rf "$view" "$new/upper" "$new/work"
