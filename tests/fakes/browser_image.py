"""Makes the image with Debian's Chromium that tests/security/test_browser.py runs.

    PYTHONPATH=tests host/run .venv/bin/python -m fakes.browser_image

It needs Debian's mirrors and mmdebstrap, and takes a minute or two. The image stays in this user's store.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from claw_runtime.engine import buildhost, images
from claw_runtime.engine.imagetool import base_argv

REFERENCE = "localhost/claw-test-chromium:dev"
PACKAGES = "chromium,fonts-dejavu-core"


def make() -> None:
    """Make the image anew. Raises `ClawError`, `CalledProcessError`."""
    host = buildhost.this_host()
    with tempfile.TemporaryDirectory(prefix="claw-chromium-") as scratch:
        tar = Path(scratch) / "root.tar"
        command, *rest = base_argv(host, buildhost.debian_sources(host), Path(scratch), tar)
        subprocess.run([command, f"--include={PACKAGES}", *rest], check=True)
        images.import_rootfs(tar, REFERENCE, lambda line: print(line, file=sys.stderr))


if __name__ == "__main__":
    make()
