"""Chromium with its own sandbox, under claw's profiles of system calls (marker `podman`).

The image is made once, with Debian's mirrors (fakes/browser_image.py); without it the tests are skipped. The profile
`browser` was replaced by `strict` once, by hand, and the first two tests failed.
"""

import os
import re
from collections.abc import Iterator

import pytest
from claw_runtime.engine import images
from claw_runtime.engine.podman import PodmanEngine
from claw_runtime.ports import ContainerSpec, ExecResult
from claw_runtime.seccomp import profiles
from fakes import browser_image, live_podman

pytestmark = pytest.mark.podman

PAGE = "data:text/html,<p id=x></p><script>document.getElementById('x').textContent = 6 * 7</script>"
ANSWER = '<p id="x">42</p>'
BROWSER = ("chromium", "--headless", "--disable-gpu", "--user-data-dir=/tmp/profile")
PROCESSES = f"""
{" ".join(BROWSER)} --remote-debugging-port=0 about:blank > /tmp/said 2>&1 &
for turn in $(seq 300); do grep -q 'DevTools listening' /tmp/said && break; sleep 0.2; done
for turn in $(seq 300); do grep -lqs -e --type=renderer /proc/[0-9]*/cmdline && break; sleep 0.2; done
sleep 1
for at in /proc/[0-9]*; do
  echo "== $(tr '\\0' ' ' < $at/cmdline)"
  grep -E '^(NSpid|Seccomp_filters):' $at/status
done 2>/dev/null
"""


class Browser:
    """A container of the image under one profile, with what every tenant's container has."""

    def __init__(self, engine: PodmanEngine, profile: str) -> None:
        self.engine = engine
        self.container = engine.create(
            ContainerSpec(
                name=f"claw-test-browser-{os.getpid()}-{profile}",
                image=browser_image.REFERENCE,
                command=("sleep", "infinity"),
                environment={"HOME": "/tmp", "PATH": "/usr/bin:/bin"},
                tmpfs=("/tmp",),
                network="none",
                seccomp=profiles.text(profile),
            )
        )
        engine.start(self.container)

    def run(self, *argv: str) -> ExecResult:
        return self.engine.execute(self.container, argv, timeout=300)


@pytest.fixture(scope="module")
def browsers() -> Iterator[dict[str, Browser]]:
    if not images.exists(browser_image.REFERENCE):
        pytest.skip(f"{browser_image.REFERENCE} is not made: python -m fakes.browser_image")
    with live_podman.directory_in() as home, live_podman.engine_at(home / "podman.sock") as engine:
        made = dict[str, Browser]()
        try:
            for profile in profiles.OWN:
                made[profile] = Browser(engine, profile)
            yield made
        finally:
            for browser in made.values():
                engine.remove(browser.container)


def test_chromium_runs_with_its_own_sandbox_under_browser(browsers: dict[str, Browser]) -> None:
    """A page's script runs, without `--no-sandbox`, in a container as every tenant has it."""
    done = browsers["browser"].run(*BROWSER, "--dump-dom", PAGE)

    assert done.exit_code == 0, done.stderr
    assert ANSWER in done.stdout.decode()


def test_its_pages_are_in_that_sandbox(browsers: dict[str, Browser]) -> None:
    """A page's process is in a process namespace of its own, and under a filter of the browser's beside claw's."""
    done = browsers["browser"].run("sh", "-c", PROCESSES)

    found = [_process(text) for text in done.stdout.decode().split("== ")[1:]]
    first = next(filters for line, _, filters in found if line.startswith("sleep infinity"))
    pages = [(levels, filters) for line, levels, filters in found if "--type=renderer" in line]
    assert pages
    assert all(levels >= 2 and filters > first >= 1 for levels, filters in pages), found


def test_strict_refuses_the_sandbox(browsers: dict[str, Browser]) -> None:
    """Chromium ends with an error, and runs only when its sandbox is switched off."""
    refused = browsers["strict"].run(*BROWSER, "--dump-dom", PAGE)

    assert refused.exit_code != 0
    assert ANSWER not in refused.stdout.decode()
    without = browsers["strict"].run(*BROWSER, "--no-sandbox", "--dump-dom", PAGE)
    assert without.exit_code == 0, without.stderr
    assert ANSWER in without.stdout.decode()


def _process(text: str) -> tuple[str, int, int]:
    """Command line, levels of process namespaces, and seccomp filters of a process."""
    line, _, status = text.partition("\n")
    levels = re.search(r"NSpid:((?:\s+\d+)+)", status)
    filters = re.search(r"Seccomp_filters:\s+(\d+)", status)
    return line, len(levels[1].split()) if levels else 0, int(filters[1]) if filters else 0
