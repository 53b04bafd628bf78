"""When a workload is ready: the answer of its probe, judged by its contract.

Podman's health checks need systemd, and an exec costs 40 ms where an HTTP request costs 1 (measured).
"""

import json
from collections.abc import Callable, Collection

from claw_runtime.errors import EngineFailed, EngineUnavailable, NotClaimed, NotReady
from claw_runtime.logs import mask
from claw_runtime.ports import Clock, Container, Engine, Prober, SlotRow
from claw_runtime.spec.plan import Workload
from claw_runtime.units import format_duration

PROBE_TIMEOUT = 2.0
"""Seconds that one answer may take."""

SILENCE = "nothing answered"

OUT_OF_MEMORY = "out of memory: the kernel killed it at its memory limit"
"""How a program ended that needed more than `deploy.resources.limits.memory`."""

FIRST_PAUSE, LAST_PAUSE = 0.01, 0.1
"""Seconds between two probes: short at first, for workloads that start in milliseconds."""

COMMAND_PAUSE = 0.25
"""Likewise between two commands, which cost 40 ms each."""


def is_ready(status: int, body: bytes, ignore_failing: Collection[str]) -> bool:
    """Whether an answer means ready: 200, or 503 whose JSON `failing` names only what the contract lets fail.

    OpenClaw 2026.6.11 keeps answering 503 while WhatsApp is enabled and not linked (measured).
    """
    if status == 200:
        return True
    if status != 503 or not ignore_failing:
        return False
    try:
        failing = json.loads(body).get("failing")
    except (ValueError, AttributeError):
        return False
    return isinstance(failing, list) and bool(failing) and set(map(str, failing)) <= set(ignore_failing)


def wait_ready(
    workload: Workload,
    slot: SlotRow,
    engine: Engine,
    prober: Prober,
    clock: Clock,
    *,
    bearer: str | None,
    ended: Callable[[], str | None],
    hint: str,
) -> None:
    """Wait until the workload in this slot is ready; return at once when it has no probe.

    An engine that does not answer ends no wait: the probe does not need it, and a service that hangs is replaced.

    Args:
        bearer: Token of the HTTP probe, or None.
        ended: None while the container runs, else how it ended.
        hint: Where its log is, for the error's hint.

    Raises:
        NotReady: The container ended, or `workload.ready_timeout` seconds passed.
        EngineUnavailable: The time is over, and the engine did not answer at the last look.
    """
    ask = probe_of(workload, slot, engine, prober, bearer)
    if ask is None:
        return
    deadline = clock.monotonic() + workload.ready_timeout
    pause = COMMAND_PAUSE if workload.probe_command else FIRST_PAUSE
    last = SILENCE
    while (missing := ask()) is not None:
        last = last if missing == SILENCE else missing  # after a bad answer, no answer explains less
        how, unanswered = _look(ended)
        if how:
            if how.startswith(OUT_OF_MEMORY):
                hint = f"raise deploy.resources.limits.memory of the workload; {hint}"
            raise NotReady(f"{workload.id} ended before it was ready", why=how, hint=hint)
        if clock.monotonic() >= deadline:
            if unanswered:
                raise unanswered
            raise NotReady(
                f"{workload.id} was not ready after {format_duration(workload.ready_timeout)}",
                why=last,
                hint=f"{hint}; healthcheck.ready_timeout of the workload or its contract sets the time allowed",
            )
        clock.sleep(pause)
        pause = max(pause, min(LAST_PAUSE, pause * 1.5))


def _look(ended: Callable[[], str | None]) -> tuple[str | None, EngineUnavailable | None]:
    """How the container ended, if it did; and the error of an engine that did not answer."""
    try:
        return ended(), None
    except EngineUnavailable as error:
        return None, error


Probe = Callable[[], str | None]
"""None when the workload is ready, else what is missing."""


def probe_of(
    workload: Workload,
    slot: SlotRow,
    engine: Engine,
    prober: Prober,
    bearer: str | None,
    *,
    timeout: float = PROBE_TIMEOUT,
) -> Probe | None:
    """The probe of a slot's workload; None when it has no probe command and publishes no port.

    Args:
        timeout: Seconds that an HTTP answer may take; a command has the time that the workload file gives it.
    """
    if workload.probe_command:
        return lambda: _by_command(workload, slot, engine)
    return (lambda: _by_http(workload, slot.port, prober, bearer, timeout)) if slot.port else None


def _by_http(workload: Workload, port: int | None, prober: Prober, bearer: str | None, timeout: float) -> str | None:
    answer = prober.get(port or 0, workload.ready_path, timeout, bearer)
    if answer is None:
        return SILENCE
    if is_ready(*answer, workload.ignore_failing):
        return None
    return f"{workload.ready_path}: it answered {answer[0]} {answer[1][:200].decode('utf-8', 'replace')}"


def _by_command(workload: Workload, slot: SlotRow, engine: Engine) -> str | None:
    command = workload.probe_command or ()
    try:
        done = engine.execute(slot.container or "", command, timeout=workload.probe.timeout)
    except (EngineFailed, NotClaimed) as error:  # it may be starting, or gone: `ended` tells
        return f"{command[0]}: {error}"
    if done.exit_code == 0:
        return None
    said = (done.stderr or done.stdout)[-200:].decode("utf-8", "replace").strip()
    return f"{command[0]}: exit code {done.exit_code}" + (f", {said}" if said else "")


def how_it_ended(engine: Engine, found: Container | None) -> str | None:
    """None while a container runs or may run; else its exit code and last output."""
    if found is None:
        return "its container is gone"
    if found.state in ("running", "paused", "initialized", "created"):
        return None
    tail = engine.logs(found.id, tail=5).decode("utf-8", "replace").strip()
    how = f"{OUT_OF_MEMORY}, exit code {found.exit_code}" if found.oom_killed else f"exit code {found.exit_code}"
    return how + (f"; last output: {mask(tail)}" if tail else "")
