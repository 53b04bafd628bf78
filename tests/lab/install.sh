#!/bin/bash
# Install claw's environment on a view of a root: install.sh NEW ROOT TREE; the environment becomes NEW itself.
# Runs in a mount namespace of its own, so that nothing stays mounted.
set -euo pipefail
new=$1 root=$2 tree=$3

view=$new/view
mkdir "$view" "$new/upper" "$new/work" "$new/venv"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$new/upper,workdir=$new/work" "$view"
mount --bind "$new/venv" "$view/opt/claw/venv"
mount -t proc proc "$view/proc"
mkdir "$view/opt/claw/wheels"
mount --bind "$new/wheels" "$view/opt/claw/wheels"
rsync -a --include=/entrypoint --include=/runtime --exclude='/*' --exclude='*.egg-info' --exclude=__pycache__ "$tree/" "$view/opt/claw/tree/"

in_view() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore chroot "$view" "$@"; }

pip() { in_view sh -c '/opt/claw/venv/bin/python $(echo /usr/share/python-wheels/pip-*.whl)/pip "$@"' pip "$@"; } # Debian's own, for venv
in_view python3 -m venv --without-pip /opt/claw/venv
pip install --quiet --no-index --find-links /opt/claw/wheels setuptools
pip install --quiet --no-index --find-links /opt/claw/wheels --no-build-isolation \
  -e /opt/claw/tree/entrypoint -e '/opt/claw/tree/runtime[s3]'

umount -R "$view"
rm -rf "$view" "$new/upper" "$new/work"
mv "$new"/venv/* "$new/"
rm -rf "$new/venv"
