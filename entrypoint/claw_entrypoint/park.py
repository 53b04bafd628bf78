"""Waiting for a tenant: a container that is up, at its start gate, with nothing of any tenant in it.

The start gate is a FIFO that the runtime creates in the volume of the values. It is opened last of all, so a writer
that can open it knows that a process waits. At the claim the runtime brings state, logs and values, and opens the gate
with one line; nothing of the tenant is in that line. What may differ between tenants is read after it, never before.

This module is imported by a start that parks, and by no other.
"""

import os
import sys
from _signal import SIGINT, SIGTERM, set_wakeup_fd, signal  # type: ignore[import-not-found]  # as in cli
from select import POLLIN, poll
from stat import S_ISFIFO

from claw_entrypoint.contract import Contract
from claw_entrypoint.document import loads
from claw_entrypoint.errors import SeedError
from claw_entrypoint.log import Log

ENTRYPOINT = "entrypoint"
TIERS = (ENTRYPOINT, "interpreter", "prewarmed")
FORMER = {"parked": ENTRYPOINT, "waiting": "interpreter"}
"""Former word of a tier → its word now. A runtime uses the former ones, since older images know no others."""

END = "--"
_LONGEST = 4096  # bytes, what a FIFO takes whole


def tier(arguments: list[str]) -> str:
    """The tier that the arguments after `--park` name, in its word of now or its former one.

    Raises:
        SeedError: They are anything but one tier.
    """
    name = arguments[0] if len(arguments) == 1 else ""
    name = FORMER.get(name, name)
    if name not in TIERS:
        raise SeedError(
            f"--park takes one of {', '.join(TIERS)}", "correct the arguments that the container was created with"
        )
    return name


def gate(contract: Contract) -> str:
    """Where the start gate is: in the volume of the values.

    Raises:
        SeedError: The contract has no such volume.
    """
    for path, volume in contract.volumes.items():
        if volume.kind == "values":
            return f"{path}/door"  # the name is of the protocol: older runtimes and images know no other
    raise SeedError("the contract has no volume of kind values", "an image without one cannot wait for a tenant")


def waiter(contract: Contract, name: str) -> list[str]:
    """The command of the program that waits in this one's place.

    It is the contract's own, then the gate, the tier, the command that binds (this one's, with `--bind`), `--`, and the
    gateway's command.

    Raises:
        SeedError: The image has none.
    """
    if contract.prewarm is None:
        raise SeedError(f"this image cannot wait as {name}", "its contract has no /prewarm; use the tier entrypoint")
    bind = [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1], "--bind"]
    return [*contract.prewarm.argv, gate(contract), name, *bind, END, *contract.exec.argv]


def wait(place: str, log: Log) -> bool:
    """Wait until the gate opens: True then, False when SIGTERM or SIGINT asked for the end.

    Raises:
        SeedError: There is no FIFO at `place`, or what came is not the line of this protocol.
    """
    wake, woken = _wakeup()
    before = [(number, signal(number, lambda *_: None)) for number in (SIGTERM, SIGINT)]
    try:
        fifo = _open(place)
        try:
            log.info("park.waiting", tier=ENTRYPOINT)
            opened = _line(fifo, wake)
        finally:
            os.close(fifo)
    finally:
        set_wakeup_fd(-1)
        for number, handler in before:
            signal(number, handler)
        os.close(wake)
        os.close(woken)
    return opened


def _wakeup() -> tuple[int, int]:
    """Ends of a pipe into which a signal writes: it cannot be missed between a look and a wait."""
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    set_wakeup_fd(woken, warn_on_full_buffer=False)
    return wake, woken


def _open(place: str) -> int:
    """The FIFO, for reading and writing: so a writer's end is no end of file, and the open itself never waits."""
    hint = "the runtime creates this FIFO before it starts the container"
    try:
        fifo = os.open(place, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise SeedError(f"cannot open the start gate {place}: {error.strerror}", hint) from error
    if not S_ISFIFO(os.fstat(fifo).st_mode):
        os.close(fifo)
        raise SeedError(f"the start gate {place} is not a FIFO", hint)
    return fifo


def _line(fifo: int, wake: int) -> bool:
    waiting = poll()
    for number in (fifo, wake):
        waiting.register(number, POLLIN)
    line = b""
    while True:
        ready = {number for number, _ in waiting.poll()}
        if wake in ready:
            return False
        try:
            line += os.read(fifo, _LONGEST)
        except BlockingIOError:
            continue
        if line.endswith(b"\n") or len(line) >= _LONGEST:
            _check(line)
            return True


def _check(line: bytes) -> None:
    try:
        if loads(line.decode()) == {"v": 1}:
            return
    except ValueError:
        pass  # what it was is not repeated: it should not have come this way
    raise SeedError(
        'what came through the start gate is not the line {"v":1}', "use a runtime and an image of one version"
    )
