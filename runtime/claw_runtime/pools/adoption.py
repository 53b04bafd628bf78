"""What a new daemon does with the slots of the last one: those that still wait are used on, all other traces go."""

from collections.abc import Callable
from pathlib import Path

import structlog

from claw_runtime.ports import Container, Engine, Ledger, SlotRow
from claw_runtime.safefs.removal import remove_tree
from claw_runtime.safefs.tree import Skipped, Tree
from claw_runtime.tenancy import LABEL_SLOT, Layout

log = structlog.get_logger(__name__)


def recover(
    engine: Engine,
    ledger: Ledger,
    layout: Layout,
    labels: dict[str, str],
    *,
    is_waiting: Callable[[SlotRow, Container | None], bool],
    destroy: Callable[[str], None],
) -> None:
    """Keep ready slots that wait, destroy others that are nobody's, remove what no row explains.

    Claimed slots are the tenants' (tenants/recovery.py). After a reboot no container waits, and all slots go.

    Args:
        labels: What every container of this runtime carries.
        is_waiting, destroy: Of `Slots`.
    """
    containers = {found.id: found for found in engine.list(labels)}
    of_slots = {found.labels.get(LABEL_SLOT, ""): found for found in containers.values()}
    for row in ledger.slots():
        found = containers.get(row.container or "") or of_slots.get(row.id)
        containers.pop(found.id if found else "", None)
        if row.state == "claimed" or (row.state == "ready" and is_waiting(row, found)):
            continue
        log.info("slot removed", slot=row.id, pool=row.pool, tier=row.tier, was=row.state)
        destroy(row.id)
    for orphan in containers.values():
        log.warning("container removed: it belongs to no slot in the ledger", container=orphan.name)
        engine.remove(orphan.id)
    _remove_strays(ledger, layout)


def _remove_strays(ledger: Ledger, layout: Layout) -> None:
    """Directories of slots that no row explains."""
    known = {row.id for row in ledger.slots()}
    for root in layout.slots.glob("*"):
        if root.name in known:
            continue
        tree = layout.slot(root.name).state
        if _holds_something(tree):  # a ledger that was moved away forgets tenants: this may be one's only copy
            log.warning(
                "a tree that belongs to no slot is left in place", path=str(tree), hint="move it away, or remove it"
            )
        else:
            remove_tree(root)
    for values in layout.slot("any").values.parent.glob("*"):
        if values.name not in known:
            remove_tree(values)


def _holds_something(tree: Path) -> bool:
    """Whether there is anything but directories, such as mounts are made on ahead."""
    try:
        with Tree(tree) as found:
            return any(isinstance(entry, Skipped) or entry.kind != "d" for entry in found.walk())
    except FileNotFoundError:
        return False
