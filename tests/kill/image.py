"""The image that dies with its daemon again and again: a tenant's program in small, with a start gate.

It leaves a line in /state for each start and each goodbye on SIGTERM, serves /state on port 8080, and waits at its gate
when it is told to park. Its contract is the OpenClaw image's with another port and another probe.
"""

import json
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

IMAGE = "localhost/claw-test-gate:dev"
NEXT = "localhost/claw-test-gate:next"
"""The same program in another image."""

BAD = "localhost/claw-test-gate:bad"
"""An image whose program writes into /state what no other understands, and ends."""

MARKER, SCHEMA = "tenant", "schema"
"""Files of /state: whose it is; and what only the bad image writes."""

_ROOT = Path(__file__).resolve().parents[2]
_ENTRY = b"""#!/bin/sh
if [ "$1" = --park ]; then
  trap 'exit 0' TERM
  exec 3<>/run/claw/door
  read -r line <&3
  exec 3<&-
  set --
fi
trap 'echo goodbyes >> /state/goodbyes; exit 0' TERM
echo started
echo starts >> /state/starts
cat /state/tenant >> /logs/who 2>/dev/null
echo ok > /tmp/healthz
ln -s /state /tmp/state
@@
[ $# -eq 0 ] || exec "$@"
httpd -f -p 8080 -h /tmp &
wait $!
"""


def contract() -> str:
    """The text of the image's contract, which a workload file names."""
    document = json.loads((_ROOT / "images/openclaw-nix/contract.json").read_text())
    document.pop("prewarm", None)
    document["ports"] = {"gateway": 8080}
    document["probes"] = {
        "live": {"path": "/healthz"},
        "ready": {"path": "/healthz", "bearer": "OPENCLAW_GATEWAY_TOKEN", "ignore_failing": [], "timeout": 20},
    }
    document["stop"]["timeout"] = 10
    document["limits"] = {}
    document["capabilities"]["prewarm"] = False
    return json.dumps(document)


def made() -> str:
    """The image's name, after it and its two successors were brought into the store of this user's Podman."""
    from claw_runtime.engine import images
    from fakes import live_podman

    for name, extra in ((IMAGE, b":"), (NEXT, b"true"), (BAD, b"echo newer > /state/schema; exit 1")):
        with tempfile.NamedTemporaryFile(suffix=".tar") as tar:
            tar.write(_with_entry(live_podman.root_file_system(), _ENTRY.replace(b"@@", extra)))
            tar.flush()
            changes = ['ENTRYPOINT ["/bin/gate"]', "ENV PATH=/bin", "LABEL io.claw.test=gate"]
            images.import_rootfs(Path(tar.name), name, lambda line: None, changes=changes)
    return IMAGE


def _with_entry(rootfs: bytes, script: bytes) -> bytes:
    body = BytesIO(rootfs)
    with tarfile.open(fileobj=body, mode="a") as tar:
        entry = tarfile.TarInfo("bin/gate")
        entry.size, entry.mode = len(script), 0o755
        tar.addfile(entry, BytesIO(script))
    return body.getvalue()
