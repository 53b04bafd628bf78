"""Ordinary hosts for tests. Where this machine cannot run one, the last lines of the run say why."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import evidence, hosts, image
from lab.hosts import DISTS, Host
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

PLATFORMS = (*DISTS, "uml")
_REASON = "lab: not run on this host: "


class _OneProcessAHost(LoadScopeScheduling):
    """With several processes, one has all tests of a file on a platform, and a host for them."""

    def _split_scope(self, nodeid: str) -> str:
        platform = next((platform for platform in PLATFORMS if f"[{platform}" in nodeid), "")
        return f"{nodeid.partition('::')[0]} {platform}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """By hosts, in place of `--dist`."""
    return _OneProcessAHost(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs the laboratory."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.lab)


@pytest.fixture(scope="session")
def laboratory() -> None:
    """Skip what needs a host on a machine that cannot run one; the summary says so."""
    obstacle = hosts.lab("check").out.strip()
    if obstacle:
        pytest.skip(f"{_REASON}{obstacle}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """No laboratory test is left out in silence."""
    skipped = (report.longrepr[2] for report in terminalreporter.stats.get("skipped", ()))
    for reason in sorted({found.removeprefix("Skipped: ") for found in skipped if _REASON in found}):
        terminalreporter.write_line(reason)
    path = os.environ.get("CLAW_LAB_EVIDENCE")
    if path and not hasattr(config, "workerinput"):  # a process of pytest-xdist knows its own tests only
        ran = [one for outcome in ("passed", "failed", "error") for one in terminalreporter.stats.get(outcome, ())]
        evidence.write(Path(path), ran, PLATFORMS)


@pytest.fixture(scope="session", params=DISTS)
def nspawn_host(request: pytest.FixtureRequest, laboratory: None) -> Iterator[Host]:
    """A host in systemd-nspawn, one for each release: systemd, user sessions and Podman at native speed."""
    with hosts.booted("nspawn", request.param) as host:
        image.bring(host)
        yield host


@pytest.fixture(scope="session", params=[pytest.param("trixie", id="uml")])
def uml_host(request: pytest.FixtureRequest, laboratory: None) -> Iterator[Host]:
    """A host in user-mode Linux: slower, with a kernel of its own that has every controller of cgroup v2."""
    with hosts.booted("uml", request.param) as host:
        image.bring(host)
        yield host


@pytest.fixture(scope="module", params=[pytest.param("trixie", id="uml")])
def own_uml_host(request: pytest.FixtureRequest, laboratory: None) -> Iterator[Host]:
    """Likewise, for the tests of one file alone, which may cut its power."""
    with hosts.booted("uml", request.param, "-own") as host:
        image.bring(host)
        yield host
