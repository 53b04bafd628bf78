"""Which helper gives containers a network, from what `podman info` says of its host."""

from pathlib import Path
from typing import Any

import pytest
from claw_runtime.engine import network, options
from claw_runtime.ports import ContainerSpec
from podman.domain.containers_create import CreateMixin

HERE = {"executable": "/usr/bin/it", "version": "1"}
AWAY = {"executable": ""}


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ({"slirp4netns": HERE}, "slirp4netns"),  # Podman 4.3
        ({"slirp4netns": HERE, "pasta": HERE, "rootlessNetworkCmd": "pasta"}, "pasta"),
        ({"slirp4netns": HERE, "pasta": HERE, "rootlessNetworkCmd": "slirp4netns"}, "slirp4netns"),  # containers.conf
        ({"slirp4netns": HERE, "pasta": AWAY, "rootlessNetworkCmd": "pasta"}, "slirp4netns"),
        ({"slirp4netns": AWAY, "pasta": HERE, "rootlessNetworkCmd": "slirp4netns"}, "pasta"),
        ({"pasta": HERE, "rootlessNetworkCmd": "pasta"}, "pasta"),  # Podman 6
        ({"slirp4netns": AWAY, "pasta": None}, ""),
        ({}, ""),
    ],
)
def test_podmans_own_choice_counts_if_it_is_installed(host: dict[str, Any], expected: str) -> None:
    """Else the other helper does, and without any there is none."""
    assert network.helper(host) == expected


def body(helper: str, **given: Any) -> dict[str, Any]:
    """What podman-py sends to create such a container."""
    spec = ContainerSpec(name="c1", image="localhost/small:dev", port=8080, **given)
    made = options.of(spec, profile=Path("/p.json"), cgroup_parent=None, log_driver="journald", helper=helper)
    return dict(CreateMixin._render_payload({"image": spec.image, "command": [], **made}))


@pytest.mark.parametrize(
    ("helper", "mode", "given"),
    [
        ("pasta", "pasta", None),
        ("slirp4netns", "slirp4netns", {"slirp4netns": ["allow_host_loopback=false"]}),
        ("", "slirp4netns", {"slirp4netns": ["allow_host_loopback=false"]}),  # Podman says what is missing
    ],
)
def test_the_helper_reaches_podman(helper: str, mode: str, given: object) -> None:
    """With the port on the host's 127.0.0.1, and without a way to what listens there."""
    sent = body(helper)
    assert sent["netns"] == {"nsmode": mode}
    assert sent.get("network_options") == given
    assert [(one["container_port"], one["host_ip"]) for one in sent["portmappings"]] == [(8080, "127.0.0.1")]


def test_without_a_network_nothing_is_published() -> None:
    """`network: none` needs no helper."""
    sent = body("pasta", network="none")
    assert (sent["netns"], sent.get("network_options"), sent.get("portmappings")) == ({"nsmode": "none"}, None, [])
