"""Whether the engine and the object store answer, as of a look some seconds ago: no request waits for them."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from claw_runtime.errors import ClawError
from claw_runtime.ports import Clock

log = structlog.get_logger(__name__)

WITHIN = 5.0
"""Seconds after which a look that has not ended counts as no answer."""


@dataclass(slots=True)
class _Service:
    look: Callable[[], object]
    began: float | None = None
    why: str = ""


class Services:
    """What this daemon depends on.

    Args:
        looks: By name; each raises `ClawError` when its service does not answer, and may also never return.
    """

    def __init__(self, clock: Clock, looks: Mapping[str, Callable[[], object]]) -> None:
        self._clock = clock
        self._services = {name: _Service(look) for name, look in looks.items()}
        self._lock = threading.Lock()

    def look(self, name: str) -> None:
        """Ask one service; only one thread at a time does so for each."""
        service = self._services[name]
        with self._lock:
            service.began = self._clock.monotonic()
        why = ""
        try:
            service.look()
        except ClawError as error:
            why = error.why or error.brief
        except Exception as error:  # noqa: BLE001 - the status must show it
            why = repr(error)
        with self._lock:
            changed, service.why, service.began = bool(why) != bool(service.why), why, None
        if changed:
            (log.warning if why else log.info)("a service changed", service=name, answers=not why, why=why)

    def silent(self) -> Mapping[str, str]:
        """Names of the services that do not answer, with the reason."""
        with self._lock:
            now = self._clock.monotonic()
            late = {
                name: f"no answer for {now - service.began:.0f} s"
                for name, service in self._services.items()
                if service.began is not None and now - service.began > WITHIN
            }
            return {name: service.why for name, service in self._services.items() if service.why} | late
