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
    retire: Callable[[SlotRow], bool],
) -> None:
    """Keep ready slots that wait, destroy others that no tenant has, remove what no row explains.

    Claimed slots are the tenants' (tenants/recovery.py). After a reboot no container waits, and all slots go. Claims
    may be served meanwhile: a row is written before anything of its slot is made and removed after all of it is gone,
    so what was listed before the rows and has none is a trace of the past.

    Args:
        labels: What every container of this runtime carries.
        is_waiting: Of `Slots`.
        retire: Destroys a slot, unless somebody has it or works on it by now (`Inventory.retire`).
    """
    before = ledger.slots()
    containers = {found.id: found for found in engine.list(labels)}
    of_slots = {found.labels.get(LABEL_SLOT, ""): found for found in containers.values()}
    for row in before:
        found = containers.get(row.container or "") or of_slots.get(row.id)
        containers.pop(found.id if found else "", None)
        if row.state == "claimed" or (row.state == "ready" and is_waiting(row, found)):
            continue
        if retire(row):
            log.info("slot removed", slot=row.id, pool=row.pool, tier=row.tier, was=row.state)
    known = {row.id for row in ledger.slots()}
    for orphan in containers.values():
        if orphan.labels.get(LABEL_SLOT) in known:  # made for a claim since the rows were read
            continue
        log.warning("container removed: it belongs to no slot in the ledger", container=orphan.name)
        engine.remove(orphan.id)
    _remove_strays(ledger, layout)


def _remove_strays(ledger: Ledger, layout: Layout) -> None:
    """Directories of slots that no row explains."""
    roots, all_values = list(layout.slots.glob("*")), list(layout.slot("any").values.parent.glob("*"))
    known = {row.id for row in ledger.slots()}
    for root in roots:
        if root.name in known:
            continue
        tree = layout.slot(root.name).state
        if _holds_something(tree):  # a ledger that was moved away forgets tenants: this may be one's only copy
            log.warning(
                "a tree that belongs to no slot is left in place", path=str(tree), hint="move it away, or remove it"
            )
        else:
            remove_tree(root)
    for values in all_values:
        if values.name not in known:
            remove_tree(values)


def _holds_something(tree: Path) -> bool:
    """Whether there is anything but directories, such as mounts are made on ahead."""
    try:
        with Tree(tree) as found:
            return any(isinstance(entry, Skipped) or entry.kind != "d" for entry in found.walk())
    except FileNotFoundError:
        return False
