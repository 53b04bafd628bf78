"""The states and steps of a tenant as a table, and the remedy for a crash at each step.

A step is written to the ledger before it is done, so after a SIGKILL the row shows how far the operation may have come.
One question decides: may the workload have run since its tree was last in the store? If it may have, the tree is newer
than the store and is committed (settle). If not, it is dropped (undo). Once committed, it is removed (clear).

    cold ──claim──▶ claiming ──ready──▶ active ──release──▶ releasing ──committed──▶ cold
     ▲                 │ ▲                                     │  └──▶ frozen, parked ──claim──▶ claiming
     └──undo───────────┘ └──claim── kept ◀──commit failed──────┘
"""

from enum import Enum, StrEnum

from claw_runtime.ports import ContainerState, TenantRow


class Step(StrEnum):
    """The last step that was announced, in a row's `step`."""

    NONE = ""
    BEGIN = "begin"
    """The claim began; it has nothing yet."""
    SLOT = "slot"
    """The tenant has a slot (`Ledger.take_slot` announces it), or its own frozen one."""
    LEASE = "lease"
    """HEAD names this runtime as owner, under the row's epoch."""
    TREE = "tree"
    """The tree moves into the slot; the row's `source` records where it comes from."""
    START = "start"
    """The workload may run from here on: its tree may be newer than the store."""
    SYNC = "sync"
    """A commit of the running tenant, under the row's epoch and on top of its base, may be in the store."""
    HOLD = "hold"
    """Within such a commit: the container may be paused, until the step is `sync` again."""
    COMMIT = "commit"
    """Likewise, the last commit of a release."""
    REST = "rest"
    """The tree is in the store; what is here is being parked."""
    CLEAR = "clear"
    """The tree is in the store, or obsolete; what is on this host is being removed."""


OVER = frozenset({Step.CLEAR, Step.REST})
"""The tree on this host may be partial: it is never committed, claimed or adopted again."""


HOLDING = frozenset({"claiming", "active", "releasing", "kept"})
"""States of tenants whose lease this host uses. No other lease outlives the operation that took it."""

MAY_BE_STORED = frozenset({Step.SYNC, Step.HOLD, Step.COMMIT})
"""A commit under the row's epoch may be in the store."""


class TreeSource(StrEnum):
    """Where the tree in a claimed slot came from, in a row's `source` and a claim's answer."""

    KEPT = "kept"
    """From a release whose commit failed: the only copy of what is new in it."""
    RESTORED = "restored"
    """From the store, every digest checked."""
    EMPTY = "empty"
    """The tenant has no state yet."""
    TREE = "tree"
    """The parked tree on this host, whose generation is HEAD's."""
    FROZEN = "frozen"
    """It never left its frozen container, and its generation is HEAD's."""


class Remedy(Enum):
    """What a row needs when no operation works on its tenant."""

    NOTHING = "nothing"
    UNDO = "undo the claim: the store is at least as new as the tree"
    SETTLE = "stop, commit, then clear"
    CLEAR = "remove what is left on this host"
    RETRY = "settle, and retry until it succeeds"
    RESUME = "resume the container, which was paused for a commit"


def remedy(row: TenantRow, container: ContainerState | None) -> Remedy:
    """The remedy for a tenant whose daemon ended; `container` is the state of its container, None if it is gone."""
    match row.state, row.step:
        case "cold", _:
            return Remedy.NOTHING
        case _, step if step in OVER:
            return Remedy.CLEAR
        case "claiming", Step.START if not row.trial:
            return Remedy.SETTLE
        case "claiming", _:
            return Remedy.UNDO
        case "releasing", _:
            return Remedy.SETTLE
        case "kept", _:
            return Remedy.RETRY
        case "active", Step.HOLD if container == "paused":
            return Remedy.RESUME
        case "active", _:
            ended = Remedy.UNDO if row.trial else Remedy.SETTLE
            return Remedy.NOTHING if container in ("running", "paused") else ended
        case "frozen", Step.LEASE if container == "paused":  # it was about to end
            return Remedy.UNDO
        case "frozen", _:  # a paused container that an operator unpaused may have written
            return {"paused": Remedy.NOTHING, "running": Remedy.SETTLE}.get(container or "", Remedy.CLEAR)
        case _:  # parked; if the tree was moved away, the next claim is only slower
            return Remedy.NOTHING
