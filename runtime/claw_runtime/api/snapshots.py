"""Snapshots: list, compare, pin and restore a tenant's generations."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request
from pydantic import Field

from claw_runtime.api import routing
from claw_runtime.api.files import TYPES, unquoted_path
from claw_runtime.api.guard import grant_of
from claw_runtime.api.schemas import _Request, _Wire
from claw_runtime.api.tenants import Tenant, text
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.errors import Forbidden, InvalidSpec
from claw_runtime.formats.manifest import Entry
from claw_runtime.safefs.quoting import quoted
from claw_runtime.state.history.pins import LATEST
from claw_runtime.state.snapshots.diff import Change
from claw_runtime.state.snapshots.lookup import Snapshot
from claw_runtime.state.snapshots.precautions import Along
from claw_runtime.state.snapshots.recover import Recovered
from claw_runtime.state.snapshots.snapshots import Diff, Restored, Shown
from claw_runtime.tenancy import TenantId, tenant_id

Wanted = Annotated[
    str, Path(description="Generation, `latest`, a tag, `@2h` ago, or `@2026-11-20T10:00Z`: the newest until then")
]


class SnapshotAnswer(_Wire):
    """One generation in short; `current` is HEAD's, retention does not remove a `pinned` one."""

    generation: int
    created: str
    files: int
    bytes: int
    current: bool
    pinned: bool
    tag: str | None


class SnapshotsAnswer(_Wire):
    """All generations that are in the store, oldest first."""

    tenant_id: str
    snapshots: list[SnapshotAnswer]


class BigFile(_Wire):
    """One of the largest files of a generation."""

    path: str
    bytes: int


class SnapshotDetailAnswer(SnapshotAnswer):
    """One generation in full; `storedBytes` of its packs, which other generations may share."""

    tenant_id: str
    parent: int | None
    application: str
    image_digest: str
    directories: int
    links: int
    databases: int
    packs: int
    stored_bytes: int
    biggest: list[BigFile]


class ChangeAnswer(_Wire):
    """One path that differs; `what` differs if both have it. Bytes are null where the path is missing."""

    change: Literal["added", "removed", "changed"]
    path: str
    quoted: str
    type: Literal["file", "directory", "link"]
    bytes_before: int | None
    bytes_after: int | None
    what: list[str]


class DiffAnswer(_Wire):
    """What differs between two generations, in the order of paths."""

    tenant_id: str
    before: int
    after: int
    changes: list[ChangeAnswer]


class PinRequest(_Request):
    """The tag; without it, an existing tag stays."""

    tag: str | None = None


class RestoreRequest(_Request):
    """Everything, or only `paths` and what is below; `into` another tenant, whose state needs `replace`.

    The paths are exact, or `quoted` as in a list of files. A copy takes channels' logins along only `with_logins`, and
    is refused if it holds secrets unless `with_secrets`.
    """

    paths: list[Annotated[str, Field(min_length=1, max_length=4096)]] = Field(default_factory=list, max_length=1000)
    quoted: bool = False
    into: str | None = None
    replace: bool = False
    with_logins: bool = False
    with_secrets: bool = False
    dry_run: bool = False


class RestoreAnswer(_Wire):
    """`generation` is the new one, null when nothing was done; it follows `onto` and has the content of `source`."""

    tenant_id: str
    source_tenant_id: str
    source: int
    onto: int
    generation: int | None
    changes: list[ChangeAnswer]
    warnings: list[str]


class RecoverRequest(_Request):
    """With `acceptLoss`, also if a newer generation is known: it is lost then."""

    accept_loss: bool = False
    dry_run: bool = False


class FaultyAnswer(_Wire):
    """A generation that HEAD cannot name, and why; `created` is empty if its manifest cannot be read."""

    generation: int
    created: str
    fault: str


class RecoverAnswer(_Wire):
    """`condition` of the HEAD that was found, and what the new one names.

    `generation` is null if none is whole: the next claim starts empty. `known` is the newest that this host has seen.
    It `loses` state if `generation` is older than that. `faulty` generations are newer and not whole.
    """

    tenant_id: str
    condition: Literal["missing", "damaged", "older", "incomplete"]
    why: str
    known: int
    generation: int | None
    created: str | None
    files: int
    bytes: int
    epoch: int
    loses: bool
    faulty: list[FaultyAnswer]
    dry_run: bool


def routes(runtime: Runtime) -> APIRouter:
    """The endpoints of snapshots."""
    router = routing.router("/api/v1/tenants/{tenant}/snapshots", "snapshots")
    _looking(router, runtime)
    _changing(router, runtime)
    return router


def _looking(router: APIRouter, runtime: Runtime) -> None:
    @router.get("")
    def snapshots(tenant: Tenant) -> SnapshotsAnswer:
        """All generations that can be restored."""
        who = tenant_id(tenant)
        found = runtime.snapshots.list(who)
        return SnapshotsAnswer(tenant_id=who, snapshots=[SnapshotAnswer.model_validate(_short(one)) for one in found])

    @router.get("/{snapshot}")
    def snapshot(tenant: Tenant, snapshot: Wanted) -> SnapshotDetailAnswer:
        """One generation in full."""
        who = tenant_id(tenant)
        return _detail(who, runtime.snapshots.show(who, snapshot))

    @router.get("/{snapshot}/diff")
    def diff(tenant: Tenant, snapshot: Wanted, to: str = LATEST) -> DiffAnswer:
        """The changes from this generation to the other."""
        who = tenant_id(tenant)
        return _diff(who, runtime.snapshots.diff(who, snapshot, to))


