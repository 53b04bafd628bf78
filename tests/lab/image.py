"""The small image that tests on Podman use, on a laboratory's host."""

import shlex

from fakes.small_root import CHANGES, root_file_system
from lab.hosts import Host

NAME = "localhost/small:lab"

WORKLOAD = f"""\
id: small
image: {NAME}
ports: [{{container: 8080}}]
volumes: {{state: {{target: /state}}}}
healthcheck: {{path: /healthz}}
network: private
pool: {{min_size: 1, max_size: 4}}
"""
"""A workload of it, with a port that Podman publishes."""


def bring(host: Host, name: str = NAME) -> None:
    """Import the image as the host's user `claw`."""
    (host.share / "small.tar").write_bytes(root_file_system())
    changes = " ".join(f"--change {shlex.quote(change)}" for change in CHANGES)
    host.ok(f"podman import --quiet {changes} /lab/small.tar {name}")
