"""What the store has of a tenant: HEAD, the generations reachable from it, and their files' content."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

from claw_runtime.errors import RestoreFailed, StateMissing, VerifyMismatch
from claw_runtime.formats import manifest as manifests
from claw_runtime.formats.envelope import is_wrapped, unwrap
from claw_runtime.formats.head import Head
from claw_runtime.formats.manifest import Base, Manifest, Past
from claw_runtime.ports import ObjectMissing, ObjectStore
from claw_runtime.safefs.tree import printable
from claw_runtime.state.history.pins import Pins
from claw_runtime.state.keyring import Keyring
from claw_runtime.state.lease.heads import Heads
from claw_runtime.state.restore.restore import read_file, refuse_restore
from claw_runtime.tenancy import Keys, TenantId


class Generations:
    """Reads of one store; changes nothing."""

    def __init__(self, store: ObjectStore, heads: Heads, pins: Pins, keyring: Keyring) -> None:
        self._store, self._heads, self._pins, self._keyring = store, heads, pins, keyring

    def head(self, tenant: TenantId) -> Head | None:
        """The present HEAD; None for a tenant that was never claimed. Raises as `Leases.acquire`."""
        found = self._heads.read(tenant)
        return found and found[0]

    def manifest(self, tenant: TenantId, generation: int | None = None) -> Manifest:
        """A generation's manifest, HEAD's by default. A lookup by number does not need HEAD's manifest.

        Raises:
            StateMissing: There is no such generation.
            RestoreFailed: It is damaged.
            StoreUnavailable, StoreDenied, BucketMissing: The store.
        """
        try:
            document = self.newest(tenant, self.head(tenant))
        except (RestoreFailed, VerifyMismatch):
            found = [] if generation is None else list(self.listed(tenant, generation))
            if len(found) != 1:  # of two, one is of somebody who lost a race, and only a newer one tells which
                raise
            return self.of_past(tenant, found[0])
        if generation is None or generation == document.generation:
            return document
        return self.of_past(tenant, self._past(document, generation))

    def follows(self, tenant: TenantId, head: Head, generation: int, sha256: str) -> bool:
        """Whether HEAD names this generation, or one that grew from it. Without a digest, the number alone decides.

        Raises as `manifest`.
        """
        if not sha256 or head.manifest is None or head.is_at(generation, sha256):
            return head.generation >= generation
        return head.generation > generation and self.newest(tenant, head).grew_from(generation, sha256)

    def number_of(self, tenant: TenantId, sha256: str) -> int | None:
        """The number of the generation with this digest, if HEAD names it or one that grew from it. Raises as
        `manifest`."""
        head = self.head(tenant)
        if head is None or head.manifest is None or head.sha256 == sha256:
            return head.generation if head and head.manifest else None
        past = self.earlier(self.newest(tenant, head))
        return next((one.generation for one in past if one.sha256 == sha256), None)

    def newest(self, tenant: TenantId, head: Head | None) -> Manifest:
        """The manifest that this HEAD names. Raises as `manifest`."""
        if head is None or head.manifest is None:
            raise StateMissing(
                f"tenant {tenant} has no generation",
                why=f"its state was removed at {head.sealed_at}"
                if head and head.deleted
                else "no state was ever stored for it",
                hint="a tenant's first release makes generation 1",
                tenant=tenant,
            )
        try:
            return self.of_head(tenant, head)
        except ObjectMissing as error:
            refuse_restore(tenant, head.generation, error)

    def series(self, tenant: TenantId, base: Base | None = None) -> Callable[[Past], Manifest]:
        """Reads manifests of earlier generations one by one, as `of_past`; consecutive ones of one base fetch it once.

        Args:
            base: That of the manifest that was read before.
        """

        def read(past: Past) -> Manifest:
            nonlocal base
            document = self.of_past(tenant, past, base)
            base = document.base or base
            return document

        return read

    def of_past(self, tenant: TenantId, past: Past, base: Base | None = None) -> Manifest:
        """The manifest of an earlier generation. Raises as `manifest`.

        Args:
            base: One that is not fetched again if the manifest has it, or is it.
        """
        try:
            key = Keys(tenant).manifest(past.generation, past.sha256)
            return self._fetch(tenant, past.generation, key, past.sha256, base=base)
        except ObjectMissing as error:
            refuse_restore(tenant, past.generation, error)

    def earlier(self, document: Manifest) -> tuple[Past, ...]:
        """The generations before this one that are still in the store, oldest first."""
        if document.history or document.parent is None:
            return document.history
        found: list[Past] = []  # sealed when a manifest named only its parent
        with suppress(ObjectMissing, RestoreFailed, VerifyMismatch):  # earlier generations cannot be found through it
            while document.parent is not None:
                sha256 = document.parent.sha256
                document = self._parent(document)
                found.append(document.past(sha256))
        return tuple(reversed(found))

    def listed(self, tenant: TenantId, generation: int | None = None) -> Iterator[Past]:
        """Valid manifests in the store, oldest first, including those that no history names any more; of one
        generation, or of all. The time of creation, the number of files and their size are left empty."""
        keys = Keys(tenant)
        for item in self._store.list(keys.manifests):
            with suppress(ObjectMissing, ValueError):
                number = int(item.key.removeprefix(keys.manifests).partition("-")[0])
                if generation not in (None, number):
                    continue
                sha256 = hashlib.sha256(self._store.get(item.key)[0]).hexdigest()
                if keys.manifest(number, sha256) == item.key:
                    yield Past(generation=number, sha256=sha256, created="", files=0, size=0)

    def read(self, tenant: TenantId, path: str, generation: int | None = None) -> Iterator[bytes]:
        """One file's content from a generation; the digest is checked after the last piece.

        Raises:
            StateMissing: There is no such file, or no such generation.
            RestoreFailed: The generation is damaged.
            StoreUnavailable, StoreDenied, BucketMissing: The store.
        """
        document = self.manifest(tenant, generation)
        entry = document.find(path)
        if entry is None or entry.type != "f":
            raise StateMissing(
                f"no file {printable(path)} in generation {document.generation} of tenant {tenant}",
                hint=f"`claw-runtime sync list {tenant}` lists what exists",
                tenant=tenant,
            )
        return self.content(document, entry)

    def of_head(self, tenant: TenantId, head: Head, known: Manifest | None = None) -> Manifest:
        """The manifest that this HEAD names. If it is `known`, it and its base are fetched and checked, but not parsed
        again, since a manifest of 100,000 names takes 90 MB."""
        if head.manifest is None or head.sha256 is None:
            raise RestoreFailed(f"tenant {tenant} has no generation", hint="nothing was stored yet", tenant=tenant)
        return self._fetch(tenant, head.generation, head.manifest, head.sha256, known)

    def weight(self, tenant: TenantId) -> tuple[int, int]:
        """Objects that are stored of a tenant, HEAD excepted, and their bytes."""
        keys = Keys(tenant)
        sizes = [item.size for item in self._store.list(keys.prefix) if item.key != keys.head]
        return len(sizes), sum(sizes)

    def _past(self, document: Manifest, generation: int) -> Past:
        tenant = document.tenant
        for past in self.earlier(document):
            if past.generation == generation:
                return past
        pin = self._pins.find(tenant, generation)
        if pin is None:
            raise StateMissing(
                f"tenant {tenant} has no generation {generation}",
                why=f"the newest is generation {document.generation}; the wanted one was removed, or never existed",
                hint=f"`claw-runtime snapshot list {tenant}` lists those that exist",
                tenant=tenant,
            )
        return pin.past

    def _parent(self, document: Manifest) -> Manifest:
        parent = document.parent
        if parent is None or parent.generation >= document.generation:
            raise RestoreFailed(
                f"generation {document.generation} of tenant {document.tenant} has no readable parent",
                hint="older generations cannot be found through it",
                tenant=document.tenant,
            )
        return self._fetch(document.tenant, parent.generation, parent.key, parent.sha256)

    def _fetch(
        self,
        tenant: TenantId,
        generation: int,
        key: str,
        sha256: str,
        known: Manifest | None = None,
        base: Base | None = None,
    ) -> Manifest:
        if key != Keys(tenant).manifest(generation, sha256):
            raise RestoreFailed(f"a manifest key of tenant {tenant} is another's", why=key[:200], tenant=tenant)

        def base_of(generation: int, sha256: str) -> Manifest:
            if base and (base.document.generation, base.sha256) == (generation, sha256):
                return base.document
            return self._decoded(tenant, self._object(tenant, generation, sha256))

        if base and (base.document.generation, base.sha256) == (generation, sha256):
            return base.document
        data = self._object(tenant, generation, sha256)
        if known and known.base:
            self._object(tenant, known.base.document.generation, known.base.sha256)
        document = known or self._decoded(tenant, data, base_of)
        if document.generation != generation:
            raise RestoreFailed(f"{key} is of generation {document.generation}, not {generation}", tenant=tenant)
        return document

    def _object(self, tenant: TenantId, generation: int, sha256: str) -> bytes:
        """The bytes of a manifest object, checked; fetched twice before they are reported as damaged."""
        key = Keys(tenant).manifest(generation, sha256)
        data, _ = self._store.get(key)
        if hashlib.sha256(data).hexdigest() != sha256:
            data, _ = self._store.get(key)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise VerifyMismatch("a manifest is damaged", why=f"the digest of {key} differs", tenant=tenant)
        return data

    def _decoded(
        self, tenant: TenantId, data: bytes, base_of: Callable[[int, str], Manifest] | None = None
    ) -> Manifest:
        document = manifests.decode(unwrap(self._keyring.sealer(tenant), data, tenant), tenant=tenant, base_of=base_of)
        return replace(document, sealed=is_wrapped(data))

    def content(self, document: Manifest, entry: manifests.Entry, *, holes: bool = True) -> Iterator[bytes]:
        """Content of a file of a generation, piece by piece, without the zeros of its holes unless `holes`. Raises as
        `read`."""
        sealer = self._keyring.sealer(document.tenant)
        try:
            yield from read_file(self._store, document, entry, sealer, holes=holes)
        except ObjectMissing as error:
            refuse_restore(document.tenant, document.generation, error)