def _changing(router: APIRouter, runtime: Runtime) -> None:
    @router.post("/recover")
    def recover(tenant: Tenant, request: Request, body: RecoverRequest | None = None) -> RecoverAnswer:
        """Rebuild HEAD from the newest whole generation; 409 while HEAD is there and healthy."""
        who, options = tenant_id(tenant), body or RecoverRequest()
        if grant_of(request.scope).scope == "tenant":
            raise Forbidden("a tenant's token cannot rebuild its HEAD", hint="ask the operator")
        done = runtime.head_recovery.recover(who, accept_loss=options.accept_loss, dry_run=options.dry_run)
        return _recovered(done)

    @router.post("/{snapshot}/pin")
    def pin(tenant: Tenant, snapshot: Wanted, body: PinRequest | None = None) -> SnapshotAnswer:
        """Keep it despite retention, under a tag if one is given."""
        who, tag = tenant_id(tenant), body.tag if body else None
        done = runtime.snapshots.pin(who, snapshot, tag)
        return SnapshotAnswer.model_validate(_short(done))

    @router.delete("/{snapshot}/pin")
    def unpin(tenant: Tenant, snapshot: Wanted) -> SnapshotAnswer:
        """Unpin it and drop its tag: retention applies again."""
        who = tenant_id(tenant)
        done = runtime.snapshots.unpin(who, snapshot)
        return SnapshotAnswer.model_validate(_short(done))

    @router.post("/{snapshot}/restore")
    def restore(
        tenant: Tenant, snapshot: Wanted, request: Request, body: RestoreRequest | None = None
    ) -> RestoreAnswer:
        """Make its content the next generation of the tenant, or of another one; 409 while that tenant runs."""
        who, options = tenant_id(tenant), body or RestoreRequest()
        return _restored(_restoring(runtime, who, snapshot, options, request)())


def _restoring(
    runtime: Runtime, who: TenantId, snapshot: str, options: RestoreRequest, request: Request
) -> Callable[[], Restored]:
    if options.into is None:
        only_into = {"replace": options.replace, "withLogins": options.with_logins, "withSecrets": options.with_secrets}
        for name, given in only_into.items():
            if given:
                raise InvalidSpec(
                    f"the request is not valid: body.{name}", why="it requires into", hint="see docs/API.md"
                )
        paths = tuple(map(unquoted_path, options.paths)) if options.quoted else tuple(options.paths)
        return partial(runtime.snapshots.restore, who, snapshot, paths=paths, dry_run=options.dry_run)
    if grant_of(request.scope).scope == "tenant":
        raise Forbidden("a tenant's token cannot write another tenant's state", hint="ask the operator")
    if options.paths:
        raise InvalidSpec(
            "the request is not valid: body.paths", why="a copy includes everything", hint="leave paths or into out"
        )
    return partial(
        runtime.snapshots.copy_into,
        who,
        snapshot,
        tenant_id(options.into),
        replace_state=options.replace,
        along=Along(logins=options.with_logins, secrets=options.with_secrets),
        dry_run=options.dry_run,
    )


def _short(snapshot: Snapshot) -> dict[str, object]:
    return {
        "generation": snapshot.generation,
        "created": snapshot.past.created,
        "files": snapshot.past.files,
        "bytes": snapshot.past.size,
        "current": snapshot.current,
        "pinned": snapshot.pin is not None,
        "tag": snapshot.tag or None,
    }


def _detail(tenant: str, shown: Shown) -> SnapshotDetailAnswer:
    return SnapshotDetailAnswer.model_validate(
        {
            **_short(shown.snapshot),
            "tenant_id": tenant,
            "parent": shown.parent,
            "application": shown.application,
            "image_digest": shown.image,
            "directories": shown.directories,
            "links": shown.links,
            "databases": shown.databases,
            "packs": shown.packs,
            "stored_bytes": shown.stored,
            "biggest": [BigFile(path=text(entry.path), bytes=entry.size) for entry in shown.biggest],
        }
    )


def _diff(tenant: str, diff: Diff) -> DiffAnswer:
    return DiffAnswer(
        tenant_id=tenant,
        before=diff.before.generation,
        after=diff.after.generation,
        changes=[_change(one) for one in diff.changes],
    )


def _restored(done: Restored) -> RestoreAnswer:
    return RestoreAnswer(
        tenant_id=done.tenant,
        source_tenant_id=done.of,
        source=done.source.generation,
        onto=done.onto,
        generation=done.generation,
        changes=[_change(one) for one in done.changes],
        warnings=list(done.warnings),
    )


def _recovered(done: Recovered) -> RecoverAnswer:
    chosen = done.chosen
    return RecoverAnswer(
        tenant_id=done.tenant,
        condition=done.condition,
        why=done.why,
        known=done.known,
        generation=chosen.generation if chosen else None,
        created=chosen.created if chosen else None,
        files=chosen.files if chosen else 0,
        bytes=chosen.size if chosen else 0,
        epoch=done.epoch,
        loses=done.loses,
        faulty=[
            FaultyAnswer(generation=one.generation, created=one.created, fault=text(one.fault)) for one in done.faulty
        ],
        dry_run=done.dry_run,
    )


def _change(change: Change) -> ChangeAnswer:
    last = change.after or change.before
    return ChangeAnswer.model_validate(
        {
            "change": change.kind,
            "path": text(change.path),
            "quoted": quoted(change.path),
            "type": TYPES[last.type] if last else "",
            "bytes_before": _size(change.before),
            "bytes_after": _size(change.after),
            "what": change.what,
        }
    )


def _size(entry: Entry | None) -> int | None:
    return entry.size if entry else None
