"""What `podman info` says of a host."""

from typing import Any

import pytest
from claw_runtime.engine import facts
from claw_runtime.errors import EngineUnsupported, StorageUnusable


def answer(driver: str) -> dict[str, Any]:
    """An answer of Podman 4.3.1, as far as it is read."""
    return {
        "version": {"Version": "4.3.1"},
        "host": {
            "security": {"rootless": True, "seccompEnabled": True},
            "cgroupVersion": "v2",
            "cgroupControllers": ["pids"],
            "cgroupManager": "cgroupfs",
            "ociRuntime": {"name": "crun"},
            "slirp4netns": {"executable": "/usr/bin/slirp4netns"},
        },
        "store": {"graphDriverName": driver, "configFile": "/c/storage.conf"},
    }


def test_the_facts_are_read() -> None:
    """Version, runtime, limits and the network's helper."""
    info = facts.read(answer("overlay"))
    assert (info.version, info.runtime, info.network) == ("4.3.1", "crun", "slirp4netns")
    assert info.enforceable_limits == {"pids"}


@pytest.mark.parametrize("version", ["4.0.2", "6.0.0"])
def test_a_version_that_nobody_ran_is_refused(version: str) -> None:
    """So the daemon does not start, and `doctor` reports it in the same words."""
    with pytest.raises(EngineUnsupported, match=version):
        facts.read({**answer("overlay"), "version": {"Version": version}})


def test_vfs_is_refused() -> None:
    """The error names the file that selects the driver."""
    with pytest.raises(StorageUnusable) as refused:
        facts.read(answer("vfs"))
    assert "/c/storage.conf" in refused.value.hint
