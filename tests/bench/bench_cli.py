"""The time that a person at a prompt waits: the command line's own time, compared with Podman's.

`cli_help_ms` and `cli_status_1000_ms` are whole processes, from fork to exit, through the installed entry point. The
daemon behind `status` is the real API on a Unix socket, with a ledger of 1,000 tenants and an engine in memory. The
figures therefore measure the command line and the API, not containers.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.figures import Figure, load, now, take_turns
from claw_runtime.tenancy import TenantId

PROGRAM = str(Path(sys.executable).with_name("claw-runtime"))
TENANTS = 1000
WARMING = 3
HELP, TABLE = 60.0, 100.0
"""Milliseconds that a person does not notice, for `--help` and for a table: an interpreter starts in each."""
START = 30.0
"""Seconds that the daemon may take to listen."""


def measure_help(runs: int = 20) -> list[Figure]:
    """`cli_help_ms`: `claw-runtime --help` beside `podman --help`, which is a compiled program."""
    return [_figure("cli_help_ms", HELP, runs, (PROGRAM, "--help"), ("podman", "--help"), dict(os.environ))]


def measure_status(runs: int = 20) -> list[Figure]:
    """`cli_status_1000_ms`, `cli_pool_list_ms`: `status` of 1,000 tenants and `pool list` beside `podman ps --all`."""
    peer = ("podman", "ps", "--all")
    with serving_tenants(TENANTS) as environment:
        return [
            _figure("cli_status_1000_ms", TABLE, runs, (PROGRAM, "status"), peer, environment),
            _figure("cli_pool_list_ms", TABLE, runs, (PROGRAM, "pool", "list"), peer, environment),
        ]


def _figure(
    name: str, most: float, runs: int, ours: Sequence[str], peer: Sequence[str], environment: Mapping[str, str]
) -> Figure:
    before = load()
    mine, theirs = take_turns(
        name, runs, lambda: _milliseconds(ours, environment), lambda: _milliseconds(peer, os.environ), warming=WARMING
    )
    return Figure(
        name=name,
        peer=" ".join(peer),
        most=most,
        ours=mine,
        theirs=theirs,
        load=(before, load()),
        at=now(),
        unit="ms",
    )


def _milliseconds(argv: Sequence[str], environment: Mapping[str, str]) -> float:
    begin = time.perf_counter()
    subprocess.run(argv, env=environment, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - begin) * 1e3


@contextmanager
def serving_tenants(tenants: int) -> Iterator[dict[str, str]]:
    """The API over a world in memory, in a process of its own; the environment that leads to it."""
    with tempfile.TemporaryDirectory(prefix="claw-b-") as home:
        environment = {name: text for name, text in os.environ.items() if not name.startswith(("CLAW_", "AWS_"))}
        environment |= {"CLAW_HOME": f"{home}/home", "CLAW_RUN": f"{home}/run"}
        command = [sys.executable, __file__, home, str(tenants)]
        tests = str(Path(__file__).parents[1])
        with subprocess.Popen(
            command, env={**environment, "PYTHONPATH": tests}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as daemon:
            assert daemon.stdin is not None
            assert daemon.stdout is not None
            try:
                if daemon.stdout.readline() != b"ready\n":
                    raise RuntimeError("the daemon in memory did not start")
                yield environment
            finally:
                daemon.stdin.close()
                daemon.wait(START)


def _serve(home: Path, tenants: int) -> None:
    """Serve until standard input ends."""
    from fakes.faces import serving
    from fakes.world import World

    world = World(home)
    for number in range(tenants):
        tenant = TenantId(f"tenant-{number:04d}")
        at = time.time() - 60 * number
        world.ledger.begin_claim(tenant, "small", at)
        world.ledger.become(tenant, "cold" if number % 3 else "active", at)
    with serving(world):
        print("ready", flush=True)
        sys.stdin.read()
    world.close()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), int(sys.argv[2]))
