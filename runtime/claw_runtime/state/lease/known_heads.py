"""Checks HEADs that are read against what this host remembers, so that a lost or older HEAD is never continued.

Generations and epochs only grow, whichever runtime writes HEAD. So a HEAD is refused if it is below what this host has
seen, if it names another manifest of the same generation, or if it is missing although the tenant has objects. A HEAD
that another host wrote is also compared with the generations in the store: it may have gone back before this host saw
the newer ones. A person decides then: `claw-runtime snapshot recover`. A tenant's first claim costs three requests more
than others, and one after another host's claim costs one more.
"""

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NoReturn

import structlog

from claw_runtime.formats.head import UNCLAIMED, Head, HeadRefused
from claw_runtime.ports import KnownHead, ObjectStore, StoreMemory
from claw_runtime.state.lease.store_id import StoreId
from claw_runtime.tenancy import Keys, TenantId

log = structlog.get_logger(__name__)

KEPT: Final = "nothing was started or removed, here or in the store"


class ProcessMemory:
    """A `StoreMemory` that ends with the process."""

    def __init__(self) -> None:
        self._heads: dict[TenantId, KnownHead] = {}
        self._store, self._lock = "", threading.Lock()
        self._held: set[TenantId] = set()

    def store(self) -> str:
        """Id of the store that the tenants' states are in; empty if none is known yet."""
        return self._store

    def set_store(self, store: str, url: str, *, forget: bool = False) -> None:  # noqa: ARG002 - the port's signature
        """Remember the store; with `forget`, no HEAD or lease of the previous one any more."""
        with self._lock:
            if forget:
                self._heads.clear()
                self._held.clear()
            self._store = store

    def is_empty(self) -> bool:
        """Whether no generation of any tenant is remembered."""
        with self._lock:
            return not any(known.generation for known in self._heads.values())

    def head(self, tenant: TenantId) -> KnownHead | None:
        """The tenant's HEAD; None if this host never read one."""
        return self._heads.get(tenant)

    def remember(self, tenant: TenantId, head: KnownHead) -> None:
        """Remember a HEAD, unless the remembered one is newer."""
        with self._lock:
            known = self._heads.get(tenant, head)
            if head.generation >= known.generation and head.epoch >= known.epoch:
                self._heads[tenant] = head

    def replace(self, tenant: TenantId, head: KnownHead) -> None:
        """Remember this HEAD even if the remembered one is newer, because a person accepted it."""
        with self._lock:
            self._heads[tenant] = head

    def hold(self, tenant: TenantId) -> None:
        """Remember, before it is acquired, that this host may hold the tenant's lease."""
        with self._lock:
            self._held.add(tenant)

    def let_go(self, tenant: TenantId) -> None:
        """Forget that, once the lease has ended."""
        with self._lock:
            self._held.discard(tenant)

    def held(self) -> Sequence[TenantId]:
        """The tenants whose lease this host may hold, by id."""
        with self._lock:
            return sorted(self._held)


class KnownHeads:
    """The HEADs of all tenants in one store, as this host remembers them."""

    def __init__(self, store: ObjectStore, memory: StoreMemory, store_id: StoreId) -> None:
        self._store, self._memory, self._store_id = store, memory, store_id

    def of(self, tenant: TenantId) -> KnownHead | None:
        """What is remembered of a tenant. Ask before HEAD is read: a read returns at least what was known before it."""
        return self._memory.head(tenant)

    def blank(self, tenant: TenantId) -> Head:
        """The HEAD before a tenant's first: its epoch continues the remembered one."""
        known = self._memory.head(tenant)
        return replace(UNCLAIMED, epoch=known.epoch) if known else UNCLAIMED

    def remember(self, tenant: TenantId, head: Head) -> None:
        """Remember a HEAD that this host has read or written."""
        self._note(tenant, _known(head), self._memory.head(tenant))

    def accept(self, tenant: TenantId, head: Head) -> None:
        """Remember a HEAD even if it is older than the remembered one, because a person accepted it."""
        self._memory.replace(tenant, _known(head))

    def check_store(self) -> None:
        """Check that the store is the one that was opened. Raises as `StoreId.check`."""
        self._store_id.check()

    def check(self, tenant: TenantId, head: Head | None, known: KnownHead | None) -> None:
        """Compare a HEAD that was read with what was known before, then remember it.

        Raises:
            HeadRefused: It is missing although the tenant has a state, it is older or of another lineage, or the store
                is another one.
            StoreUnavailable, StoreDenied, BucketMissing: The store.
        """
        if head is None:
            self._check_new(tenant, known)
            return
        if known and (why := older(head, known)):
            self._store_id.check()
            _refuse(tenant, f"HEAD of tenant {tenant} has gone back", why)
        if _known(head) != known:
            self.check_above(tenant, head)
        self._note(tenant, _known(head), known)

    def _check_new(self, tenant: TenantId, known: KnownHead | None) -> None:
        self._store_id.check()
        if known and known.generation:
            _refuse(tenant, f"HEAD of tenant {tenant} is missing", f"this host knows its generation {known.generation}")
        keys = Keys(tenant)
        places = (keys.manifests, keys.packs, keys.blobs, keys.pins)
        if found := next((item.key for item in self._store.list(keys.prefix) if item.key.startswith(places)), None):
            _refuse(tenant, f"HEAD of tenant {tenant} is missing", f"the store has objects of it, such as {found}")

    def check_above(self, tenant: TenantId, head: Head) -> None:
        """Refuse a HEAD that is two generations or more below one in the store. The next one may be of a writer that
        died before it could write HEAD, and a collection leaves it alone.

        Raises:
            HeadRefused: HEAD has gone back.
            StoreUnavailable, StoreDenied, BucketMissing: The store.
        """
        keys = Keys(tenant)
        listed = self._store.list(keys.manifests, after=keys.end_of(head.generation))  # thousands may be below
        found = (number_of(tenant, item.key) for item in listed)
        if (newest := max(found, default=0)) > head.highest:
            brief = f"HEAD of tenant {tenant} has gone back"
            _refuse(tenant, brief, f"it names generation {head.generation}, but generation {newest} is stored")
        if newest > head.generation:
            log.warning("a generation above HEAD is stored", tenant=tenant, head=head.generation, stored=newest)

    def _note(self, tenant: TenantId, head: KnownHead, known: KnownHead | None) -> None:
        if head != known:
            self._memory.remember(tenant, head)


def _known(head: Head) -> KnownHead:
    return KnownHead(generation=head.generation, sha256=head.sha256 or "", epoch=head.epoch)


def number_of(tenant: TenantId, key: str) -> int:
    """The generation of a manifest's key; 0 of other keys."""
    prefix = Keys(tenant).manifests
    number = key.removeprefix(prefix).partition("-")[0]
    return int(number) if key.startswith(prefix) and number.isdecimal() else 0


def older(head: Head, known: KnownHead) -> str:
    """Why a HEAD cannot follow the known one; empty if it can."""
    if head.generation < known.generation:
        return f"it names generation {head.generation}, but this host has seen generation {known.generation}"
    if head.generation == known.generation and known.sha256 not in ("", head.sha256 or ""):
        return f"its generation {head.generation} is not the one that this host has seen"
    if head.epoch < known.epoch:
        return f"its epoch is {head.epoch}, but this host has seen epoch {known.epoch}"
    return ""


def _refuse(tenant: TenantId, brief: str, why: str) -> NoReturn:
    raise HeadRefused(
        brief,
        why=why,
        hint=f"{KEPT}; see what can be recovered: claw-runtime snapshot recover {tenant} --dry-run",
        tenant=tenant,
    )
