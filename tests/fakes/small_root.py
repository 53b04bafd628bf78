"""The file system of a small image, from the standard library alone.

It is this host's own static busybox (Debian's busybox-static) in a file system of a few entries, about 4 MB. Its
program is a tenant's in small: it says `started`, notes each start in /state/starts, answers `GET /healthz` and what
is below /state on port 8080, and ends with code 0 on SIGTERM. Other arguments are executed in its place. With `--park
TIER` before them it does all this only when the start gate in /run/claw is opened.
"""

import io
import subprocess
import tarfile
from pathlib import Path

BUSYBOX = Path("/bin/busybox")
CHANGES = ('ENTRYPOINT ["/bin/entry"]', "ENV PATH=/bin", "LABEL io.claw.test=small")
"""What an import of it sets, as `podman import --change` takes it."""

_ENTRY = b"""#!/bin/sh
trap 'exit 0' TERM
if [ "$1" = --park ]; then
  exec 3<>/run/claw/door
  head -n 1 <&3 >/dev/null &
  wait $! || exit 1
  exec 3<&-
  shift 2
fi
echo started
{ echo start >> /state/starts; echo ok > /state/healthz; } 2>/dev/null
[ $# -eq 0 ] || exec "$@"
httpd -f -p 8080 -h /state &
wait $!
"""
_DIRECTORIES = ("bin", "etc", "run", "run/claw", "var", "proc", "sys", "dev")
# 1777, as in every image of ours: with runc a tmpfs takes the mode of the directory that it covers.
_WRITABLE = ("config", "logs", "state", "tmp", "var/tmp")


def root_file_system() -> bytes:
    """A tar whose bytes depend on nothing but busybox and the script above."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as tar:
        for name in _DIRECTORIES:
            add(tar, name, kind=tarfile.DIRTYPE)
        for name in _WRITABLE:
            add(tar, name, kind=tarfile.DIRTYPE, mode=0o1777)
        add(tar, "bin/busybox", BUSYBOX.read_bytes())
        add(tar, "bin/entry", _ENTRY)
        applets = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
        for applet in sorted(set(applets) - {"busybox"}):
            add(tar, f"bin/{applet}", kind=tarfile.SYMTYPE, target="busybox")
    return body.getvalue()


def add(
    tar: tarfile.TarFile,
    name: str,
    data: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    mode: int = 0o755,
    target: str = "",
) -> None:
    """Add one entry, owned by root and dated 1970, so that the bytes are always the same."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.type, entry.mode, entry.linkname = len(data), kind, mode, target
    tar.addfile(entry, io.BytesIO(data))
