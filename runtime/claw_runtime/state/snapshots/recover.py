"""Rebuilds a tenant's HEAD from the manifests in the store, when it is missing, damaged or has gone back.

It names the newest generation that is whole: its manifest can be read and fits its key, and every pack and blob exists.
Its epoch is above every epoch in the store and above the remembered one, so a runtime that still has the tenant is
fenced, and no object is written under an epoch twice. Nothing else in the store changes, so a lost choice is no loss.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from typing import Final, Literal, NoReturn

from claw_runtime.errors import Conflict, RestoreFailed, StateMissing, VerifyMismatch
from claw_runtime.formats import pack as packs
from claw_runtime.formats.head import UNCLAIMED, Head, HeadRefused, new_commit_id, timestamp
from claw_runtime.formats.manifest import Manifest, Past
from claw_runtime.ports import Clock, KnownHead, ObjectMissing, ObjectStore
from claw_runtime.state.lease.heads import HeadLost
from claw_runtime.state.lease.known_heads import older
from claw_runtime.state.repository import Repository
from claw_runtime.telemetry.events import Recorder, unrecorded
from claw_runtime.tenancy import Keys, TenantId

TAIL: Final = 64 * 1024
"""Bytes of a pack's end that the first request fetches; its index is rarely larger."""
_THREADS: Final = 8

