"""The walk of an upgrade: wave after wave, then the switch of the pool; everything that happens between start and end.

A tenant that moved is held to the new image until the whole pool has switched; the pool switches when nobody runs
another image any more. All of it may be repeated from the journal, wherever it was left.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from claw_runtime.concurrency import together
from claw_runtime.errors import ClawError, ImageMissing, UpgradeFailed
from claw_runtime.ports import UpgradeRow, UpgradeStore
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants.tenants import Host, Tenants
from claw_runtime.upgrades import plan
from claw_runtime.upgrades.migration import MIDDLE, Migration

log = structlog.get_logger(__name__)

_FAILED = ("returning", "returned")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """Walks of all pools of this host.

    Attributes:
        go_on: Whether the upgrade of a pool is to take its next step.
        parallel: Tenants that move, or end at rest, at the same time, at most.
    """

    host: Host
    tenants: Tenants
    store: UpgradeStore
    migration: Migration
    go_on: Callable[[str], bool]
    parallel: int

    def go(self, upgrade: UpgradeRow) -> None:
        """Continue until the pool has switched, or until the upgrade is to stop.

        Raises:
            UpgradeFailed: A tenant did not come up with the new image, or the image's name moved.
        """
        pool, switched = upgrade.pool, False
        self.host.engine.map_image(upgrade.image)
        self._end_rests(pool)
        while self.go_on(pool):
            if wave := self._next_wave(upgrade):
                self._walk(upgrade, wave)
                self.check(upgrade)
            elif not switched:
                self._switch(upgrade)
                switched = True
            else:
                self._finish(upgrade)
                return

    def _next_wave(self, upgrade: UpgradeRow) -> list[TenantId]:
        """Tenants that wait; without any, those who were claimed meanwhile and run another image."""
        moves = self.store.moves(upgrade.pool)
        if not any(move.state == "waiting" for move in moves):
            running = plan.runs(self.host, upgrade.pool)
            late = [row.id for row, found in running if found.image_id != upgrade.image]
            first = max((move.wave + 1 for move in moves), default=0)
            for number, wave in enumerate(plan.in_waves(late, upgrade.batch, done=max(0, first - 1)), first):
                self.store.plan(upgrade.pool, number, wave)
            moves = self.store.moves(upgrade.pool)
        waiting = [move for move in moves if move.state == "waiting"]
        return [move.tenant for move in waiting if move.wave == waiting[0].wave]

    def _walk(self, upgrade: UpgradeRow, wave: Sequence[TenantId]) -> None:
        """Move the tenants of a wave; once one has failed no other begins, and those that have begun come to an end."""

        pending, failed = deque(wave), set[TenantId]()

        def go() -> None:
            while pending and not failed and self.go_on(upgrade.pool):
                try:
                    tenant = pending.popleft()
                except IndexError:  # another thread was quicker
                    return
                try:
                    self.migration.forward(upgrade, tenant, lambda: self.go_on(upgrade.pool))
                except ClawError as error:
                    log.warning("tenant is down", tenant=tenant, pool=upgrade.pool, why=str(error), hint=error.hint)
                if self.store.move(upgrade.pool, tenant).state in _FAILED:
                    failed.add(tenant)

        together(min(self.parallel, len(wave)), go)

    def check(self, upgrade: UpgradeRow) -> None:
        """Raises `UpgradeFailed` when a tenant did not come up with the new image."""
        failed = [move for move in self.store.moves(upgrade.pool) if move.state in _FAILED]
        if not failed:
            return
        move, pool = failed[0], upgrade.pool
        others = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        down = [move.tenant for move in failed if move.state == "returning"]
        up = (
            f"not running yet, retried every 30 s: {', '.join(down)}"
            if down
            else f"{move.tenant} runs again with its earlier image and state"
        )
        raise UpgradeFailed(
            f"the upgrade of pool {pool!r} to {upgrade.reference} stopped at tenant {move.tenant!r}{others}",
            why=move.error,
            hint=f"{up}; its log files are in {self.host.layout.logs(move.tenant)}. "
            f"claw-runtime upgrade {pool} --resume retries, --image REF starts over with another image, "
            "--abort ends the upgrade",
        )

    def _end_rests(self, pool: str) -> None:
        """Commit and end what rests, beside each other, since a frozen program of the old image may stop slowly."""
        pending = deque(row.id for row in self.host.ledger.tenants("frozen", "parked", pool=pool))

        def go() -> None:
            while pending:
                try:
                    tenant = pending.popleft()
                except IndexError:  # another thread was quicker
                    return
                try:
                    self.tenants.release(tenant, affinity=False)
                except ClawError as error:  # a claim is quicker, or the store is away: the claim ends it then
                    log.info("tenant at rest was not ended", tenant=tenant, why=str(error))

        together(min(self.parallel, len(pending)), go)

    def _switch(self, upgrade: UpgradeRow) -> None:
        """From here on the pool's slots are made from the new image; the reconciler replaces those that wait."""
        pool, reference = upgrade.pool, upgrade.reference
        try:
            named = self.host.engine.image(reference).id
        except ImageMissing:
            named = "gone"
        if named != upgrade.image:
            raise UpgradeFailed(
                f"the name {reference} was moved to another image during the upgrade",
                why=f"it was {upgrade.image[:12]} and is {named[:12]} now",
                hint="start again with the image that it names now; tenants that were moved run the earlier one",
            )
        self.store.note(pool, self.host.clock.now(), switched=1)
        in_file = self.host.pools.document(pool).workload.image
        self.host.pools.set_image(pool, None if in_file == reference else reference)
        log.info("pool switched", pool=pool, image=reference)

    def _finish(self, upgrade: UpgradeRow) -> None:
        """The pool has the image: no tenant needs to keep it as its own any more."""
        self._end_rests(upgrade.pool)
        for row in self.host.ledger.tenants(pool=upgrade.pool):
            if row.image:
                self.host.ledger.note(row.id, image="")
        self.store.note(upgrade.pool, self.host.clock.now(), state="done", error="", hint="")
        moved = sum(move.state == "done" for move in self.store.moves(upgrade.pool))
        log.info("upgrade is done", pool=upgrade.pool, image=upgrade.reference, tenants=moved)
        self.host.observer.record("upgrade-done", pool=upgrade.pool, image=upgrade.reference, tenants=moved)

    # --- after a crash, and at an abort ---

    def bring_home(self, upgrade: UpgradeRow, *, why: str = "") -> None:
        """Bring the moves that are under way to an end.

        Args:
            why: Bring all of them back, for this reason; else those that are on trial are watched to the end.

        Raises:
            UpgradeFailed: One came back, or is not up yet.
            ClawError: At an abort: one is not up yet.
        """
        middle = [move for move in self.store.moves(upgrade.pool) if move.state in MIDDLE]
        last: ClawError | None = None
        for move in middle:
            try:
                self.migration.bring_home(upgrade, move.tenant, lambda: self.go_on(upgrade.pool), why=why)
            except ClawError as error:
                last = error
        if middle and not why:
            self.check(upgrade)
        if last:
            raise last
