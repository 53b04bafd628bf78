#!/usr/bin/env python3
"""Puts files together again when HEAD and all manifests of a tenant are lost: each pack knows what is in it.

    state_salvage.py STORE TENANT DIRECTORY [KEYFILE]

Of each file the newest frames win. What no pack tells does not come back: links, empty files and directories, holes
(they become zeros), second files of equal content, and which files had been deleted or had become shorter.
"""

import json
import struct
import sys
from pathlib import Path

from state_reader import State, checked, text


def frames(state):
    """Epoch, time, pack, whether it is sealed, and row of each frame that there is."""
    for path in (state.root / "packs").iterdir():
        data = checked(path, path.name)
        length, magic = struct.unpack("<I8s", data[-12:])
        sealed = magic == b"CLAWPKS1"
        index = json.loads(state.opened(data[-12 - length : -12], "index", sealed))
        yield from ((index["epoch"], row[7], path.name, sealed, row) for row in index["frames"])


state, target = State(*sys.argv[1:3], *sys.argv[4:]), Path(sys.argv[3])
for _, _, pack, sealed, (path, encoded, at, offset, stored, _, mode, _) in sorted(frames(state)):
    name = text([path]) if encoded else path
    if {"", ".", ".."} & set(name.split("/")):
        sys.exit(f"{name!r} leads out of the state")
    file_path = target / name
    file_path.parent.mkdir(parents=True, exist_ok=True)
    with file_path.open("r+b" if file_path.exists() else "xb") as file:
        file.seek(at)
        file.write(state.frame(pack, 0, sealed, place=(offset, stored)))
    file_path.chmod(mode | 0o600)
