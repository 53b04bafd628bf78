"""The body of Podman's create request, as far as it limits what a container uses."""

from pathlib import Path
from typing import Any

import pytest
from claw_runtime.engine import options
from claw_runtime.ports import ContainerSpec
from podman.domain.containers_create import CreateMixin


def resources(**limits: Any) -> dict[str, dict[str, Any]]:
    """What podman-py makes of the options: `resource_limits`, without what is not set."""
    spec = ContainerSpec(name="c1", image="localhost/small:dev", **limits)
    made = options.of(
        spec, profile=Path("/profile.json"), cgroup_parent=None, log_driver="journald", helper="slirp4netns"
    )
    body = CreateMixin._render_payload({"image": spec.image, "command": [], **made})
    found = body["resource_limits"]
    return {name: {key: value for key, value in part.items() if value is not None} for name, part in found.items()}


@pytest.mark.parametrize("entrypoint", [None, ("sleep", "60")])
def test_an_entrypoint_replaces_the_images(entrypoint: tuple[str, ...] | None) -> None:
    """As a list, so that nothing splits it; without one, the image's own runs."""
    spec = ContainerSpec(name="c1", image="localhost/small:dev", entrypoint=entrypoint)
    made = options.of(spec, profile=Path("/p.json"), cgroup_parent=None, log_driver="journald", helper="pasta")
    body = CreateMixin._render_payload({"image": spec.image, "command": [], **made})
    assert body.get("entrypoint") == (entrypoint and list(entrypoint))


def test_memory_includes_swap() -> None:
    """With a memory limit there is no swap: Podman's limit on both together is the same number."""
    assert resources(memory=64 << 20)["memory"] == {"limit": 64 << 20, "swap": 64 << 20}


def test_unset_limits_are_not_sent() -> None:
    """A limit that nobody set is not in the request."""
    assert not any(resources().values())


@pytest.mark.parametrize("pids", [0, 64])
def test_pids_are_sent_as_they_are(pids: int) -> None:
    """0 reaches Podman, where it replaces its own default of 2,048."""
    assert resources(pids=pids)["pids"] == {"limit": pids}
