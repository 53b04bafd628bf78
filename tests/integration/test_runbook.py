"""The runbook's runtime chapters, executed as printed: an operator's first day, a bad night, and the last day.

Blocks marked `operator` go to one shell in their order. A block succeeds when every command in it does; with the mark
`exit-N` exactly one command fails, with N. The lines of an `expect` block after it are regular expressions, each for a
line of the block's output, in their order.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fakes import live_podman
from smoke.runbook_blocks import Block, Step, steps, unmatched

pytestmark = [pytest.mark.podman, pytest.mark.s3, pytest.mark.image]

TOP = Path(__file__).parents[2]
IMAGE = "localhost/openclaw-nix:dev"
RUNBOOK = (TOP / "docs/RUNBOOK.md").read_text(encoding="utf-8")
LIMIT = 300.0


STEPS = steps(RUNBOOK, "operator")


def free_port() -> int:
    """A TCP port of loopback that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Shell:
    """One bash for all blocks, as an operator has one; `home` becomes CLAW_HOME."""

    def __init__(self, home: Path, scratch: Path) -> None:
        own = {name: text for name, text in os.environ.items() if not name.startswith(("AWS_", "CLAW_"))}
        keep = {name: os.environ[name] for name in ("CLAW_CGROUP_PARENT", "CLAW_IN_HOLDER") if name in os.environ}
        settings = {"CLAW_HOME": str(home), "CLAW_RUN": str(home / "run"), "CLAW_LIMITS": "drop"}
        settings["PORT"], settings["ROUTER_PORT"] = str(free_port()), str(free_port())
        # `make image` installs the commands for the tree that it ran in; the tests are about this one.
        settings["PATH"] = f"{TOP / '.venv/bin'}:{os.environ['PATH']}"
        self._scratch = scratch
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=TOP,
            env={**own, **keep, **settings},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def run(self, block: Block) -> tuple[list[int], str]:
        """Exit codes of the commands that failed, and everything that the block printed."""
        script, printed, ended = (self._scratch / f"{block.line}.{kind}" for kind in ("sh", "out", "end"))
        script.write_text(f"trap 'failed=\"$failed $?\"' ERR\n{block.text}trap - ERR\n", encoding="utf-8")
        assert self._bash.stdin is not None
        self._bash.stdin.write(
            f'failed=; . {script} > {printed} 2>&1 < /dev/null\necho "$failed" > {ended}.new; mv {ended}.new {ended}\n'
        )
        self._bash.stdin.flush()
        deadline = time.monotonic() + LIMIT
        while not ended.exists():
            output = printed.read_text(errors="replace") if printed.exists() else ""
            assert self._bash.poll() is None, f"the shell ended: {output}"
            assert time.monotonic() < deadline, f"still running after {LIMIT:g} s: {output}"
            time.sleep(0.05)
        return [int(code) for code in ended.read_text().split()], printed.read_text(errors="replace")

    def close(self) -> None:
        """End whatever still runs in the shell."""
        with suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.wait(30)
        if self._bash.stdin is not None:
            self._bash.stdin.close()


@pytest.fixture(scope="module")
def shell(session_home: Path) -> Iterator[Shell]:
    """A shell with a data directory of its own. Only after a failure there is something for it to remove."""
    if subprocess.run(["podman", "image", "exists", IMAGE], check=False).returncode != 0:
        pytest.skip(f"{IMAGE} is not built: make image")
    with live_podman.directory_in(session_home) as directory:
        (directory / "blocks").mkdir()
        shell = Shell(directory / "h", directory / "blocks")
        yield shell
        shell.close()
        for name in live_podman.left_containers(directory):
            subprocess.run(["podman", "rm", "--force", "--time", "0", name], check=False, capture_output=True)


class TestRunbook:
    went_wrong: int | None = None

    @pytest.mark.parametrize("step", STEPS, ids=[f"line {step.block.line}" for step in STEPS])
    def test_the_operators_blocks_do_what_the_page_says(self, shell: Shell, step: Step) -> None:
        """Each block ends as it is said to end and prints what the page shows; the next one builds on it."""
        if TestRunbook.went_wrong is not None:
            pytest.skip(f"the block at line {TestRunbook.went_wrong} failed")
        TestRunbook.went_wrong = step.block.line

        failed, output = shell.run(step.block)

        assert failed == step.fails, output
        assert unmatched(output, step.expected) is None, output
        TestRunbook.went_wrong = None


def test_an_expectation_without_its_block_is_an_error() -> None:
    """What a page shows as output belongs to a block that is executed; codes are read from the marks."""
    step = "```sh operator exit-30\nfalse\n```\n"
    expect = "```text expect\n^a\n^b\n```\n"

    [read] = steps(f"{step}\n{expect}```sh server\nother\n```\n{expect}", "operator")

    assert (read.fails, read.expected) == ([30], ["^a", "^b"])
    with pytest.raises(ValueError, match="line 2"):
        steps(expect, "operator")
    with pytest.raises(ValueError, match="nothing was executed"):
        steps(f"{step}```sh\nother\n```\n{expect}", "operator")


def test_a_line_that_is_not_there_is_missed() -> None:
    """The judge itself: patterns match whole outputs in order, and an absent or displaced line is named."""
    assert unmatched("one\ntwo\nthree\n", ["^one$", "th.ee"]) is None
    assert unmatched("one\ntwo\n", ["^three$"]) == "^three$"
    assert unmatched("one\ntwo\n", ["two", "one"]) == "one"
