"""The slots of one pool, and which of them this process is working on.

The lock is held for looks and announcements only, never while the engine works: a slot that is announced takes its
place of `max_size`, so several may be made at once, and no pool waits for another.
"""

import threading
from collections.abc import Callable, Sequence

from claw_runtime.pools.slots import Slots
from claw_runtime.pools.templates import SlotTemplate
from claw_runtime.pools.wait_queue import WaitQueue
from claw_runtime.ports import TIERS, Ledger, SlotRow, Tier
from claw_runtime.tenancy import TenantId

Choice = Callable[[Sequence[SlotRow]], Tier | None]


class Inventory:
    """One pool's slots. `line` is notified whenever a slot is ready or gone."""

    def __init__(self, pool: str, slots: Slots, ledger: Ledger) -> None:
        self.pool = pool
        self.queue = WaitQueue()
        self._slots = slots
        self._ledger = ledger
        self._lock = threading.Lock()
        self._working: dict[str, bool] = {}

    def rows(self) -> Sequence[SlotRow]:
        """The pool's slots, oldest first."""
        return self._ledger.slots(self.pool)

    def coming(self) -> bool:
        """Whether a slot that any claim may take, or a place for one, is on its way right now."""
        with self._lock:
            return any(self._working.values())

    def make(self, template: SlotTemplate, choose: Choice, tenant: TenantId | None = None) -> SlotRow | None:
        """Make the slot that `choose` wants in view of those that there are; None when it wants none.

        Args:
            tenant: The slot is this one's at once.

        Raises:
            ClawError, OSError: It could not be made (`Slots.make`); `facts["tier"]` tells which tier it was.
        """
        with self._lock:
            tier = choose(self.rows())
            if tier is None:
                return None
            slot = self._slots.announce(template, tier)
            self._working[slot] = tenant is None
        try:
            return self._slots.make(slot, template, tier, tenant)
        finally:
            self._done(slot)

    def retire(self, slot: str) -> bool:
        """Destroy a slot that no tenant has; False if a tenant has it, it is gone, or it is being worked on.

        A claim that was first keeps it. One that is `filling` and that nobody works on was left behind by an error.
        """
        with self._lock:
            row = self._ledger.slot(slot)
            if row is None or row.state == "claimed" or slot in self._working:
                return False
            if row.state == "ready" and not self._ledger.retire_slot(slot):
                return False
            self._working[slot] = True
        try:
            self._slots.destroy(slot)
        finally:
            self._done(slot)
        return True

    def retire_other(self, template: str) -> bool:
        """Destroy one slot, the coldest, that waits for nobody or was left behind, and is not of this template."""
        rows = [row for row in self.rows() if row.state == "filling" or row.template != template]
        return any(self.retire(row.id) for row in sorted(rows, key=lambda row: TIERS.index(row.tier)))

    def destroy(self, slot: str) -> None:
        """Destroy a slot, even a tenant's: the caller has saved its state. Safe to repeat after any crash."""
        with self._lock:
            self._working[slot] = True
        try:
            self._slots.destroy(slot)
        finally:
            self._done(slot)

    def _done(self, slot: str) -> None:
        with self._lock:
            self._working.pop(slot, None)
        self.queue.notify()
