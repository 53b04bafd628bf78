"""Tenants at rest on real parts: their own container paused, their own tree parked, and nothing of it for others."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import live_podman
from fakes.daemon import Daemon

pytestmark = [pytest.mark.podman, pytest.mark.s3]

# Counts in memory, ten times a second, and says the last number only when it is told to end.
COUNTER = (
    "n=0; trap 'echo $n > /state/last-words; exit 0' TERM; while :; do n=$((n+1)); echo $n > /tmp/now; sleep 0.1; done"
)


def workload(home: Path, image: str, pool: str, command: str = "") -> Path:
    """A workload file with this pool."""
    path = home / "small.yaml"
    probe = 'test: ["CMD", "true"]' if command else "path: /healthz"
    port = "" if command else "ports: [{container: 8080}]\n"
    path.write_text(
        f"id: small\nimage: {image}\n{port}{command}healthcheck: {{{probe}, ready_timeout: 20s}}\n"
        f"volumes: {{state: {{target: /state}}, logs: {{target: /logs}}}}\npool: {{{pool}}}\n"
    )
    return path


@pytest.fixture(scope="module")
def frozen(session_home: Path, small_image: str) -> Iterator[Daemon]:
    """A daemon that keeps two released tenants frozen for a short while; its workload counts in memory."""
    live_podman.need_freezing()
    with live_podman.directory_in(session_home) as home:
        pool = "max_size: 4, affinity_timeout: 8s, warmth: {created: 1, frozen: 2, tree: 2}"
        command = f'command: ["sh", "-c", "{COUNTER}"]\n'
        daemon = Daemon(home / "d", [workload(home, small_image, pool, command)])
        daemon.start(ready=1)
        yield daemon
        daemon.close()


@pytest.fixture(scope="module")
def parked(session_home: Path, small_image: str) -> Iterator[Daemon]:
    """A daemon that parks the trees of released tenants."""
    with live_podman.directory_in(session_home) as home:
        daemon = Daemon(home / "d", [workload(home, small_image, "min_size: 1, max_size: 4, affinity_timeout: 60s")])
        daemon.start(ready=1)
        yield daemon
        daemon.close()


def counted(daemon: Daemon, tenant: str) -> int:
    """What the tenant's program has in memory now, as it notes it in its /tmp."""
    return int(daemon.ok("exec", tenant, "--", "cat", "/tmp/now").out)


def state_of(daemon: Daemon, tenant: str) -> str:
    state: str = daemon.ok("status", tenant, "-o", "json").json["state"]
    return state


@pytest.mark.timed
class TestFrozen:
    def test_the_same_program_continues(self, frozen: Daemon) -> None:
        """A frozen container stands still, and after the next claim goes on where it was, in milliseconds."""
        first = frozen.ok("claim", "alice", "-o", "json").json
        time.sleep(0.5)
        before = counted(frozen, "alice")
        released = frozen.ok("release", "alice", "-o", "json").json
        assert (released["generation"], released["affinity"]) == (1, "frozen")
        time.sleep(2)

        again = frozen.ok("claim", "alice", "-o", "json").json

        assert (again["containerId"], again["source"], again["state"]) == (first["containerId"], "frozen", "frozen")
        assert before <= counted(frozen, "alice") < before + 18  # it would have counted 20 more, had it gone on
        frozen.ok("release", "alice", "--no-affinity")

    def test_others_see_nothing_of_it(self, frozen: Daemon) -> None:
        """While a tenant rests, another one's container has another file system, memory and state."""
        frozen.ok("claim", "bob")
        frozen.ok(
            "exec",
            "bob",
            "--",
            "sh",
            "-c",
            "echo canary > /tmp/left; echo canary > /state/diary; echo canary > /dev/shm/left",
        )
        frozen.ok("release", "bob")
        assert state_of(frozen, "bob") == "frozen"

        frozen.ok("claim", "carol")

        seen = frozen.ok("exec", "carol", "--", "sh", "-c", "grep -r canary /tmp /state /dev/shm /logs; true")
        assert seen.out == ""
        frozen.ok("release", "carol", "--no-affinity")
        frozen.ok("release", "bob", "--no-affinity")

    def test_the_last_words_are_saved(self, frozen: Daemon) -> None:
        """When the time is over the program may end in order, and what it writes then is in the next claim."""
        frozen.ok("claim", "dave")
        frozen.ok("release", "dave")
        deadline = time.monotonic() + 40
        while state_of(frozen, "dave") != "cold" and time.monotonic() < deadline:
            time.sleep(0.2)
        assert state_of(frozen, "dave") == "cold", frozen.log[-2000:]
        assert int(frozen.ok("sync", "cat", "dave", "last-words").out) > 0

    def test_a_killed_daemon_finds_it_again(self, frozen: Daemon) -> None:
        """After SIGKILL and a new daemon the tenant is still frozen, and its container is its own again."""
        first = frozen.ok("claim", "erin", "-o", "json").json
        frozen.ok("release", "erin")
        frozen.kill()
        frozen.start()
        again = frozen.ok("claim", "erin", "-o", "json").json
        assert (again["containerId"], again["source"]) == (first["containerId"], "frozen")
        frozen.ok("release", "erin", "--no-affinity")

    def test_a_container_that_vanished_costs_a_restore(self, frozen: Daemon) -> None:
        """A frozen container that somebody removed is forgotten; the state comes from the store."""
        first = frozen.ok("claim", "frank", "-o", "json").json
        frozen.ok("exec", "frank", "--", "sh", "-c", "echo blue > /state/colour")
        frozen.ok("release", "frank")
        subprocess.run(["podman", "rm", "-f", "-t", "0", first["containerId"]], check=True, capture_output=True)
        again = frozen.ok("claim", "frank", "-o", "json").json
        assert again["state"] == "restored"
        assert frozen.ok("exec", "frank", "--", "cat", "/state/colour").out == "blue\n"
        frozen.ok("release", "frank", "--no-affinity")


class TestParked:
    def test_the_tree_comes_back_without_a_restore(self, parked: Daemon) -> None:
        """A parked tree becomes the new container's state as it was."""
        parked.ok("claim", "alice")
        parked.ok("exec", "alice", "--", "sh", "-c", "echo blue > /state/colour")
        assert parked.ok("release", "alice", "-o", "json").json["affinity"] == "parked"
        again = parked.ok("claim", "alice", "-o", "json").json
        assert (again["state"], again["generation"]) == ("tree", 1)
        assert parked.ok("exec", "alice", "--", "cat", "/state/colour").out == "blue\n"
        parked.ok("release", "alice", "--no-affinity")
        assert list(parked.home.glob("tenants/alice/parked")) == []
