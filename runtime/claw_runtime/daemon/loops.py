"""The background work of a daemon: one thread for the pools, and one for each kind of work that may take long."""

import threading
from collections.abc import Callable
from itertools import chain, repeat
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from claw_runtime.daemon.assembly import Runtime

log = structlog.get_logger(__name__)

RECONCILER_PAUSE = 5.0
"""Seconds between two passes over the pools when nothing happens."""

TENDING_PAUSE = 5.0
"""Seconds between two passes over tenants whose container ended, or that were at rest for long enough."""

PROBE_PAUSE = 1.0
"""Seconds between two checks for due probes."""

VIEW_PAUSE = 1.0
"""Seconds between two passes over plain views that are out of date."""

RETRY_KEPT = 30.0
"""Seconds between attempts to commit trees that are kept on this host."""

ROUTINE_PAUSE = 1.0
"""Seconds between two checks for due commits of running tenants."""

TIDY_PAUSE = 20.0
"""Seconds between two checks for due garbage collections; one tenant's at a time."""

LAST_UPLOAD = 20.0
"""Seconds that a running upload may continue when the daemon ends; an interrupted one is repeated later."""


def keep(runtime: "Runtime") -> None:
    """Run the background work of pools and tenants until `stopping`; a claim or release wakes it."""
    # Separate threads: one tenant's upload may take hours, and no pool may wait for it.
    recovery, stopping = runtime.recovery, runtime.stopping
    helpers = [
        _every(stopping, lambda: TENDING_PAUSE, "tend", recovery.supervise, recovery.expire),
        _every(stopping, lambda: RETRY_KEPT, "retry", recovery.retry),
        _every(stopping, lambda: PROBE_PAUSE, "probe", runtime.liveness.look),
        _every(stopping, lambda: runtime.settings.lease_ttl / 3, "beat", runtime.repository.heartbeats.beat),
        _every(stopping, lambda: VIEW_PAUSE, "plain-view", runtime.views.work_off),
        _every(stopping, lambda: ROUTINE_PAUSE, "commit", runtime.maintenance.commit),
        _every(stopping, lambda: TIDY_PAUSE, "collect", runtime.maintenance.collect),
        _every(stopping, chain((0.0,), repeat(RETRY_KEPT)).__next__, "upgrade", runtime.upgrades.bring_home),
    ]
    while not stopping.is_set():
        runtime.poked.clear()
        try:
            runtime.files.look()
            runtime.pools.tick()
        except Exception:
            log.exception("internal error while filling pools; retrying")
        runtime.poked.wait(RECONCILER_PAUSE)
    runtime.pools.rest()
    runtime.upgrades.stop(LAST_UPLOAD)
    for helper in helpers:
        helper.join(LAST_UPLOAD)


def _every(
    stopping: threading.Event, pause: Callable[[], float], name: str, *works: Callable[[], None]
) -> threading.Thread:
    """Repeat these functions in a thread until `stopping`."""

    def go() -> None:
        while not stopping.wait(pause()):
            for work in works:
                try:
                    work()
                except Exception:
                    log.exception("internal error in background work; retrying", work=name)

    thread = threading.Thread(target=go, name=name, daemon=True)
    thread.start()
    return thread
