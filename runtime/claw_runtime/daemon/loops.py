"""The background work of a daemon: one thread for the pools, and one for each kind of work that may take long.

What takes long for one tenant, a commit or an end, is done by the workers of `Maintenance` and `Recovery`.
"""

import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING

import structlog

from claw_runtime.errors import ClawError
from claw_runtime.operations.maintenance import DAY, remove_unfinished
from claw_runtime.ports import Engine

if TYPE_CHECKING:
    from claw_runtime.daemon.assembly import Runtime

log = structlog.get_logger(__name__)

RECONCILER_PAUSE = 5.0
"""Seconds between two passes over the pools when nothing happens."""

TENDING_PAUSE = 5.0
"""Seconds between two passes over tenants whose container ended, or that were at rest for long enough."""

SUPERVISION_PAUSE = 2.0
"""Seconds between two pings of a service that the daemon started."""

ROUTER_PAUSE = 5.0
"""Seconds between two questions whether the router answers, for the status."""

ENGINE_PAUSE = 5.0
"""Seconds between two questions whether the engine answers, for the status."""

STORE_PAUSE = 30.0
"""The same of the object store. Each is a listing of no objects, which services charge for."""

RESTART_PAUSE = 0.5
"""Seconds between two checks for tenants that the daemon claims by itself."""

PROBE_PAUSE = 1.0
"""Seconds between two checks for due probes."""

PORT_PAUSE = 3.0
"""Seconds between two looks whether something listens on the published ports of running tenants."""

VIEW_PAUSE = 1.0
"""Seconds between two passes over plain views that are out of date."""

RETRY_KEPT = 30.0
"""Seconds between attempts to commit trees that are kept on this host."""

ROUTINE_PAUSE = 1.0
"""Seconds between two checks for due commits of running tenants, at most: the next one that is due is not late."""

TIDY_PAUSE = 20.0
"""Seconds between two checks for due garbage collections; one tenant's at a time."""

REFILL_PAUSE = 60.0
"""Seconds between two checks whether the reserve of the disk can be made again."""

LAST_UPLOAD = 20.0
"""Seconds that running uploads may continue when the daemon ends; an interrupted one is repeated later."""


def keep(runtime: "Runtime", recover: Callable[[], None] = lambda: None) -> None:
    """Run the background work of pools and tenants until `stopping`; a claim or release wakes it.

    Args:
        recover: Done first, beside what must not wait for it: without heartbeats, other runtimes take the tenants.
    """
    # Separate threads: one tenant's upload may take hours, and no pool may wait for it.
    recovery, stopping = runtime.recovery, runtime.stopping
    helpers = [
        _every(stopping, chain((0.0,), repeat(REFILL_PAUSE)).__next__, "reserve", runtime.reserve.refill),
        _every(stopping, lambda: SUPERVISION_PAUSE, "engine", partial(supervise, runtime.engine)),
        _every(stopping, chain((0.0,), repeat(SUPERVISION_PAUSE)).__next__, "router", runtime.router.supervise),
        _every(stopping, lambda: ROUTER_PAUSE, "router-ping", partial(runtime.services.look, "router")),
        _every(stopping, lambda: ENGINE_PAUSE, "engine-ping", partial(runtime.services.look, "engine")),
        _every(stopping, lambda: STORE_PAUSE, "store-ping", partial(runtime.services.look, "store")),
        _every(stopping, lambda: runtime.settings.lease_ttl / 3, "beat", runtime.repository.heartbeats.beat),
    ]
    helpers += runtime.ingress.run(stopping)
    recover()
    runtime.liveness.probe_all()
    helpers += [
        _every(stopping, lambda: TENDING_PAUSE, "tend", recovery.supervise, recovery.expire),
        _every(stopping, lambda: RETRY_KEPT, "retry", recovery.retry),
        _every(stopping, lambda: RESTART_PAUSE, "restart", runtime.restarts.look),
        _every(stopping, lambda: PROBE_PAUSE, "probe", runtime.liveness.look),
        _every(stopping, chain((0.0,), repeat(PORT_PAUSE)).__next__, "port", runtime.port_watch.look),
        _every(stopping, lambda: VIEW_PAUSE, "plain-view", runtime.views.work_off),
        _every(stopping, lambda: runtime.maintenance.until_commit(ROUTINE_PAUSE), "commit", runtime.maintenance.commit),
        _every(stopping, lambda: TIDY_PAUSE, "collect", runtime.maintenance.collect),
        _every(stopping, chain((0.0,), repeat(DAY)).__next__, "unfinished", partial(remove_unfinished, runtime.store)),
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
    _end(runtime, helpers)


def supervise(engine: Engine) -> None:
    """Look after the engine's service. If a new one does not start either, the next look tries again."""
    try:
        engine.supervise()
    except ClawError as error:
        log.warning("podman's service hung, and a new one did not start", why=error.why, hint=error.hint)


def _end(runtime: "Runtime", helpers: "list[threading.Thread]") -> None:
    """Let what runs come to its end, all of it within the same seconds."""
    deadline = time.monotonic() + LAST_UPLOAD

    def left() -> float:
        return max(0.0, deadline - time.monotonic())

    wakes = runtime.ingress.wakes
    working = (
        runtime.maintenance.workers,
        runtime.recovery.workers,
        runtime.restarts.workers,
        wakes.thaws,
        wakes.claims,
    )
    for workers in working:
        workers.stop(0.0)  # what waits for a thread does not begin
    runtime.recovery.end_pauses(left())
    runtime.upgrades.stop(left())
    ended = [workers.stop(left()) for workers in working]
    for helper in helpers:
        helper.join(left())
    if not all(ended):
        log.info("the daemon ends during a commit or claim; it is repeated after the next start")


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
