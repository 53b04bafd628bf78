"""The files of an image: no setuid, only the promised directories open to all, accounts as real files, no credential.

Usage: image_has_no_surprises.py ARCHIVE CONTRACT [TIME]   (TIME: the one time, in seconds, that every entry must have)
"""

import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import archive
from secrets_in import SECRET
from verdict import refuse, some

SPECIAL = 0o6000
OPEN = 0o002
STICKY_OPEN = 0o1777
ACCOUNTS = ("/etc/passwd", "/etc/group", "/etc/nsswitch.conf")
PROGRAM = b"\x7fELF"


def check(image: archive.Image, contract: dict[str, Any]) -> None:
    """Refuse the first surprise among owners, modes and kinds."""
    entries = image.entries
    special = sorted(path for path, entry in entries.items() if entry.isreg() and entry.mode & SPECIAL)
    if special:
        refuse(f"setuid or setgid: {some(special)}")
    wide = {path for path, entry in entries.items() if not entry.issym() and entry.mode & OPEN}
    surprising = sorted(wide - set(contract["writable"]))
    if surprising:
        refuse(f"open to everybody and not in the contract: {some(surprising)}")
    for path in contract["writable"]:
        mode = entries[path].mode & 0o7777 if path in entries else None
        if mode != STICKY_OPEN:
            refuse(f"{path} is promised to be writable and {'missing' if mode is None else f'has mode {mode:o}'}")
    for path in ACCOUNTS:
        if path not in entries or not entries[path].isreg():
            refuse(f"{path} is not a regular file")
    devices = sorted(path for path, entry in entries.items() if entry.isdev())
    if devices:
        refuse(f"device or pipe: {some(devices)}")


def check_times(image: archive.Image, time: int) -> None:
    """Refuse the first entry with another time or owner: both would differ from one build to the next."""
    for path, entry in sorted(image.entries.items()):
        if entry.mtime != time:
            refuse(f"{path} has the time {entry.mtime}, not {time}")
        if entry.uid or entry.gid:
            refuse(f"{path} belongs to {entry.uid}:{entry.gid}")


def check_contents(path: str) -> None:
    """Refuse the first text that everybody can read and that has a credential in it.

    Programs are left out: libraries for cryptography carry keys of no worth to test themselves with.
    """
    for name, entry, body in archive.files(path):
        if entry.mode & 0o004 and not body.startswith(PROGRAM) and SECRET.search(body):
            refuse(f"{name} looks as if it had a credential in it")


if __name__ == "__main__":
    try:
        found = archive.read(sys.argv[1])
        check(found, json.loads(Path(sys.argv[2]).read_text()))
        if len(sys.argv) > 3:
            check_times(found, int(sys.argv[3]))
        check_contents(sys.argv[1])
    except (tarfile.TarError, KeyError, ValueError) as error:
        refuse(f"cannot be read: {type(error).__name__} {error}")