Exclusive = Callable[[TenantId], AbstractContextManager[Callable[[str], None]]]
Condition = Literal["missing", "damaged", "older", "incomplete"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A generation in the store. `created` is ISO 8601 in UTC, empty if the manifest cannot be read; `fault` is why it
    cannot be HEAD's, empty if it can."""

    generation: int
    sha256: str
    created: str
    files: int
    size: int
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What a recovery did, or would do.

    Attributes:
        condition: Of the HEAD that was found; `incomplete` if its generation is not whole. `why` in words.
        known: The newest generation that this host has seen; 0 if none.
        chosen: The generation that HEAD names now; None if the store has no whole one.
        faulty: Generations that are newer, or of the same number, and were not chosen; newest first.
        epoch: HEAD's new epoch.
        loses: The chosen generation is older than one that this host has seen.
        dry_run: Nothing was written.
    """

    tenant: TenantId
    condition: Condition
    why: str
    known: int
    chosen: Candidate | None
    faulty: tuple[Candidate, ...]
    epoch: int
    loses: bool
    dry_run: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Present:
    """HEAD as it is: None and no etag when it is missing, None with one when it is damaged."""

    head: Head | None
    etag: str | None
    damage: str = ""
    epoch: int = 0


class HeadRecovery:
    """Recoveries of one runtime.

    Args:
        exclusive: Keeps other operations from the tenant on this host meanwhile (`Tenants.exclusive`).
        record: Called with a kind of event and its facts.
    """

    def __init__(
        self,
        repository: Repository,
        store: ObjectStore,
        clock: Clock,
        exclusive: Exclusive,
        record: Recorder = unrecorded,
    ) -> None:
        self._repository, self._store, self._clock = repository, store, clock
        self._heads, self._generations = repository.heads, repository.generations
        self._exclusive, self._record = exclusive, record

    def recover(self, tenant: TenantId, *, accept_loss: bool = False, dry_run: bool = False) -> Recovered:
        """Rebuild HEAD.

        Args:
            accept_loss: Also if the newest whole generation is older than one that this host has seen, or did not grow
                from it. If none is whole, HEAD says that the state was removed, and the next claim starts empty. A tree
                at rest on this host becomes a kept tree.
            dry_run: Only report what would be done.

        Raises:
            Conflict: HEAD is there and healthy, or changed meanwhile, or another operation works on the tenant.
            StateMissing: Nothing is stored and nothing was ever known of the tenant.
            TenantLocked: Another living runtime holds the tenant.
            HeadRefused: State would be lost, and that was not accepted; or this is another store.
            StoreUnavailable, StoreDenied, BucketMissing: The store.
        """
        if dry_run:
            return replace(self._plan(tenant, accept_loss=accept_loss)[0], dry_run=True)
        with self._exclusive(tenant) as keep_tree:
            plan, present = self._plan(tenant, accept_loss=accept_loss)
            if plan.loses and not accept_loss:
                _refuse_loss(plan)
            if plan.loses:
                keep_tree("HEAD was made anew from an older generation")
            head = self._head(plan, present)
            # Before the swap: if this host dies in between, HEAD is as it was, and is refused again.
            self._heads.known.accept(tenant, head)
            try:
                self._heads.swap(tenant, head, etag=present.etag)
            except HeadLost as lost:
                raise Conflict(
                    f"HEAD of tenant {tenant} changed meanwhile",
                    why="another runtime wrote it",
                    hint=f"check it, then retry: claw-runtime snapshot list {tenant}",
                    tenant=tenant,
                ) from lost
        self._record("recovered", tenant=tenant, generation=head.generation, epoch=head.epoch, was=plan.condition)
        return plan

    def _head(self, plan: Recovered, present: _Present) -> Head:
        fresh = replace(UNCLAIMED, epoch=plan.epoch, commit_id=new_commit_id())
        if plan.chosen is None:
            above = max(
                plan.known, present.head.generation if present.head else 0, *(o.generation for o in plan.faulty)
            )
            return replace(fresh, generation=above + 1, sealed_at=timestamp(self._clock), deleted=True)
        return replace(
            fresh,
            generation=plan.chosen.generation,
            manifest=Keys(plan.tenant).manifest(plan.chosen.generation, plan.chosen.sha256),
            sha256=plan.chosen.sha256,
            sealed_at=plan.chosen.created,
            given_up=max((one.generation for one in plan.faulty), default=0),
        )

    def _plan(self, tenant: TenantId, *, accept_loss: bool) -> tuple[Recovered, _Present]:
        self._heads.known.check_store()
        known, present = self._heads.known.of(tenant), self._present(tenant)
        self._repository.leases.check_free(tenant, present.head)
        sizes = {item.key: item.size for item in self._store.list(Keys(tenant).prefix)}
        chosen, faulty = self._choose(tenant, sizes, known)
        seen = known.generation if known else 0
        loses = chosen.generation < seen if chosen else bool(seen or faulty)
        if loses and accept_loss:  # what did not grow from the known generation is better than nothing
            chosen, faulty = self._choose(tenant, sizes, None)
        none = "" if sizes else "nothing is stored"
        fault = self._fault_of(tenant, present.head, sizes) if present.head else none
        condition, why = _condition(tenant, present, known, chosen, fault)
        plan = Recovered(
            tenant=tenant,
            condition=condition,
            why=why,
            known=seen,
            chosen=chosen,
            faulty=faulty,
            epoch=1 + max(present.epoch, known.epoch if known else 0, self._epoch(tenant, sizes)),
            loses=loses,
            dry_run=False,
        )
        return plan, present

    def _present(self, tenant: TenantId) -> _Present:
        for attempt in range(2):  # it is read twice before it counts as damaged
            try:
                found = self._heads.unchecked(tenant)
            except HeadRefused as error:
                if attempt:
                    data, etag = self._store.get(Keys(tenant).head)
                    return _Present(head=None, etag=etag, damage=error.why, epoch=_epoch_of(data))
            else:
                if found is None:
                    return _Present(head=None, etag=None)
                return _Present(head=found[0], etag=found[1], epoch=found[0].epoch)
        raise AssertionError  # the second attempt returns

    # --- generations ---

    def _choose(
        self, tenant: TenantId, sizes: Mapping[str, int], known: KnownHead | None
    ) -> tuple[Candidate | None, tuple[Candidate, ...]]:
        """The newest whole generation, and those of its number or above that are not chosen, newest first."""
        prefix, faulty, seen = Keys(tenant).manifests, list[Candidate](), known.sha256 if known else ""
        found = [key.removeprefix(prefix).partition("-")[0] for key in sizes if key.startswith(prefix)]
        for number in sorted({int(text) for text in found if text.isdecimal()}, reverse=True):
            some = list(self._candidates(tenant, number, sizes, known))
            whole = [one for one in some if not one.fault]
            best = max(whole, key=lambda one: (one.sha256 == seen, one.created), default=None)
            rivals = (replace(one, fault="another one of this number was chosen") for one in whole if one is not best)
            faulty += [*(one for one in some if one.fault), *rivals]
            if best:
                return best, tuple(faulty)
        return None, tuple(faulty)

    def _candidates(
        self, tenant: TenantId, number: int, sizes: Mapping[str, int], known: KnownHead | None
    ) -> Iterator[Candidate]:
        keys = Keys(tenant)
        start = keys.manifest(number, "")[: -len(".zst")]
        readable = {keys.manifest(number, past.sha256): past for past in self._generations.listed(tenant, number)}
        for key in (key for key in sizes if key.startswith(start)):
            if (past := readable.get(key)) is None:
                short = key.removeprefix(start).removesuffix(".zst")
                fault = "its manifest is damaged"
                yield Candidate(generation=number, sha256=short, created="", files=0, size=0, fault=fault)
                continue
            try:
                document = self._generations.of_past(tenant, past)
            except (RestoreFailed, VerifyMismatch) as error:
                yield Candidate(
                    generation=number, sha256=past.sha256, created="", files=0, size=0, fault=f"unreadable: {error}"
                )
            else:
                yield _candidate(document, past, _fault(document, past, sizes, known))

    def _fault_of(self, tenant: TenantId, head: Head, sizes: Mapping[str, int]) -> str:
        """Why the generation that HEAD names is not whole; empty if it is, or if HEAD names none."""
        if head.manifest is None or head.sha256 is None:
            return ""
        try:
            document = self._generations.newest(tenant, head)
        except (RestoreFailed, VerifyMismatch) as error:
            return str(error)
        return _fault(document, document.past(head.sha256), sizes, None)

    # --- epochs ---

    def _epoch(self, tenant: TenantId, sizes: Mapping[str, int]) -> int:
        """The highest epoch under which an object in the store was written; 0 if there is none."""
        keys = Keys(tenant)
        named = (key.rpartition(".")[2] for key in sizes if key.startswith(keys.blobs))
        epochs = [int(text) for text in named if text.isdecimal()]
        found = [key for key in sizes if key.startswith(keys.packs)]
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="claw-recover") as pool:
            epochs += pool.map(lambda key: self._pack_epoch(tenant, key, sizes[key]), found)
        return max(epochs, default=0)

    def _pack_epoch(self, tenant: TenantId, key: str, size: int) -> int:
        """The epoch of a pack; 0 if the pack is damaged, which no generation can use."""
        with suppress(VerifyMismatch, RestoreFailed, ObjectMissing):
            tail = self._store.get_range(key, max(0, size - TAIL), min(size, TAIL))
            if (wanted := packs.trailer_size(tail)) > len(tail):
                tail = self._store.get_range(key, max(0, size - wanted), min(size, wanted))
            return packs.read_epoch(tail, self._repository.keyring.sealer(tenant))
        return 0


def _condition(
    tenant: TenantId, present: _Present, known: KnownHead | None, chosen: Candidate | None, fault: str
) -> tuple[Condition, str]:
    """What is wrong with HEAD. `fault` is what is wrong with its generation, or that nothing is stored."""
    head = present.head
    if present.damage:
        return "damaged", present.damage
    if head is None:
        if fault and not (known and known.generation):
            raise StateMissing(
                f"tenant {tenant} has no stored state", hint="there is nothing to recover", tenant=tenant
            )
        return "missing", f"this host knows its generation {known.generation}" if known else "it has objects"
    if known and (why := older(head, known)):
        return "older", why
    if chosen and chosen.generation > head.highest:
        return "older", f"it names generation {head.generation}, but generation {chosen.generation} is stored"
    if fault:
        return "incomplete", f"its generation {head.generation} is not whole: {fault}"
    raise Conflict(
        f"HEAD of tenant {tenant} is there and healthy",
        why=f"it names generation {head.generation}, under epoch {head.epoch}",
        hint=f"to go back to an earlier state: claw-runtime snapshot restore {tenant} SNAPSHOT",
        tenant=tenant,
    )


def _refuse_loss(plan: Recovered) -> NoReturn:
    newest = f"generation {plan.chosen.generation}" if plan.chosen else "none"
    seen = f", but this host has seen generation {plan.known}" if plan.known else ""
    raise HeadRefused(
        f"the newest state of tenant {plan.tenant} is not in the store",
        why=f"the newest whole generation is {newest}{seen}",
        hint="nothing was changed; bring the objects back from the bucket's versions or a backup, then retry; "
        "or give up what is lost with --accept-loss",
        tenant=plan.tenant,
    )


def _candidate(document: Manifest, past: Past, fault: str) -> Candidate:
    return Candidate(
        generation=past.generation,
        sha256=past.sha256,
        created=document.created,
        files=document.files,
        size=document.size,
        fault=fault,
    )


def _fault(document: Manifest, past: Past, sizes: Mapping[str, int], known: KnownHead | None) -> str:
    """Why a readable generation cannot be HEAD's; empty if it can."""
    keys = Keys(document.tenant)
    if known and known.sha256 and past.generation >= known.generation and past.sha256 != known.sha256:
        grew = past.generation > known.generation and document.grew_from(known.generation, known.sha256)
        if not grew:
            return f"it did not grow from the generation {known.generation} that this host has seen"
    wanted = {keys.pack(ref.sha256): ref.size for ref in document.packs}
    wanted |= {keys.blob(entry.blob): entry.size for entry in document.entries if entry.blob is not None}
    lost = [key for key, size in wanted.items() if sizes.get(key) != size]
    return f"{len(lost)} of its {len(wanted)} objects are missing or cut off, such as {lost[0]}" if lost else ""


def _epoch_of(data: bytes) -> int:
    """The epoch that a damaged HEAD names; 0 if it cannot be read."""
    with suppress(ValueError, KeyError, TypeError):
        found = json.loads(data)["epoch"]
        return found if type(found) is int and 0 <= found < 1 << 31 else 0
    return 0
