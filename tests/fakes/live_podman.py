"""What tests on real Podman share: an image (fakes/small_root.py), an engine, and the search for what they left."""

import hashlib
import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from claw_runtime.engine import images
from claw_runtime.engine.podman import PodmanEngine
from claw_runtime.errors import EngineFailed
from claw_runtime.ports import ContainerSpec
from fakes.small_image import small_image
from fakes.small_root import add, root_file_system


@contextmanager
def image_that_inherits(*entries: str) -> Iterator[str]:
    """An image of the same files whose environment also has these entries as they are, which no build would write."""
    reference = f"localhost/claw-test-inherits:{os.getpid()}"
    layer = root_file_system()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/bin", *entries], "Entrypoint": ["/bin/entry"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]).encode()
    with tempfile.TemporaryDirectory() as directory:
        archive = Path(directory) / "image.tar"
        with tarfile.open(archive, "w") as tar:
            for name, data in {"config.json": config, "manifest.json": manifest, "layer.tar": layer}.items():
                add(tar, name, data)
        images.load(archive, lambda line: None)
    try:
        yield reference
    finally:
        subprocess.run(["podman", "image", "rm", "--force", reference], check=False, capture_output=True)


@contextmanager
def engine_at(socket: Path) -> Iterator[PodmanEngine]:
    """An engine with a service of its own, ended afterwards."""
    with PodmanEngine(socket, cgroup_parent=os.environ.get("CLAW_CGROUP_PARENT")) as engine:
        yield engine


def need_freezing() -> None:
    """Skip the test where containers cannot be frozen: runc on a host whose cgroup tree nobody prepared. Where it is
    prepared nothing is skipped, so that CI sees when freezing breaks."""
    if not os.environ.get("CLAW_CGROUP_PARENT") and not _freezes():
        pytest.skip("this user's Podman cannot freeze containers: see host/README.md")


@cache
def _freezes() -> bool:
    with directory_in() as place, engine_at(place / "s") as engine:
        name = f"claw-test-freezing-{os.getpid()}"
        try:
            engine.start(
                engine.create(ContainerSpec(name=name, image=small_image(), network="none", tmpfs=("/state",)))
            )
            engine.pause(name)
        except EngineFailed:
            return False
        finally:
            if engine.inspect(name):
                engine.remove(name)
        return True


@contextmanager
def directory_in(parent: Path = Path("/tmp")) -> Iterator[Path]:
    """A private directory, gone afterwards, whose sockets fit into 107 bytes, as those in pytest's own may not."""
    with tempfile.TemporaryDirectory(prefix="claw-t-", dir=parent) as directory:
        yield Path(directory)


def left_containers(below: Path) -> list[str]:
    """Names of containers that mount something below the directory."""
    ids = subprocess.run(["podman", "ps", "-aq"], check=True, capture_output=True, text=True).stdout.split()
    found = []
    for one in ids:  # one by one: containers of others may go away meanwhile
        answer = subprocess.run(["podman", "container", "inspect", one], check=False, capture_output=True, text=True)
        for entry in json.loads(answer.stdout or "[]"):
            sources = [Path(mount["Source"]) for mount in entry["Mounts"] if mount.get("Source")]
            if any(source.is_relative_to(below) for source in sources):
                found.append(str(entry["Name"]))
    return found


def left_processes(below: Path) -> list[str]:
    """Command lines of processes that name a path below the directory, or work there."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            place = str((entry / "cwd").readlink())
        except OSError:
            continue  # it ended while we looked, or is somebody else's
        if f"{below}/" in line or f"{place}/".startswith(f"{below}/"):
            found.append(f"{entry.name}: {line}")
    return found
