"""A client that knows only `BOILERHOUSE_API_URL`, against a daemon on real Podman: its own tests pass unchanged."""

import os
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import live_podman
from fakes.boilerhouse import Boilerhouse, drive
from fakes.daemon import Daemon

pytestmark = [pytest.mark.podman, pytest.mark.s3]


@pytest.fixture(scope="module")
def daemon(session_home: Path, small_image: str) -> Iterator[Daemon]:
    """A daemon that listens on TCP too, with an S3 server of its own."""
    with live_podman.directory_in(session_home) as home:
        workload = home / "small.yaml"
        workload.write_text(
            f"id: small\nimage: {small_image}\nports: [{{container: 8080}}]\n"
            "healthcheck: {path: /healthz, timeout: 20s}\nvolumes: {state: {target: /state}}\n"
            "pool: {min_size: 1, max_size: 4}\n"
        )
        daemon = Daemon(home / "d", [workload], {"CLAW_LISTEN": "127.0.0.1:0"})
        daemon.start(ready=1)
        yield daemon
        daemon.close()


@pytest.fixture(scope="module")
def address(daemon: Daemon) -> str:
    """Where it listens, as it says itself."""
    found = re.search(r"http://127\.0\.0\.1:\d+(?= · )", daemon.log)
    assert found, daemon.log
    return found[0]


def inside(container: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["podman", "exec", container, *argv], capture_output=True, text=True, check=False)


def test_its_own_tests_pass(daemon: Daemon, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim, status, exec, sync, release, claim again: the state crosses containers, and tenants are apart."""
    token = daemon.ok("token", "create", "ci").out.strip()
    monkeypatch.setenv("BOILERHOUSE_API_URL", f"{address}/t/{token}")

    def write(container: str, name: str, text: str) -> None:
        assert inside(container, "sh", "-c", f"printf %s '{text}' > /state/{name}").returncode == 0

    def read(container: str, name: str) -> str | None:
        found = inside(container, "cat", f"/state/{name}")
        return found.stdout if found.returncode == 0 else None

    def saved(tenant: str) -> dict[str, str]:
        names = [line.split()[-1] for line in daemon.ok("sync", "list", tenant, "-o", "name").out.splitlines()]
        return {name: daemon.ok("sync", "cat", tenant, name).out for name in names}

    drive(Boilerhouse(os.environ["BOILERHOUSE_API_URL"]), "small", write=write, read=read, saved=saved)
    assert token not in daemon.log


def test_without_a_token_nothing_is_answered(address: str) -> None:
    """The same address without the token is closed."""
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{address}/api/v1/tenants", timeout=5)
