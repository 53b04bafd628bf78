"""The small image (small_root.py) in the Podman of this user. Unlike live_podman.py it needs no pytest."""

import hashlib
import tempfile
from pathlib import Path

from claw_runtime.engine import images
from fakes.small_root import BUSYBOX, CHANGES, root_file_system


def small_image() -> str:
    """The image's name; made at the first call on this host, and kept for the next session."""
    if not BUSYBOX.exists():
        raise RuntimeError(f"{BUSYBOX} is missing: apt-get install busybox-static")
    rootfs = root_file_system()
    reference = f"localhost/claw-test-small:{hashlib.sha256(rootfs).hexdigest()[:12]}"
    if not images.exists(reference):
        with tempfile.NamedTemporaryFile(suffix=".tar") as tar:
            tar.write(rootfs)
            tar.flush()
            images.import_rootfs(Path(tar.name), reference, lambda line: None, changes=CHANGES)
    return reference
