"""Hosts of the laboratory as tests have them: `lab.sh` behind a class."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DISTS = ("trixie", "bookworm")
"""Releases of Debian."""
SCRIPT = Path(__file__).with_name("lab.sh")
STATE = Path(os.environ.get("CLAW_LAB_STATE", "/var/tmp/claw-lab"))
BOOT_SECONDS = 1800.0
"""The first boot makes the root, for which packages are fetched."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a script ended and what it printed."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Host:
    """A booted host.

    Attributes:
        name: Its name, unique on this machine.
        kind: `nspawn` or `uml`.
        dist: Debian release.
    """

    name: str
    kind: str
    dist: str

    @property
    def share(self) -> Path:
        """The directory that is /lab on the host."""
        return STATE / self.name / "share"

    @property
    def tree(self) -> Path:
        """claw's source tree on the host, /opt/claw/tree there."""
        return STATE / self.name / "tree"

    def reboot(self) -> None:
        """`systemctl reboot`; back when the user's systemd answers again."""
        done = lab("reboot", self.name, timeout=600)
        assert done.code == 0, f"{self.name} did not reboot:\n{done.err}"

    def run(self, script: str, *words: str, user: str = "claw", seconds: int = 300) -> Ran:
        """Run a bash script there, with `words` as its arguments, in the user's own systemd session."""
        path = STATE / self.name / "script"
        path.write_text(script)
        return lab("run", self.name, user, str(path), *words, seconds=seconds)

    def ok(self, script: str, *words: str, user: str = "claw", seconds: int = 300) -> str:
        """Run it; it must end with 0. Its standard output, without the last newline."""
        ran = self.run(f"set -euo pipefail\n{script}", *words, user=user, seconds=seconds)
        assert ran.code == 0, f"{script}\nended with {ran.code} on {self.name}:\n{ran.out}\n{ran.err}"
        return ran.out.rstrip("\n")

    def begin(self, script: str, *, seconds: int) -> "subprocess.Popen[str]":
        """Begin to run a script there, as the user `claw`, and let it print while the test continues."""
        path = STATE / self.name / "script-begun"
        path.write_text(script)
        return subprocess.Popen(
            [SCRIPT, "run", self.name, "claw", str(path)],
            env={**os.environ, "CLAW_LAB_SECONDS": str(seconds)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def cut(self) -> None:
        """End it as a power failure does. What it had written to its disk stays."""
        done = lab("cut", self.name)
        assert done.code == 0, done.err

    def again(self) -> None:
        """Boot it again, on its disk."""
        done = lab("again", self.name, timeout=BOOT_SECONDS)
        assert done.code == 0, f"{self.name} did not boot again:\n{done.err}"


def lab(*arguments: str, seconds: int = 120, timeout: float | None = None) -> Ran:
    """`lab.sh ARGUMENTS…`. `seconds` limits a script on a host, `timeout` everything."""
    done = subprocess.run(
        [SCRIPT, *arguments],
        env={**os.environ, "CLAW_LAB_SECONDS": str(seconds)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout or seconds + 120,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def boot(kind: str, name: str, dist: str) -> Host:
    """Boot a host."""
    done = lab("boot", kind, name, dist, timeout=BOOT_SECONDS)
    if done.code != 0:
        left = lab("down", name, timeout=600)
        raise AssertionError(f"{name} did not boot:\n{done.err}\n{left.err}")
    return Host(name, kind, dist)


def down(host: Host) -> None:
    """End it; nothing of it may be left."""
    done = lab("down", host.name, timeout=600)
    assert done.code == 0, f"{host.name} left something behind:\n{done.err}"


@contextmanager
def booted(kind: str, dist: str, more: str = "") -> Iterator[Host]:
    """A fresh host in the body. Several of a kind and a release at once need different `more`, such as `-two`."""
    host = boot(kind, f"{kind[0]}{os.getpid()}-{dist}{more}", dist)
    try:
        yield host
    finally:
        down(host)


def eventually(condition: Callable[[], object], seconds: float = 180) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s"
        time.sleep(0.2)
