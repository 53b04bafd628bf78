"""Tenants that lose their container on real Podman, by a failure or a reboot, run again with their state."""

import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fakes import live_podman
from fakes.daemon import Daemon, on_small_image

pytestmark = pytest.mark.podman


@pytest.fixture(scope="module")
def daemon(session_home: Path, small_image: str) -> Iterator[Daemon]:
    """A daemon with a store in a directory, whose workload is claimed again after a failure."""
    policy = "policy: {restart: on_failure}\n"
    with live_podman.directory_in(session_home) as home, on_small_image(home, small_image, policy) as made:
        yield made


def claimed(daemon: Daemon, tenant: str) -> str:
    """Claim a tenant that writes its own name; the id of its container."""
    container = daemon.ok("claim", tenant, "-o", "json").json["containerId"]
    daemon.ok("exec", tenant, "--", "sh", "-c", f"echo {tenant} > /state/name")
    return str(container)


def podman(verb: str, *containers: str) -> None:
    subprocess.run(["podman", *verb.split(), *containers], check=True, capture_output=True)


def again(daemon: Daemon, tenant: str, reason: str) -> dict[str, Any]:
    """The tenant's status once the daemon has claimed it for this reason; it has what it wrote."""
    deadline = time.monotonic() + 120
    while (now := daemon.ok("status", tenant, "-o", "json").json)["restarted"] != reason:
        assert time.monotonic() < deadline, daemon.log[-3000:]
        time.sleep(0.5)
    with urllib.request.urlopen(f"{now['endpoints']['http']}/name", timeout=10) as answer:
        assert answer.read().decode().strip() == tenant
    assert isinstance(now, dict)
    return now


def test_a_program_that_is_killed_runs_again(daemon: Daemon) -> None:
    """Its state is committed first, and its next container has it."""
    before = claimed(daemon, "alice")
    podman("kill --signal KILL", before)

    now = again(daemon, "alice", "ended")

    assert (now["state"], now["syncStatus"]["generation"]) == ("active", 1)
    assert now["containerId"] != before
    daemon.ok("release", "alice")


def test_a_reboot_brings_back_what_ran(daemon: Daemon) -> None:
    """With every container gone and another boot, the next daemon claims the tenant that ran; one that was released
    stays released."""
    before = claimed(daemon, "bob")
    claimed(daemon, "carol")
    daemon.ok("release", "carol")
    daemon.kill()
    podman("rm --force --time 0", before)
    with closing(sqlite3.connect(daemon.home / "ledger.sqlite")) as ledger, ledger:
        ledger.execute("UPDATE boot SET id = 'another'")

    daemon.start()

    again(daemon, "bob", "reboot")
    assert daemon.ok("status", "carol", "-o", "json").json["state"] == "cold"
    daemon.ok("release", "bob")
