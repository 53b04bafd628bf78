"""The tenant's life as a table: which steps are announced, and what a crash at each of them asks for.

A step is written to the ledger before it is done, so that after a SIGKILL anywhere the row says how far things may have
come. One question decides: may the workload have run since its tree was last in the store? If it may have, the tree is
newer than the store and is committed (settle); if not, it is dropped (undo); once committed, it is removed (clear).

    cold ──claim──▶ claiming ──ready──▶ active ──release──▶ releasing ──committed──▶ cold
     ▲                 │ ▲                                     │  └──▶ frozen, parked ──claim──▶ claiming
     └──undo───────────┘ └──claim── kept ◀──commit failed──────┘
"""

from enum import Enum, StrEnum

from claw_runtime.ports import ContainerState, TenantRow


class Step(StrEnum):
    """What was announced last, in a row's `step`."""

    NONE = ""
    BEGIN = "begin"
    """The claim began; nothing of it exists."""
    SLOT = "slot"
    """A slot is the tenant's (announced by `Ledger.take_slot`, or its own frozen one is)."""
    LEASE = "lease"
    """HEAD names us, under the row's epoch."""
    TREE = "tree"
    """The tree moves into the slot; the row's `source` says from where."""
    START = "start"
    """The workload may run from here on: its tree may be newer than the store."""
    SYNC = "sync"
    """A commit of the running tenant, under the row's epoch and on top of its base, may land."""
    COMMIT = "commit"
    """The last commit of a release, likewise."""
    REST = "rest"
    """The tree is in the store; what is here is being parked."""
    CLEAR = "clear"
    """The tree is in the store, or nobody wants it; what is here is being removed."""


OVER = frozenset({Step.CLEAR, Step.REST})
"""What is left of the tree here may be a part of it: it is never committed, claimed or adopted again."""


class Source(StrEnum):
    """Where the tree in a claimed slot came from, in a row's `source` and a claim's answer."""

    KEPT = "kept"
    """From a release whose commit failed: the only copy of what is new in it."""
    RESTORED = "restored"
    """From the store, every digest checked."""
    EMPTY = "empty"
    """The tenant has no state yet."""
    TREE = "tree"
    """It was parked here, and is what HEAD names."""
    FROZEN = "frozen"
    """It never left its container, and is what HEAD names."""


class Remedy(Enum):
    """What a row asks for when nobody works on its tenant."""

    NOTHING = "nothing"
    UNDO = "take the claim back: the store is as new as the tree, or newer"
    SETTLE = "stop, commit, then clear"
    CLEAR = "remove what is left here"
    RETRY = "settle, as often as it takes"


def remedy(row: TenantRow, container: ContainerState | None) -> Remedy:
    """What to do for a tenant that a dead daemon left like this; `container` is its slot's, None when that is gone."""
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
        case "active", _:
            ended = Remedy.UNDO if row.trial else Remedy.SETTLE
            return Remedy.NOTHING if container in ("running", "paused") else ended
        case "frozen", Step.LEASE if container == "paused":  # it was about to end
            return Remedy.UNDO
        case "frozen", _:  # a paused container that somebody woke may have written
            return {"paused": Remedy.NOTHING, "running": Remedy.SETTLE}.get(container or "", Remedy.CLEAR)
        case _:  # parked; a tree that somebody moved away is only a slower claim
            return Remedy.NOTHING
