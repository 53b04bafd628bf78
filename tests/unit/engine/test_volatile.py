"""Podman's records after every process of a user was killed: removed as by a reboot, never while a process lives."""

import os
from pathlib import Path

import pytest
from claw_runtime.engine import volatile


class Host:
    """A runtime directory, /dev/shm and /proc as Podman leaves them after containers were killed."""

    def __init__(self, home: Path) -> None:
        self.run, self.shm, self.proc = home / "run", home / "shm", home / "proc"
        self.podman = self.run / "libpod/tmp"
        self.lock = self.shm / f"libpod_rootless_lock_{os.getuid()}"
        self.network = self.run / "netns/netns-1"
        self.environment = {"XDG_RUNTIME_DIR": str(self.run)}
        for directory in (self.podman, self.shm, self.network.parent):
            directory.mkdir(parents=True)
        for file in (self.podman / "alive", self.lock, self.network, self.podman / "events"):
            file.touch()
        self.lives("self", "user:[1]")

    def lives(self, process: str, namespace: str) -> None:
        """Add a process of this user."""
        (self.proc / process / "ns").mkdir(parents=True)
        (self.proc / process / "ns/user").symlink_to(namespace)

    def pause(self, pid: int) -> None:
        """Record the id of a pause process."""
        (self.podman / "pause.pid").write_text(str(pid))

    def reset(self) -> bool:
        return volatile.reset_after_a_kill(self.environment, shm=self.shm, proc=self.proc)

    @property
    def left(self) -> set[str]:
        return {path.name for path in self.run.parent.rglob("*") if path.is_file()} - {"claw.lock"}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """What a kill of everything left, and this process."""
    return Host(tmp_path)


def test_what_a_reboot_removes_is_removed(host: Host) -> None:
    """The marks of a boot, the locks and the network namespaces go; everything else stays."""
    host.pause(2**22 + 1)
    host.lives("7", "user:[1]")

    assert host.reset()
    assert host.left == {"events"}
    assert not host.reset()  # there is nothing left to remove


def test_nothing_is_removed_while_a_container_may_live(host: Host) -> None:
    """A process of this user in another user namespace is Podman's, a container's, or cannot be told from them."""
    host.lives("7", "user:[2]")
    before = host.left

    assert not host.reset()
    assert host.left == before


def test_a_user_without_podman_is_left_alone(tmp_path: Path) -> None:
    """No runtime directory, nothing to reset, and no error."""
    environment = {"XDG_RUNTIME_DIR": str(tmp_path / "none")}

    assert not volatile.reset_after_a_kill(environment)
    assert not volatile.has_dead_networks(environment)


def test_networks_are_dead_without_the_pause_process(host: Host) -> None:
    """With it they may be in use; without one, or with a stale or damaged record, they cannot be."""
    assert volatile.has_dead_networks(host.environment)
    host.pause(2**22 + 1)
    assert volatile.has_dead_networks(host.environment)
    (host.podman / "pause.pid").write_text("x")
    assert volatile.has_dead_networks(host.environment)
    host.pause(os.getpid())
    assert not volatile.has_dead_networks(host.environment)
    host.pause(1)  # of another user
    assert not volatile.has_dead_networks(host.environment)
