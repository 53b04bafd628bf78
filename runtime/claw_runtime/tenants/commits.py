"""How the commits of this host's tenants go: what they leave out, which secrets they store, and whether they fail.

Known since the daemon's start, as the results of probes are: the next commit tells again. The status shows the present
state. The log and the history get changes only, each kind at most once in ten minutes for one tenant: a running tenant
may be committed every second, and a name may be left out in every other commit.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import structlog

from claw_runtime.errors import Fenced, TenantLocked
from claw_runtime.ports import Clock, TenantRow
from claw_runtime.safefs.tree import VANISHED, Skipped, printable
from claw_runtime.telemetry.events import Observer
from claw_runtime.tenancy import TenantId

log = structlog.get_logger(__name__)

NAMES = 5
"""Names of one tenant that are kept for its status."""

QUIET = 600.0
"""Seconds between two events of one kind about one tenant."""

SECRETS = 100
"""Files with secrets of one tenant that are remembered, so that each is an event once; the newest stay. When there are
so many, another is an event at most once in `QUIET` seconds."""

LATE = 60.0
"""Seconds by which a commit at an interval may be late before the tenant counts as not saved."""

_LATE = "its commit has not come to an end: its tree is large, the store hangs, or long commits of others are before it"
_LONGEST = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRecord:
    """How a tenant's last commits went.

    Attributes:
        left_out: Names that the last commit left out, or stored otherwise than they are.
        names: The first of them, each with its reason.
        failures: Failed commits since the last one that succeeded.
        late: Whether none failed, and the next one should have come to its end.
        why: Why the last one failed; empty when none did.
        lease_lost: Whether it failed because another runtime has the tenant.
    """

    left_out: int = 0
    names: tuple[str, ...] = ()
    failures: int = 0
    late: bool = False
    why: str = ""
    lease_lost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitFigures:
    """The commits of several tenants together.

    Attributes:
        left_out: Names that the last commit of each left out, or stored otherwise.
        failing: Running tenants whose last commit failed or is late; `leases_lost` of them because another runtime has
            them.
        oldest: Seconds since the commit of that running tenant which was saved longest ago; None without one.
    """

    left_out: int
    failing: int
    leases_lost: int
    oldest: float | None


class CommitRecords:
    """The records of all tenants of this host. The caller of `committed` and `failed` holds the tenant's lock.

    Args:
        interval: Seconds between two commits of a running tenant, by its pool; None is none.
    """

    def __init__(self, observer: Observer, clock: Clock, interval: Callable[[str], float | None]) -> None:
        self._observer, self._clock, self._interval = observer, clock, interval
        self._records: dict[TenantId, CommitRecord] = {}
        self._last: dict[tuple[TenantId, str], float] = {}
        self._told: dict[TenantId, int] = {}
        self._secrets: dict[TenantId, dict[tuple[str, str], None]] = {}

    def of(self, tenant: TenantId) -> CommitRecord:
        """The tenant's record; an empty one before its first commit since the daemon's start."""
        return self._records.get(tenant, CommitRecord())

    def shown(self, row: TenantRow) -> CommitRecord:
        """The record of a tenant as its status shows it: also that a commit does not come to its end."""
        record, interval = self.of(row.id), self._interval(row.pool or "")
        if record.failures or row.state != "active" or row.trial or not interval:
            return record
        if self._clock.now() - saved_at(row) <= 2 * interval + LATE:
            return record
        return replace(record, late=True, why=_LATE)

    def committed(self, row: TenantRow, reported: Sequence[Skipped]) -> None:
        """A commit succeeded.

        Args:
            reported: What it left out or stored otherwise. Names that went during the read are no part of the state.
        """
        left = [one for one in reported if one.reason != VANISHED]
        names = tuple(_line(one) for one in left[:NAMES])
        before = self.of(row.id)
        self._records[row.id] = CommitRecord(left_out=len(left), names=names)
        if before.failures:
            self._resumed(row, before)
        found = hash(frozenset((one.path, one.reason) for one in left))
        if found != self._told.get(row.id, hash(frozenset())) and self._may_tell(row.id, "left-out"):
            self._told[row.id] = found
            self._observer.record("left-out", tenant=row.id, pool=row.pool, count=len(left), names=list(names))
            level = log.warning if left else log.info
            level("names are left out of commits", tenant=row.id, count=len(left), names=list(names))

    def stored_secrets(self, tenant: TenantId, found: Iterable[tuple[str, str]]) -> None:
        """A commit stored secrets in plain text: an event for each file, once, though a program may write it again at
        every interval.

        Args:
            found: Path and name of each.
        """
        for path, name in found:
            told = self._secrets.setdefault(tenant, {})
            was_told = (path, name) in told
            told.pop((path, name), None)
            told[path, name] = None  # now the newest
            is_full = len(told) > SECRETS
            if is_full:
                del told[next(iter(told))]
            if not was_told and (not is_full or self._may_tell(tenant, "secret-stored")):
                log.warning("a secret is stored in plain text", tenant=tenant, file=printable(path), name=name)
                self._observer.record("secret-stored", tenant=tenant, file=printable(path), name=name)

    def failed(self, row: TenantRow, error: Exception) -> None:
        """A commit of a running tenant failed; it is retried."""
        before, lost = self.of(row.id), isinstance(error, Fenced | TenantLocked)
        after = replace(before, failures=before.failures + 1, why=str(error) or repr(error), lease_lost=lost)
        self._records[row.id] = after
        if before.failures and before.lease_lost == lost:
            return
        kind = "lease-lost" if lost else "commit-failing"
        if self._may_tell(row.id, kind):
            self._observer.record(kind, tenant=row.id, pool=row.pool, why=after.why)

    def ended(self, tenant: TenantId) -> None:
        """The tenant runs no more: that its commits failed is over. What the last one left out is still known."""
        if (before := self._records.get(tenant)) and before.failures:
            self._records[tenant] = replace(before, failures=0, why="", lease_lost=False)

    def figures(self, rows: Iterable[TenantRow]) -> CommitFigures:
        """The records of these tenants together."""
        now, known = self._clock.now(), [(row, self.shown(row)) for row in rows]
        running = [(row, record) for row, record in known if row.state == "active"]
        return CommitFigures(
            left_out=sum(record.left_out for _, record in known),
            failing=sum(record.late or record.failures > 0 for _, record in running),
            leases_lost=sum(record.lease_lost for _, record in running),
            oldest=max((max(0.0, now - saved_at(row)) for row, _ in running), default=None),
        )

    def _resumed(self, row: TenantRow, before: CommitRecord) -> None:
        log.info("a running tenant is committed again", tenant=row.id, failures=before.failures)
        if self._may_tell(row.id, "commit-resumed"):
            seconds = round(self._clock.now() - saved_at(row))
            self._observer.record(
                "commit-resumed", tenant=row.id, pool=row.pool, failures=before.failures, seconds=seconds
            )

    def _may_tell(self, tenant: TenantId, kind: str) -> bool:
        now = self._clock.monotonic()
        if now - self._last.get((tenant, kind), -QUIET) < QUIET:
            return False
        self._last[tenant, kind] = now
        return True


def saved_at(row: TenantRow) -> float:
    """Seconds since the epoch at which a running tenant's tree was last in the store: at a commit, or at its claim."""
    return max(row.synced, row.since)


def _line(skipped: Skipped) -> str:
    return f"{printable(skipped.path)[1:-1]}: {skipped.reason}"[:_LONGEST]
