"""Write an image as a docker archive to standard output, the same bytes for the same plan.

`layers.py PLAN`: PLAN is the structured attributes of `images.nix`: the graph of store paths, the image's
configuration, the most layers there may be, and the store path that holds the image's own layer.
"""

import hashlib
import io
import json
import os
import stat
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

EPOCH = "1970-01-01T00:00:01Z"


def groups(graph: Sequence[dict[str, Any]], most: int) -> list[list[str]]:
    """Store paths by layer: what many others refer to comes first and alone, the rest shares the last layer."""
    users = {node["path"]: sum(node["path"] in other["references"] for other in graph) for node in graph}
    order = sorted(users, key=lambda path: (-users[path], path))
    alone = order[: most - 2]
    rest = order[most - 2 :]
    return [*([path] for path in alone), *([rest] if rest else [])]


def below(path: str) -> Iterator[str]:
    """The path and everything below it, parents first, in a fixed order."""
    yield path
    if os.path.isdir(path) and not os.path.islink(path):
        for name in sorted(os.listdir(path)):
            yield from below(f"{path}/{name}")


def member(path: str) -> tarfile.TarInfo:
    """How a path of the store appears in a layer: root's, one fixed time, and never a hard link."""
    status = os.lstat(path)
    info = tarfile.TarInfo(path.lstrip("/"))
    info.mtime, info.uname, info.gname = 1, "root", "root"
    info.mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
    elif stat.S_ISDIR(status.st_mode):
        info.type = tarfile.DIRTYPE
    else:
        info.size = status.st_size
    return info


def write_layer(file: IO[bytes], paths: Sequence[str]) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("nix", "nix/store"):
            parent = tarfile.TarInfo(name)
            parent.type, parent.mode, parent.mtime = tarfile.DIRTYPE, 0o755, 1
            tar.addfile(parent)
        for entry in (entry for path in paths for entry in below(path)):
            info = member(entry)
            if info.isreg():
                with open(entry, "rb") as content:
                    tar.addfile(info, content)
            else:
                tar.addfile(info)


def add(archive: tarfile.TarFile, name: str, content: IO[bytes]) -> None:
    info = tarfile.TarInfo(name)
    info.mtime, info.size = 1, content.seek(0, os.SEEK_END)
    content.seek(0)
    archive.addfile(info, content)


def main(plan_path: str) -> None:
    plan = json.loads(Path(plan_path).read_text())
    graph = [node for node in plan["graph"] if node["path"] not in (plan["own"], plan["named"])]
    digests = []
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.GNU_FORMAT) as archive:
        for paths in [*groups(graph, plan["maxLayers"]), None]:
            with tempfile.TemporaryFile() as layer:
                if paths is None:
                    layer.write(Path(plan["own"], "layer.tar").read_bytes())
                else:
                    write_layer(layer, paths)
                layer.seek(0)
                digests.append(hashlib.file_digest(layer, "sha256").hexdigest())
                add(archive, f"{digests[-1]}.tar", layer)
        image = {
            "architecture": "amd64",
            "os": "linux",
            "created": EPOCH,
            "config": plan["config"],
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
            "history": [{"created": EPOCH} for _ in digests],
        }
        config = json.dumps(image, sort_keys=True).encode()
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        add(archive, name, io.BytesIO(config))
        layers = [f"{digest}.tar" for digest in digests]
        manifest = [{"Config": name, "RepoTags": [plan["reference"]], "Layers": layers}]
        add(archive, "manifest.json", io.BytesIO(json.dumps(manifest).encode()))


if __name__ == "__main__":
    main(sys.argv[1])
