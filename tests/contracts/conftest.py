"""The stores that one suite runs on: memory, a directory, S3 in this process (moto), and a real server (SeaweedFS)."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from claw_runtime.logs import Secret
from claw_runtime.objects.directory import DirectoryStore
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.objects.s3 import S3Store
from claw_runtime.objects.seaweedfs import SeaweedFS
from claw_runtime.ports import ObjectStore


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    """A moto server on a free port of 127.0.0.1, in a thread of this process; it does not check keys."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """A real S3 server, started by the code under test."""
    server = SeaweedFS(tmp_path_factory.mktemp("seaweedfs"))
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _s3(endpoint: str, access_key: Secret, secret_key: Secret, *, prefix: str = "") -> S3Store:
    store = S3Store(
        bucket=f"contract-{uuid4().hex[:12]}",
        prefix=prefix,
        endpoint=endpoint,
        access_key=access_key,
        secret_key=secret_key,
    )
    store.create_bucket()
    return store


@pytest.fixture(
    params=["memory", "directory", "moto", "moto below a prefix", pytest.param("seaweedfs", marks=pytest.mark.s3)]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty store of each kind."""
    match request.param:
        case "memory":
            return MemoryStore()
        case "directory":
            return DirectoryStore(tmp_path)
        case "seaweedfs":
            server: SeaweedFS = request.getfixturevalue("seaweedfs")
            return _s3(server.endpoint, server.access_key, server.secret_key)
        case kind:
            endpoint: str = request.getfixturevalue("moto_endpoint")
            prefix = "deep/down" if "prefix" in kind else ""
            return _s3(endpoint, Secret("access-key-of-a-test"), Secret("secret-key-of-a-test"), prefix=prefix)
