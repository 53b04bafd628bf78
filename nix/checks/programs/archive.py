"""A docker-archive (`podman save`, dockerTools; plain tar) as a container would see it: configuration and files."""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_GONE = ".wh."
_ALL_GONE = ".wh..wh..opq"


@dataclass(slots=True)
class Image:
    """The image of an archive.

    Attributes:
        config: `User`, `Env`, `Labels`…; `Healthcheck` where the builder wrote one.
        entries: Absolute path → what is there after the last layer.
        layers: How many there are.
    """

    config: dict[str, Any]
    entries: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    layers: int = 0


def read(path: str) -> Image:
    """The image, without any file's bytes. Raises `KeyError` or `tarfile.TarError` when it is no docker-archive."""
    with tarfile.open(path) as outer:
        manifest = _json(outer, "manifest.json")[0]
        document = _json(outer, manifest["Config"])
        image = Image(config=document.get("config") or {}, layers=len(manifest["Layers"]))
        for name in manifest["Layers"]:
            with tarfile.open(fileobj=outer.extractfile(name)) as layer:
                for entry in layer:
                    _lay(image.entries, entry)
    return image


def files(path: str) -> Iterator[tuple[str, tarfile.TarInfo, bytes]]:
    """Every regular file of every layer with its bytes, also one that a later layer hides: it is shipped as well."""
    with tarfile.open(path) as outer:
        for name in _json(outer, "manifest.json")[0]["Layers"]:
            with tarfile.open(fileobj=outer.extractfile(name)) as layer:
                for entry in layer:
                    if entry.isreg():
                        body = layer.extractfile(entry)
                        yield absolute(entry.name), entry, body.read() if body else b""


def absolute(name: str) -> str:
    """The path in a container of a name in a layer."""
    plain = name.strip("/").removeprefix("./")
    return "/" if plain == "." else f"/{plain}"


def _json(outer: tarfile.TarFile, name: str) -> Any:
    body = outer.extractfile(name)
    if body is None:
        raise KeyError(name)
    return json.load(body)


def _lay(entries: dict[str, tarfile.TarInfo], entry: tarfile.TarInfo) -> None:
    """One entry over what earlier layers had there."""
    path = absolute(entry.name)
    folder, _, name = path.rpartition("/")
    if name == _ALL_GONE:
        _drop(entries, folder)
    elif name.startswith(_GONE):
        gone = f"{folder}/{name.removeprefix(_GONE)}"
        entries.pop(gone, None)
        _drop(entries, gone)
    else:
        entries[path] = entry


def _drop(entries: dict[str, tarfile.TarInfo], folder: str) -> None:
    for path in [path for path in entries if path.startswith(folder + "/")]:
        del entries[path]
