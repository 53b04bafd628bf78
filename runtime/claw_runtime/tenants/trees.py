"""A tenant's tree and logs on this host, and the moves between the places where they can be.

A tree is in a slot while the tenant is claimed, in `staging` while it is being restored, `kept` when its upload
failed, and `parked` when it is in the store and its tenant may return. Every move renames each top-level entry and can
be repeated after a crash in its middle: the names in the two places are disjoint then, and moving the rest completes
it. Only separate mounts of the container (`mounted`) exist in both places, and are merged.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from claw_runtime.errors import InvalidTenantId
from claw_runtime.fsutil import sync_directory, sync_tree
from claw_runtime.ports import TenantRow
from claw_runtime.safefs.moves import move_entries
from claw_runtime.safefs.removal import bound, prune, remove_tree
from claw_runtime.tenancy import Layout, TenantId, tenant_id

log = structlog.get_logger(__name__)

LOG_BYTES = 256 << 20
"""What a tenant's log files may take of this host's disk after a claim."""

LOG_FILES = 10_000
"""How many there may be."""


class Trees:
    """All tenants' trees and logs below one layout."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def kept(self, tenant: TenantId) -> Path | None:
        """The tree whose upload failed, if there is one: the only copy of what is new in it."""
        tree = self._layout.kept_tree(tenant)
        return tree if tree.exists() else None

    def parked(self, tenant: TenantId) -> Path | None:
        """The released tree that is kept for the tenant's next claim, if there is one."""
        tree = self._layout.parked_tree(tenant)
        return tree if tree.exists() else None

    def whole(self, row: TenantRow, mounted: Collection[str] = ()) -> Path | None:
        """The tenant's whole tree, merged again if a crash interrupted a move between slot and kept tree."""
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
        """A free path for a restore, in an existing directory; what an earlier restore left is removed."""
        staging = self._layout.staging(tenant)
        remove_tree(staging)
        _make_private(staging.parent)
        return staging

    def donor(self, tenant: TenantId) -> Path | None:
        """The parked tree, renamed so that a restore may reuse its files: it no longer counts as a whole tree."""
        donor, parked = self._layout.donor(tenant), self.parked(tenant)
        remove_tree(donor)
        if parked is None:
            return None
        parked.rename(donor)
        return donor

    def drop_donor(self, tenant: TenantId) -> None:
        """Delete what a restore left of the donor."""
        remove_tree(self._layout.donor(tenant))

    def staging_into_slot(self, tenant: TenantId, slot: str, mounted: Collection[str] = ()) -> None:
        """Move a restored tree into the slot's /state."""
        self._into_slot(self._layout.staging(tenant), slot, mounted)

    def kept_into_slot(self, tenant: TenantId, slot: str, mounted: Collection[str] = ()) -> None:
        """Move a kept tree into the slot's /state."""
        self._into_slot(self._layout.kept_tree(tenant), slot, mounted)

    def parked_into_slot(self, tenant: TenantId, slot: str, mounted: Collection[str] = ()) -> None:
        """Move a parked tree into the slot's /state."""
        self._into_slot(self._layout.parked_tree(tenant), slot, mounted)

    def _into_slot(self, source: Path, slot: str, mounted: Collection[str]) -> None:
        target = self._layout.slot(slot).state
        move_entries(source, target, into=mounted)
        source.rmdir()
        sync_directory(target)  # after a power failure, a started slot must not have half of the tree

    def keep(self, tenant: TenantId, slot: str, mounted: Collection[str] = ()) -> None:
        """Move the slot's /state to the kept tree; completes an interrupted move or removal of the slot."""
        self._out_of_slot(slot, self._layout.kept_tree(tenant), mounted)

    def park(self, tenant: TenantId, slot: str) -> None:
        """Move the slot's /state to the parked tree; completes an interrupted move."""
        self._out_of_slot(slot, self._layout.parked_tree(tenant))

    def _out_of_slot(self, slot: str, target: Path, mounted: Collection[str] = ()) -> None:
        tree = self._layout.slot(slot).state
        if tree.exists():
            _make_private(target)
            move_entries(tree, target, into=mounted)
            sync_tree(target)  # after a power failure, it must still be the tree that the ledger says it is

    def forget(self, slot: str, goes: Callable[[str, bool], bool]) -> None:
        """Delete names of the slot's /state that must not outlive its container; see `safefs.removal.prune`."""
        tree = self._layout.slot(slot).state
        if tree.exists():
            prune(tree, goes)

    def logs_into_slot(self, tenant: TenantId, slot: str) -> None:
        """Move the logs of earlier claims into the slot's /logs."""
        saved = self._layout.logs(tenant)
        if saved.exists():
            move_entries(saved, self._layout.slot(slot).logs)

    def save_logs(self, tenant: TenantId, slot: str) -> None:
        """Move the slot's /logs to the tenant's logs on this host, of which the newest files are kept."""
        logs, saved = self._layout.slot(slot).logs, self._layout.logs(tenant)
        if not logs.exists():
            return
        _make_private(saved)
        try:
            move_entries(logs, saved)
        except FileExistsError:  # another log is never overwritten, and a name clash never keeps a container
            beside = saved / f"slot-{slot}"
            _make_private(beside)
            move_entries(logs, beside)
        if removed := bound(saved, size=LOG_BYTES, count=LOG_FILES):
            log.warning("a tenant's oldest log files were removed", tenant=tenant, removed=removed, limit=LOG_BYTES)

    def drop(self, tenant: TenantId) -> None:
        """Delete the tenant's staged, parked and kept trees."""
        remove_tree(self._layout.kept_tree(tenant))
        self.drop_parked(tenant)
        self.drop_staging(tenant)

    def keep_parked(self, tenant: TenantId) -> None:
        """Make the parked tree, if there is one, the kept tree."""
        if parked := self.parked(tenant):
            parked.rename(self._layout.kept_tree(tenant))

    def drop_parked(self, tenant: TenantId) -> None:
        """Delete the parked tree."""
        remove_tree(self._layout.parked_tree(tenant))

    def staged(self) -> Sequence[TenantId]:
        """The tenants that have a staged tree or a donor."""
        found = []
        for place in sorted(self._layout.tenants.glob("*")):
            with suppress(InvalidTenantId):
                tenant = tenant_id(place.name)
                if self._layout.staging(tenant).exists() or self._layout.donor(tenant).exists():
                    found.append(tenant)
        return found

    def drop_staging(self, tenant: TenantId) -> None:
        """Delete the staged tree and its donor."""
        remove_tree(self._layout.staging(tenant))
        self.drop_donor(tenant)


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
