"""The router as the daemon sees it: gets the table at each change, holds tenants' requests, and reports activity."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import structlog

from claw_runtime.ingress.activity import Activity, Reports
from claw_runtime.ingress.conversation import Conversation
from claw_runtime.ingress.routes import Routes
from claw_runtime.ports import Clock
from claw_runtime.tenancy import TenantId

log = structlog.get_logger(__name__)

PAUSE: Final = 0.5
"""Seconds between two attempts to reach the router."""

ANSWER: Final = 2.0
"""Seconds in which the router answers a question; after that it is taken for dead."""

DRAIN: Final = 10.0
"""Seconds that requests under way may take to end before the tenant's container does."""

POLL: Final = 0.05
"""Seconds between two looks whether they have ended."""


class RouterLink:
    """One router, or none: then nothing is held, and all tenants count as active. Threads may share it."""

    def __init__(self, conversation: Conversation, routes: Routes, clock: Clock) -> None:
        self._conversation, self._routes, self._clock = conversation, routes, clock
        self._reports = Reports(clock)
        self._pushing = threading.Lock()
        self._asking = threading.Lock()
        self._asked = 0
        self._pushed = ""
        self.changed = threading.Event()

    # --- the conversation ---

    @property
    def is_connected(self) -> bool:
        """Whether a router is there."""
        return self._conversation.is_connected

    def run(self, stopping: threading.Event, hear: Callable[[Mapping[str, Any]], None]) -> None:
        """Talk with the router until `stopping`.

        Args:
            hear: Gets what is neither a report nor an answer, such as a tenant to wake; it must not wait.
        """

        def began() -> None:
            with self._asking:
                self._reports.began()
                self._asked = 0
            with self._pushing:
                self._pushed = ""
            self.push()
            self._ask()
            log.info("the router is there")

        def heard(said: Mapping[str, Any]) -> None:
            if "activity" in said:
                self._reports.hear(said["activity"], said.get("counters", {}))
            else:
                hear(said)

        while not stopping.is_set():
            try:
                self._conversation.talk(stopping, began, heard)
            except Exception:
                log.exception("internal error in the conversation with the router; it begins again")
            self._reports.ended()
            stopping.wait(PAUSE)

    def close(self) -> None:
        """End the conversation."""
        self._conversation.close()

    def push(self) -> None:
        """Give the router the table, if it changed."""
        if not self.is_connected:
            return
        with self._pushing:  # the newer table is the later line
            table = self._routes.table()
            text = json.dumps(table, separators=(",", ":"), sort_keys=True)
            if text != self._pushed and self._conversation.say({"table": table}):
                self._pushed = text

    def failed(self, tenant: TenantId, why: str, again: float) -> None:
        """Tell the router that the tenant did not wake, and in how many seconds the next attempt may begin."""
        self._conversation.say({"failed": {"tenant": tenant, "why": why, "again": again}})

    # --- activity ---

    def refresh(self, timeout: float = ANSWER) -> bool:
        """Ask for a report and wait for it; False without a router.

        The router answers in order: it has everything that was sent before.
        """
        count = self._ask()
        return count is not None and self._reports.wait(count, timeout)

    def ask(self) -> None:
        """Ask for a report, which comes later."""
        self._ask()

    def _ask(self) -> int | None:
        with self._asking:
            if not self._conversation.say({"activity": True}):
                return None
            self._asked += 1
            return self._asked

    def activity(self, tenant: str) -> Activity:
        """The tenant's clients, as of the last report."""
        return self._reports.of(tenant)

    def counters(self) -> Mapping[str, Any]:
        """What the router counted since its start, of all tenants together, as of the last report."""
        return self._reports.counters

    # --- fences ---

    def is_fenced(self, tenant: str) -> bool:
        """Whether an operation on the tenant holds its requests."""
        return self._routes.is_fenced(tenant)

    @contextmanager
    def fenced(self, tenant: TenantId) -> Iterator[None]:
        """As `ports.Fence`."""
        nested = self._routes.is_fenced(tenant)
        self._routes.fence(tenant)
        try:
            if not nested:
                self._quiet(tenant)
            yield
        finally:
            self._routes.unfence(tenant)
            self.changed.set()

    def _quiet(self, tenant: TenantId) -> None:
        """Wait until the router holds the tenant's requests and those under way have ended, or had their time."""
        if not self.is_connected:
            return
        deadline = self._clock.monotonic() + DRAIN
        self.push()
        while self.refresh() and self.activity(tenant).requests:
            if self._clock.monotonic() >= deadline:
                log.info("requests are still under way", tenant=tenant, requests=self.activity(tenant).requests)
                return
            self._clock.sleep(POLL)
