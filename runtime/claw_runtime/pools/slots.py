"""Slots: making one, starting the one that a tenant was given, and destroying it.

A slot is a container that was made ahead: created and initialised (tier `created`, about 4 MB, no code of the image has
run), or running with one process that waits at its start gate (`entrypoint`, `interpreter`, `prewarmed`). No byte of a
tenant is in it before its one claim. It is used once, by one tenant, and destroyed.
"""

import secrets
import threading

import structlog

from claw_runtime.errors import EngineFailed, NotClaimed, NotReady, PortTaken
from claw_runtime.pools import start_gate
from claw_runtime.pools.templates import SlotTemplate, SlotTemplates
from claw_runtime.ports import Clock, Container, Engine, Ledger, SlotRow, Tier
from claw_runtime.safefs.removal import remove_tree
from claw_runtime.spec.plan import Workload
from claw_runtime.tenancy import Layout, TenantId, container_name

log = structlog.get_logger(__name__)

PORT_ATTEMPTS = 3
"""A free port is chosen when a container is created and bound when it is initialised: it may be lost in between."""

FIRST_PAUSE, LAST_PAUSE = 0.005, 0.1
"""Seconds between two looks whether a process waits at a start gate."""

INSPECT_EVERY = 0.5
"""Seconds between two questions whether a container runs whose process is not at its start gate yet."""

LOOKS_FOR_WORDS = 3
"""A log may still be on its way when its container has ended: it was empty once in about ten times on a busy host. Of a
process that ends at once, conmon 2.1.6 sometimes never writes one (also not within 2 s)."""


class Slots:
    """Slots of all pools, one at a time."""

    def __init__(
        self, *, engine: Engine, ledger: Ledger, layout: Layout, clock: Clock, templates: SlotTemplates
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._layout = layout
        self._clock = clock
        self._templates = templates
        self._watched: dict[str, Container] = {}
        self.stopping = threading.Event()

    def announce(self, template: SlotTemplate, tier: Tier) -> str:
        """Write a new slot to the ledger, before anything of it exists; its id."""
        slot = secrets.token_hex(6)
        self._ledger.add_slot(slot, template.workload.id, template.digest, self._clock.now(), tier)
        return slot

    def make(self, slot: str, template: SlotTemplate, tier: Tier, tenant: TenantId | None = None) -> SlotRow:
        """Make an announced slot, and leave nothing of it when that fails.

        Args:
            tenant: Give it to this tenant, and to no other claim; without one it is ready for any.

        Raises:
            ImageMissing, EngineFailed, EngineUnavailable, OSError: It cannot be made.
            NotReady: Its process was not ready to be claimed within the workload's `ready_timeout`.
        """
        try:
            self._make_directories(slot, template.workload, tier)
            container = self._prepare(slot, template, tier)
            seen = self._engine.inspect(container)
            self._note(slot, seen)
            if tier != "created":
                self._engine.start(container)
                self._await_process(slot, container, template.workload.ready_timeout)
            return self._ledger.slot_ready(slot, container, seen.host_port if seen else None, tenant)
        except Exception:
            self.destroy(slot)
            raise

    def _make_directories(self, slot: str, workload: Workload, tier: Tier) -> None:
        dirs = self._layout.slot(slot)
        inner = [dirs.state / mount.subdirectory for mount in workload.extra_mounts]
        for directory in (dirs.state, dirs.logs, dirs.values, *inner):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if tier != "created":
            start_gate.make(dirs.values)

    def _prepare(self, slot: str, template: SlotTemplate, tier: Tier) -> str:
        """The id of the slot's container, created and initialised."""
        spec = self._templates.container(template, slot, tier)
        for attempt in range(PORT_ATTEMPTS):
            container = self._engine.create(spec)
            try:
                self._engine.initialize(container)
            except PortTaken:
                self._engine.remove(container)
                if attempt == PORT_ATTEMPTS - 1:
                    raise
            else:
                return container
        raise AssertionError("unreachable")

    def _await_process(self, slot: str, container: str, timeout: float) -> None:
        start, pause, looked = self._clock.monotonic(), FIRST_PAUSE, 0.0
        while not self.waits(slot):
            now = self._clock.monotonic() - start
            if self.stopping.is_set():
                raise EngineFailed(
                    "the slot was not created", why="the daemon is stopping", hint="start the daemon again"
                )
            if now - looked >= INSPECT_EVERY or now >= timeout:
                looked = now
                self._still_runs(container)
            if now >= timeout:
                raise NotReady(
                    f"the slot's process was not ready to be claimed within {timeout:.0f} s",
                    why=self.last_words(container),
                    hint="set a longer healthcheck.ready_timeout, or use an image whose entrypoint supports --park",
                )
            self._clock.sleep(pause)
            pause = min(pause * 1.5, LAST_PAUSE)

    def _still_runs(self, container: str) -> None:
        seen = self._engine.inspect(container)
        if seen is None or seen.state != "running":
            code = "" if seen is None or seen.exit_code is None else f" with exit code {seen.exit_code}"
            raise EngineFailed(
                f"the slot's process ended{code} before it was ready to be claimed",
                why=self.last_words(container) if seen else "its container is gone",
                hint="use an image whose entrypoint supports --park, or leave that tier out of pool.warmth",
            )

    def last_words(self, container: str) -> str:
        """The last lines of a container's log, in words for an error."""
        for _ in range(LOOKS_FOR_WORDS):
            try:
                lines = self._engine.logs(container, tail=5).decode("utf-8", "replace").strip()
            except (EngineFailed, NotClaimed):
                return "its container is gone"
            if lines:
                return f"last output: {lines}"
            self._clock.sleep(LAST_PAUSE)
        return "it printed nothing"

    def waits(self, slot: str) -> bool:
        """Whether a process waits at the slot's start gate."""
        return start_gate.waits(self._layout.slot(slot).values)

    def is_waiting(self, row: SlotRow, found: Container | None) -> bool:
        """Whether a slot, whose container the engine has just shown, waits as its tier says, and can be claimed."""
        state = "initialized" if row.tier == "created" else "running"
        if found is None or found.state != state or not (row.tier == "created" or self.waits(row.id)):
            return False
        self._note(row.id, found)
        return self._engine.is_watched(found) is not False

    def still_waits(self, row: SlotRow) -> bool:
        """Whether a slot that waited still does, as far as that shows without asking the engine."""
        if row.tier != "created" and not self.waits(row.id):
            return False
        seen = self._watched.get(row.id)
        return seen is None or self._engine.is_watched(seen) is True

    def _note(self, slot: str, found: Container | None) -> None:
        """Remember a container whose process and monitor can be seen now: a later look tells whether they ended."""
        if found is not None and self._engine.is_watched(found):
            self._watched[slot] = found

    def start(self, slot: SlotRow) -> None:
        """Start the slot for its tenant: its container, or the process that waits at its start gate.

        Raises:
            EngineFailed: No process waits any more, or the engine refused.
            NotClaimed: The container is gone.
        """
        if slot.tier == "created":
            self._engine.start(slot.container or "")
        else:
            start_gate.open_gate(self._layout.slot(slot.id).values)

    def destroy(self, slot: str) -> None:
        """Remove a slot's container, then its directories, then its row: safe to repeat after any crash."""
        row = self._ledger.slot(slot)
        name = (row.container if row else None) or (container_name(row.pool, slot) if row else None)
        if name:
            self._engine.remove(name)
        remove_tree(self._layout.slot_root(slot))
        remove_tree(self._layout.slot(slot).values)
        self._watched.pop(slot, None)
        self._ledger.drop_slot(slot)
