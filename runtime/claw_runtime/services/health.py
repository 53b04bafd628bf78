"""When a workload is ready: its own probe, read by the policy of its contract.

Podman's health checks need systemd, and an exec costs 40 ms where an HTTP request costs 1 (measured).
"""

import json
from collections.abc import Callable, Collection

from claw_runtime.errors import NotReady
from claw_runtime.ports import Clock, Prober
from claw_runtime.spec.plan import Workload
from claw_runtime.units import format_duration

PROBE_TIMEOUT = 2.0
"""Seconds that one answer may take."""

FIRST_PAUSE, LAST_PAUSE = 0.01, 0.1
"""Seconds between two probes: short at first, for workloads that start in milliseconds."""


def is_ready(status: int, body: bytes, ignore_failing: Collection[str]) -> bool:
    """Whether an answer means ready: 200, or 503 whose JSON `failing` names only what the contract lets fail.

    OpenClaw 2026.6.11 answers 503 for ever while WhatsApp is enabled and not linked (measured).
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
    port: int | None,
    prober: Prober,
    clock: Clock,
    *,
    bearer: str | None,
    ended: Callable[[], str | None],
    hint: str,
) -> None:
    """Wait until the workload on this loopback port is ready; at once when it publishes none.

    Args:
        bearer: Token of the probe, or None.
        ended: None while the container runs, else how it ended.
        hint: Where its log is, for the error.

    Raises:
        NotReady: The container ended, or `workload.ready_timeout` seconds passed.
    """
    if port is None:
        return
    deadline = clock.monotonic() + workload.ready_timeout
    pause, last = FIRST_PAUSE, "nothing answered"
    while True:
        answer = prober.get(port, workload.ready_path, PROBE_TIMEOUT, bearer)
        if answer is not None:
            if is_ready(*answer, workload.ignore_failing):
                return
            last = f"it answered {answer[0]} {answer[1][:200].decode('utf-8', 'replace')}"
        if how := ended():
            raise NotReady(f"{workload.id} ended before it was ready", why=how, hint=hint)
        if clock.monotonic() >= deadline:
            raise NotReady(
                f"{workload.id} was not ready after {format_duration(workload.ready_timeout)}",
                why=f"{workload.ready_path}: {last}",
                hint=f"{hint}; the time allowed is healthcheck.timeout of the workload, or its contract's",
            )
        clock.sleep(pause)
        pause = min(LAST_PAUSE, pause * 1.5)
