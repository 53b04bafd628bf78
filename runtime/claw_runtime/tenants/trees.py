"""A tenant's tree and logs on this host, and the moves between the places where they may lie.

A tree is in a slot while the tenant is claimed, in `staging` while it is being restored, `kept` when its upload
failed, and `parked` when it is in the store and its tenant may come back. Every move is a rename of each top-level
entry, and each can be repeated after a crash in its middle: names in the two places are disjoint then, and moving the
rest joins them. Only directories that a container has mounted on their own (`mounted`) are in both, and are joined.
"""

from collections.abc import Collection
from pathlib import Path

from claw_runtime.fsutil import sync_directory
from claw_runtime.ports import TenantRow
from claw_runtime.safefs.tree import move_entries, remove_tree
from claw_runtime.tenancy import Layout, TenantId


class Trees:
    """All tenants' trees and logs below one layout."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def kept(self, tenant: TenantId) -> Path | None:
        """The tree whose upload failed, if there is one: the only copy of what is new in it."""
        tree = self._layout.kept_tree(tenant)
        return tree if tree.exists() else None

    def parked(self, tenant: TenantId) -> Path | None:
        """The released tree that waits for its tenant, if there is one."""
        tree = self._layout.parked_tree(tenant)
        return tree if tree.exists() else None

    def whole(self, row: TenantRow, mounted: Collection[str] = ()) -> Path | None:
        """The tenant's tree, wherever it is; put together again if a crash came between slot and kept tree."""
        kept = self.kept(row.id)
        if row.slot is None:
            return kept
        tree = self._layout.slot(row.slot).state
        if not tree.exists():  # the slot was being removed: all of it is kept
            return kept
        if kept:
            move_entries(kept, tree, into=mounted)
            kept.rmdir()
        return tree

    def staging(self, tenant: TenantId) -> Path:
        """A name for a restore to make, in a directory that is there; what an earlier restore left is gone."""
        staging = self._layout.staging(tenant)
        remove_tree(staging)
        _make_private(staging.parent)
        return staging

    def donor(self, tenant: TenantId) -> Path | None:
        """What was parked, as a tree that a restore may take apart: nobody takes it for a whole one any more."""
        donor, parked = self._layout.donor(tenant), self.parked(tenant)
        remove_tree(donor)
        if parked is None:
            return None
        parked.rename(donor)
        return donor

    def drop_donor(self, tenant: TenantId) -> None:
        """Delete what a restore left of it."""
        remove_tree(self._layout.donor(tenant))

    def staging_into_slot(self, tenant: TenantId, slot: str, mounted: Collection[str] = ()) -> None:
        """A restored tree becomes the slot's /state."""
        self._into_slot(self._layout.staging(tenant), slot, mounted)

    def kept_into_slot(self, tenant: TenantId, slot: str, mounted: Collection[str] = ()) -> None:
        """A kept tree becomes the slot's /state."""
        self._into_slot(self._layout.kept_tree(tenant), slot, mounted)

    def parked_into_slot(self, tenant: TenantId, slot: str, mounted: Collection[str] = ()) -> None:
        """A parked tree becomes the slot's /state."""
        self._into_slot(self._layout.parked_tree(tenant), slot, mounted)

    def _into_slot(self, source: Path, slot: str, mounted: Collection[str]) -> None:
        target = self._layout.slot(slot).state
        move_entries(source, target, into=mounted)
        source.rmdir()
        sync_directory(target)  # a start that outlives a power failure must not find half of the tree

    def keep(self, tenant: TenantId, slot: str, mounted: Collection[str] = ()) -> None:
        """The slot's /state becomes the kept tree, however far an earlier move, or the slot's removal, had come."""
        self._out_of_slot(slot, self._layout.kept_tree(tenant), mounted)

    def park(self, tenant: TenantId, slot: str) -> None:
        """The slot's /state becomes the parked tree, however far an earlier move had come."""
        self._out_of_slot(slot, self._layout.parked_tree(tenant))

    def _out_of_slot(self, slot: str, target: Path, mounted: Collection[str] = ()) -> None:
        tree = self._layout.slot(slot).state
        if tree.exists():
            _make_private(target)
            move_entries(tree, target, into=mounted)

    def logs_into_slot(self, tenant: TenantId, slot: str) -> None:
        """The logs of earlier claims become the slot's /logs."""
        saved = self._layout.logs(tenant)
        if saved.exists():
            move_entries(saved, self._layout.slot(slot).logs)

    def save_logs(self, tenant: TenantId, slot: str) -> None:
        """The slot's /logs become the tenant's logs on this host."""
        logs, saved = self._layout.slot(slot).logs, self._layout.logs(tenant)
        if not logs.exists():
            return
        _make_private(saved)
        try:
            move_entries(logs, saved)
        except FileExistsError:  # never over another log, and never a reason to keep a container
            beside = saved / f"slot-{slot}"
            _make_private(beside)
            move_entries(logs, beside)

    def drop(self, tenant: TenantId) -> None:
        """Delete what is staged, parked or kept."""
        remove_tree(self._layout.kept_tree(tenant))
        self.drop_parked(tenant)
        self.drop_staging(tenant)

    def drop_parked(self, tenant: TenantId) -> None:
        """Delete what is parked."""
        remove_tree(self._layout.parked_tree(tenant))

    def drop_staging(self, tenant: TenantId) -> None:
        """Delete what is staged, and what it was being made of."""
        remove_tree(self._layout.staging(tenant))
        self.drop_donor(tenant)


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
