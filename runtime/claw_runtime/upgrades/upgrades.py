"""Upgrades: all tenants of a pool to another image, one first, then in waves, and back at the first sign of trouble.

Tenants without a container meet the new image at their next claim (tenants/trials.py). Tenants that a killed daemon
left in mid-upgrade are brought up by the next one; the upgrade itself waits until an operator resumes it.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from claw_runtime.errors import ClawError, Conflict, StateMissing, UpgradeFailed
from claw_runtime.ports import MoveRow, Prober, UpgradeRow, UpgradeStore
from claw_runtime.tenants.tenants import Host, Tenants
from claw_runtime.upgrades import plan as waves
from claw_runtime.upgrades.migration import Migration
from claw_runtime.upgrades.plan import Plan
from claw_runtime.upgrades.rollout import Rollout

log = structlog.get_logger(__name__)

PARALLEL = 4
"""Tenants that move at the same time, at most."""

SOAK = 10.0
"""Seconds that a tenant is watched, by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeProgress:
    """How far an upgrade has come."""

    upgrade: UpgradeRow
    moves: Sequence[MoveRow]


class Upgrades:
    """Upgrades of all pools of this host; of one pool, one at a time.

    Args:
        parallel: Tenants that move at the same time.
    """

    def __init__(
        self, host: Host, *, tenants: Tenants, store: UpgradeStore, prober: Prober, parallel: int = PARALLEL
    ) -> None:
        self._host = host
        self._pools, self._clock, self._observer = host.pools, host.clock, host.observer
        self._store = store
        self._rollout = Rollout(
            host=host,
            tenants=tenants,
            store=store,
            migration=Migration(host=host, tenants=tenants, store=store, prober=prober),
            go_on=self._go_on,
            parallel=parallel,
        )
        self._lock = threading.Lock()
        self._working: dict[str, threading.Lock] = {}
        self._threads: list[threading.Thread] = []
        self._aborting: set[str] = set()
        self._stopping = threading.Event()

    # --- what an operator asks for ---

    def plan(self, pool: str, reference: str, *, canary: str | None = None, batch: int = 0, soak: float = SOAK) -> Plan:
        """What an upgrade would do. Raises as `waves.make`."""
        return waves.make(self._host, pool, reference, canary=canary, batch=batch, soak=soak)

    def begin(
        self, pool: str, reference: str, *, canary: str | None = None, batch: int = 0, soak: float = SOAK
    ) -> UpgradeProgress:
        """Plan an upgrade and write it down; `run` does it.

        Raises:
            Conflict: Another upgrade of the pool is not over; or as `plan`, as are all others.
        """
        plan = self.plan(pool, reference, canary=canary, batch=batch, soak=soak)
        with self._lock:
            last = self._store.upgrade(pool)
            if last and last.state in ("running", "paused", "aborting"):
                raise Conflict(
                    f"pool {pool!r} is already being upgraded",
                    why=f"its upgrade to {last.reference} is {last.state}",
                    hint=f"claw-runtime upgrade {pool} --resume continues it, --abort ends it",
                )
            now = self._clock.now()
            self._store.begin(
                UpgradeRow(
                    pool=pool,
                    reference=reference,
                    image=plan.image,
                    canary=plan.canary,
                    batch=batch,
                    soak=soak,
                    begun=now,
                    changed=now,
                ),
                plan.waves,
            )
        log.info("upgrade began", pool=pool, image=reference, canary=plan.canary, tenants=sum(map(len, plan.waves)))
        self._observer.record("upgrade-began", pool=pool, image=reference, canary=plan.canary)
        return self.progress(pool)

    def start(
        self, pool: str, reference: str, *, canary: str | None = None, batch: int = 0, soak: float = SOAK
    ) -> UpgradeProgress:
        """`begin`, and `run` in a thread. Raises as `begin`."""
        self.begin(pool, reference, canary=canary, batch=batch, soak=soak)
        self._spawn(pool)
        return self.progress(pool)

    def resume(self, pool: str) -> UpgradeProgress:
        """Go on with an upgrade that was stopped, in a thread; tenants that came back try once more.

        Raises:
            StateMissing: There is none.
            Conflict: It is over.
        """
        self.reopen(pool)
        self._spawn(pool)
        return self.progress(pool)

    def reopen(self, pool: str) -> None:
        """Make a stopped upgrade ready to `run` again. Raises as `resume`."""
        with self._lock:
            upgrade = self._known(pool)
            if upgrade.state not in ("paused", "failed", "running"):
                raise Conflict(
                    f"the upgrade of pool {pool!r} is {upgrade.state}",
                    why="there is nothing to resume",
                    hint=f"start another: claw-runtime upgrade {pool} --image REF",
                )
            for move in self._store.moves(pool):
                if move.state == "returned":
                    self._store.plan(pool, move.wave, [move.tenant])
            self._store.note(pool, self._clock.now(), state="running", error="", hint="")

    def abort(self, pool: str) -> UpgradeProgress:
        """End an upgrade, in a thread: who is on trial goes back, who waits stays as it is, who is done stays too.

        Raises:
            StateMissing: There is none.
            Conflict: The pool has switched: tenants' states are the new image's.
        """
        self.begin_abort(pool)
        self._spawn(pool)
        return self.progress(pool)

    def begin_abort(self, pool: str) -> None:
        """Have an upgrade end; `run` does it. Raises as `abort`."""
        with self._lock:
            upgrade = self._known(pool)
            if upgrade.state == "aborted":
                return
            if upgrade.state == "done" or upgrade.switched:
                raise Conflict(
                    f"the upgrade of pool {pool!r} can no longer be aborted",
                    why="the pool and its tenants already use the new image",
                    hint=f"upgrade it to another image: claw-runtime upgrade {pool} --image REF; a tenant whose "
                    "state that image refuses keeps its present one",
                )
            self._aborting.add(pool)
            self._store.note(pool, self._clock.now(), state="aborting")

    def progress(self, pool: str) -> UpgradeProgress:
        """Progress of the pool's last upgrade. Raises `UnknownPool`, `StateMissing`."""
        return UpgradeProgress(upgrade=self._known(pool), moves=self._store.moves(pool))

    def _known(self, pool: str) -> UpgradeRow:
        self._pools.document(pool)
        upgrade = self._store.upgrade(pool)
        if upgrade is None:
            raise StateMissing(
                f"pool {pool!r} was never upgraded", hint=f"start one: claw-runtime upgrade {pool} --image REF"
            )
        return upgrade

    # --- doing it ---

    def _spawn(self, pool: str) -> None:
        """A thread of its own each time: one that finds nothing to do is gone at once, one too few would be a wait."""
        thread = threading.Thread(target=self.run, args=(pool,), name=f"upgrade-{pool}", daemon=True)
        with self._lock:
            self._threads = [one for one in self._threads if one.is_alive()] + [thread]
            thread.start()

    def run(self, pool: str) -> None:
        """Bring the pool's upgrade to an end, whatever that is; what went wrong is in its row."""
        with self._working_on(pool):
            if self._state(pool) == "running":
                self._go(pool)
            if self._state(pool) == "aborting" or pool in self._aborting:
                self._end_abort(pool)

    def _go(self, pool: str) -> None:
        upgrade = self._known(pool)
        try:
            self._rollout.bring_home(upgrade)
            self._rollout.go(upgrade)
        except ClawError as error:
            self._fail(pool, error)
        except Exception as error:
            log.exception("internal error in an upgrade", pool=pool)
            self._fail(
                pool,
                UpgradeFailed("internal error in the upgrade", why=str(error), hint="the daemon's log has the details"),
            )

    def _state(self, pool: str) -> str:
        upgrade = self._store.upgrade(pool)
        return upgrade.state if upgrade else ""

    def _working_on(self, pool: str) -> threading.Lock:
        with self._lock:
            return self._working.setdefault(pool, threading.Lock())

    def _go_on(self, pool: str) -> bool:
        return not self._stopping.is_set() and pool not in self._aborting

    def _fail(self, pool: str, error: ClawError) -> None:
        self._store.note(pool, self._clock.now(), state="failed", error=str(error), hint=error.hint)
        log.error("upgrade stopped", pool=pool, error=str(error), hint=error.hint)
        self._observer.record("upgrade-failed", pool=pool, why=str(error))

    def _end_abort(self, pool: str) -> None:
        """Bring back who is on trial; say who stays, and why."""
        upgrade = self._known(pool)
        if upgrade.switched:  # the abort came in the moment of the switch
            self._aborting.discard(pool)
            self._store.note(pool, self._clock.now(), state="running")
            self._go(pool)
            return
        try:
            self._rollout.bring_home(upgrade, why="the upgrade was aborted")
        except ClawError as error:
            self._store.note(pool, self._clock.now(), error=str(error), hint="it is retried every 30 s")
            return
        stay = [move.tenant for move in self._store.moves(pool) if move.state == "done"]
        why = hint = ""
        if stay:
            why = (
                f"stay on {upgrade.reference}: {', '.join(stay)}; that image has written their states, and "
                "returning to the earlier generation would lose these writes"
            )
            hint = (
                f"they keep that image; claw-runtime upgrade {pool} --image REF moves them to another. The earlier "
                f"generation is kept; claw-runtime upgrade {pool} names it"
            )
        self._store.note(pool, self._clock.now(), state="aborted", error=why, hint=hint)
        self._aborting.discard(pool)
        log.warning("upgrade aborted", pool=pool, why=why, hint=hint)
        self._observer.record("upgrade-aborted", pool=pool, stay=stay)

    # --- over the life of a daemon ---

    def recover(self) -> None:
        """After a start: an upgrade that ran when the daemon ended waits until an operator resumes it."""
        for upgrade in self._store.upgrades():
            if upgrade.state == "running":
                hint = f"claw-runtime upgrade {upgrade.pool} --resume continues it, --abort ends it"
                self._store.note(
                    upgrade.pool,
                    self._clock.now(),
                    state="paused",
                    error="the daemon ended during the upgrade",
                    hint=hint,
                )
                log.warning("an upgrade is paused", pool=upgrade.pool, image=upgrade.reference, hint=hint)

    def bring_home(self) -> None:
        """Bring up tenants that were left in the middle, and end aborts; quick when there are none."""
        for upgrade in self._store.upgrades():
            if upgrade.state not in ("paused", "failed", "aborting"):
                continue
            lock = self._working_on(upgrade.pool)
            if not lock.acquire(blocking=False):
                continue
            try:
                if upgrade.state == "aborting":
                    self._end_abort(upgrade.pool)
                else:
                    self._rollout.bring_home(upgrade)
            except ClawError as error:
                self._fail_again(upgrade, error)
            finally:
                lock.release()

    def _fail_again(self, before: UpgradeRow, error: ClawError) -> None:
        """Note why tenants are not up yet, unless the upgrade was resumed or aborted meanwhile: the thread that does it
        waits for this one, and repeats what failed."""
        with self._lock:
            same_error = (str(error), error.hint) == (before.error, before.hint)
            if self._state(before.pool) == before.state and not same_error:
                self._fail(before.pool, error)

    def stop(self, timeout: float) -> None:
        """Let tenants that are moving come to their next step, for at most so many seconds."""
        self._stopping.set()
        deadline = self._clock.monotonic() + timeout
        for thread in list(self._threads):
            thread.join(max(0.0, deadline - self._clock.monotonic()))


def notes(store: UpgradeStore, pool: str) -> tuple[str, ...]:
    """What an operator should know of the pool's upgrade, when it needs one."""
    upgrade = store.upgrade(pool)
    if upgrade is None or upgrade.state in ("done", "aborted"):
        return ()
    hint = f" · {upgrade.hint}" if upgrade.hint else ""
    return (f"upgrade to {upgrade.reference}: {upgrade.state}{hint}",)
