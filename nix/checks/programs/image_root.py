"""The root of an image as a directory, and what a path in it leads to when it is not the root of this machine.

Usage: image_root.py ARCHIVE DIRECTORY   unpacks all but the store, whose paths are here already
"""

import sys
import tarfile
from pathlib import Path

import archive

STORE = "nix/store"
_MAX_LINKS = 40


def unpack(source: str, root: Path) -> None:
    """Directories, files and links of an archive's layers, without the store."""
    files = {path: body for path, entry, body in archive.files(source) if not _in_store(path)}
    for path, entry in sorted(archive.read(source).entries.items()):
        place = root / path.lstrip("/")
        if path == "/" or _in_store(path):
            continue
        if entry.isdir():
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if entry.issym():
            place.symlink_to(entry.linkname)
        elif entry.isreg():
            place.write_bytes(files[path])
            place.chmod(0o755 if entry.mode & 0o100 else 0o644)
        else:
            raise tarfile.TarError(f"{path} is neither a file, a directory nor a link")


def _in_store(path: str) -> bool:
    return path == "/nix" or path.startswith("/nix/")


def resolve(root: Path, path: str) -> Path | None:
    """The real place of a path in the image: below `root`, or in the store. None when it leads nowhere.

    A link below `root` means the image's root; in the store it means what it says.
    """
    parts, found = [part for part in path.split("/") if part], root
    links = 0
    while parts:
        part = parts.pop(0)
        if part == ".":
            continue
        if part == "..":
            found = found.parent if found != root else root
            continue
        place = found / part
        if place.is_symlink() and found.is_relative_to(root):
            links += 1
            if links > _MAX_LINKS:
                return None
            target = str(place.readlink())
            found = root if target.startswith("/") else found
            parts = [name for name in target.split("/") if name] + parts
            if target.startswith(f"/{STORE}/"):
                found = Path("/")
        elif place.exists():
            found = place
        else:
            return None
    return found


if __name__ == "__main__":
    unpack(sys.argv[1], Path(sys.argv[2]))
