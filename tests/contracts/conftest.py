"""The stores that one suite runs on: memory, a directory, and S3 as three servers speak it."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest
from claw_runtime.objects import seaweedfs as own_server
from claw_runtime.objects.directory import DirectoryStore
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.objects.seaweedfs import SeaweedFS
from claw_runtime.ports import ObjectStore
from fakes import servers
from fakes.servers import Server


@pytest.fixture(scope="session", autouse=True)
def blocks_of_their_own() -> Iterator[None]:
    """Servers of these tests never choose the ports of a daemon that another part of the run starts meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_server, "_BLOCKS", range(14000, 20000, len(own_server._PORTS)))
        yield


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    """A moto server on a free port of 127.0.0.1, in a thread of this process; it does not check keys."""
    with servers.moto() as server:
        yield server.endpoint


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """A real S3 server, started by the code under test."""
    server = SeaweedFS(tmp_path_factory.mktemp("seaweedfs"))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Another one; skipped where it is not installed."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(servers.ministack(tmp_path_factory.mktemp("ministack")))
        except servers.Missing as missing:
            pytest.skip(str(missing))
        yield server


@pytest.fixture(
    params=[
        "memory",
        "directory",
        "moto",
        "moto below a prefix",
        pytest.param("seaweedfs", marks=pytest.mark.s3),
        pytest.param("ministack", marks=pytest.mark.s3),
    ]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty store of each kind."""
    bucket = f"contract-{uuid4().hex[:12]}"
    match request.param:
        case "memory":
            return MemoryStore()
        case "directory":
            return DirectoryStore(tmp_path)
        case "seaweedfs":
            own: SeaweedFS = request.getfixturevalue("seaweedfs")
            keys = {"access_key": own.access_key, "secret_key": own.secret_key}
            return Server(endpoint=own.endpoint, **keys).store(bucket)
        case "ministack":
            other: Server = request.getfixturevalue("ministack")
            return other.store(bucket)
        case kind:
            moto = Server(endpoint=request.getfixturevalue("moto_endpoint"))
            return moto.store(bucket, prefix="deep/down" if "prefix" in kind else "")
