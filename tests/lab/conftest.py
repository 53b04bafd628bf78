"""Ordinary hosts for tests. Where this machine cannot run one, the last lines of the run say why."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import evidence, hosts, image
from lab.hosts import Host

DISTS = ("trixie", "bookworm")
_REASON = pytest.StashKey[str]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs the laboratory."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.lab)


@pytest.fixture(scope="session")
def laboratory(request: pytest.FixtureRequest) -> None:
    """Skip what needs a host on a machine that cannot run one; the summary says so."""
    obstacle = hosts.lab("check").out.strip()
    if obstacle:
        request.config.stash[_REASON] = obstacle
        pytest.skip(f"lab: not run on this host: {obstacle}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """No laboratory test is left out in silence."""
    if reason := config.stash.get(_REASON, ""):
        terminalreporter.write_line(f"lab: not run on this host: {reason}")
    if path := os.environ.get("CLAW_LAB_EVIDENCE"):
        ran = [one for outcome in ("passed", "failed", "error") for one in terminalreporter.stats.get(outcome, ())]
        evidence.write(Path(path), ran, DISTS)


@pytest.fixture(scope="session", params=DISTS)
def nspawn_host(request: pytest.FixtureRequest, laboratory: None) -> Iterator[Host]:
    """A host in systemd-nspawn, one for each release: systemd, user sessions and Podman at native speed."""
    host = hosts.boot("nspawn", f"n{os.getpid()}-{request.param}", request.param)
    try:
        image.bring(host)
        yield host
    finally:
        hosts.down(host)
