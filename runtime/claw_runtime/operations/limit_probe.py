"""Proves by a container that limits are in force: what the kernel says inside it, and an attempt to exceed one."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from claw_runtime.errors import ClawError, EngineFailed
from claw_runtime.ports import ContainerSpec, Engine
from claw_runtime.tenancy import LABEL_PROBE

MEMORY: Final = 64 << 20
CPUS: Final = 0.5
PIDS: Final = 32

WANTED: Final[Mapping[str, str]] = {
    "memory": f"memory.max {MEMORY}",
    "cpus": "cpu.max 50000 100000",
    "pids": f"pids.max {PIDS}",
}
"""By limit, the line that shows it: a file of the container's own control group and its content."""

_SECONDS: Final = 60
"""For which the container lives: one whose doctor was killed ends by itself."""
_ANSWER_SECONDS: Final = 30.0
_SCRIPT: Final = f"""
cd /sys/fs/cgroup || exit
for file in memory.max cpu.max pids.max; do
  [ -r $file ] && read -r line < $file && echo "$file $line"
done
( i=0; while [ $i -lt {PIDS + 8} ]; do sleep 1 & i=$((i+1)); done ) 2>/dev/null
[ -r pids.events ] && while read -r key count; do echo "pids.events $key $count"; done < pids.events
"""
"""Only builtins of the shell follow the attempt, since no process may begin any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a container showed.

    Attributes:
        held: Limits that are in force.
        missing: Limits that it was made with, and that the kernel does not enforce.
    """

    held: frozenset[str]
    missing: frozenset[str]


def prove(engine: Engine, image: str, limits: frozenset[str]) -> Proof:
    """Make a container with limits, look inside, exceed the number of processes, and remove it.

    Args:
        image: A reference in the engine's store; it needs a shell and `sleep`, and nothing else of it runs.
        limits: Of `memory`, `cpus` and `pids`, those that the engine says it can enforce.

    Raises:
        ClawError: The container could not be made or asked. It is removed all the same.
    """
    _clear(engine)
    container = engine.create(_spec(image, limits))
    try:
        engine.start(container)
        answer = engine.execute(container, ["sh", "-c", _SCRIPT], timeout=_ANSWER_SECONDS)
        lines = answer.stdout.decode("utf-8", "replace").splitlines()
        if answer.timed_out or answer.exit_code in (126, 127):
            why = "no answer in time" if answer.timed_out else answer.stderr.decode("utf-8", "replace").strip()
            raise EngineFailed(
                f"the probe of limits did not run in a container of {image}",
                why=why or f"its shell ended with {answer.exit_code}",
                hint="the probe needs sh and sleep in the image",
            )
    finally:
        with suppress(ClawError):  # the next doctor removes it
            engine.remove(container)
    held = {limit for limit in limits if WANTED[limit] in lines}
    if not _refused(lines):
        held.discard("pids")
    return Proof(held=frozenset(held), missing=limits - held)


def _refused(lines: list[str]) -> int:
    """How many processes the kernel refused."""
    counts = [line.split()[2] for line in lines if line.startswith("pids.events max ")]
    return int(counts[0]) if counts and counts[0].isdigit() else 0


def _spec(image: str, limits: frozenset[str]) -> ContainerSpec:
    return ContainerSpec(
        name=f"claw-probe-{os.getpid()}",
        image=image,
        entrypoint=("sleep", str(_SECONDS)),
        labels={LABEL_PROBE: str(os.getpid())},
        network="none",
        memory=MEMORY if "memory" in limits else None,
        cpus=CPUS if "cpus" in limits else None,
        pids=PIDS if "pids" in limits else 0,
        stop_timeout=0,
    )


def _clear(engine: Engine) -> None:
    """Remove what a doctor left that was killed."""
    for left in engine.list({}):
        doctor = left.labels.get(LABEL_PROBE)
        if doctor is not None and not Path(f"/proc/{doctor}").exists():
            engine.remove(left.id)
