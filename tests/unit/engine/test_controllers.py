"""Which limits hold is a question to the user's systemd, not to the cgroup that Podman happens to run in."""

import os
from pathlib import Path
from typing import Any

import pytest
from claw_runtime.engine import controllers


@pytest.fixture
def cgroups(tmp_path: Path) -> Path:
    """A tree in which systemd delegates three controllers to this user."""
    user = os.getuid()
    manager = tmp_path / f"user.slice/user-{user}.slice/user@{user}.service"
    manager.mkdir(parents=True)
    (manager / "cgroup.controllers").write_text("cpu memory pids\n")
    return tmp_path


def host(named: list[str] | None, *, manager: str = "systemd", rootless: bool = True) -> dict[str, Any]:
    """Podman's answer."""
    return {"cgroupControllers": named, "cgroupManager": manager, "security": {"rootless": rootless}}


def test_podman_in_a_service_names_too_few(cgroups: Path) -> None:
    """Its own cgroup lacks `cpu`; a container of it can have what is delegated to the user's manager."""
    assert set(controllers.of_containers(host(["memory", "pids"]), cgroups)) == {"cpu", "memory", "pids"}
    assert set(controllers.of_containers(host(None), cgroups)) == {"cpu", "memory", "pids"}


def test_nothing_is_named_twice(cgroups: Path) -> None:
    """Podman's order stays."""
    assert controllers.of_containers(host(["pids", "cpu"]), cgroups) == ("pids", "cpu", "memory")


@pytest.mark.parametrize("other", [{"manager": "cgroupfs"}, {"rootless": False}])
def test_containers_outside_of_the_users_systemd(cgroups: Path, other: dict[str, Any]) -> None:
    """They lie below Podman's own cgroup, or have all that the machine has: Podman's answer is right."""
    assert controllers.of_containers(host(["memory"], **other), cgroups) == ("memory",)


def test_without_a_users_manager_podman_is_believed(tmp_path: Path) -> None:
    """As on a host without systemd."""
    assert controllers.of_containers(host(["memory"]), tmp_path) == ("memory",)
