"""Compares two generations' entries, and puts paths of one into the other."""

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from claw_runtime.errors import Conflict, StateMissing
from claw_runtime.formats.manifest import Entry
from claw_runtime.state.sqlite.backup import SIDECARS
from claw_runtime.tenancy import TenantId

Kind = Literal["added", "removed", "changed"]
What = Literal["type", "content", "target", "mode", "attributes", "time"]
_WHOLE: Final = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One path that differs. `what` differs is empty unless both have the path; an only `time` is no change."""

    kind: Kind
    path: str
    before: Entry | None
    after: Entry | None
    what: tuple[What, ...] = ()


def compare(before: Iterable[Entry], after: Iterable[Entry]) -> tuple[Change, ...]:
    """The changes from the first to the second, in the order of paths."""
    old, new = {entry.path: entry for entry in before}, {entry.path: entry for entry in after}
    changes = []
    for path in sorted(old.keys() | new.keys(), key=order):
        was, now = old.get(path), new.get(path)
        what = _differences(was, now) if was and now else ()
        if was is None or now is None or what not in ((), ("time",)):
            kind: Kind = "added" if was is None else "removed" if now is None else "changed"
            changes.append(Change(kind=kind, path=path, before=was, after=now, what=what))
    return tuple(changes)


def same(before: Sequence[Entry], after: Sequence[Entry]) -> bool:
    """Whether a restore of either gives the same tree, including times."""
    return len(before) == len(after) and all(old.same_as(new) for old, new in zip(before, after, strict=True))


def order(path: str) -> list[bytes]:
    """The sort key of tree order: a directory comes before its content, and that before the next sibling."""
    return os.fsencode(path).split(b"/")


def put_back(tenant: TenantId, now: Sequence[Entry], old: Sequence[Entry], paths: Collection[str]) -> tuple[Entry, ...]:
    """The entries of `now`, but those at and below each path as they are in `old`; missing directories above come too.

    Raises:
        StateMissing: Neither has the path.
        Conflict: An entry above it is not a directory.
    """
    entries = {entry.path: entry for entry in now}
    for path in paths:
        inside = inside_of(path)
        gone = [name for name in entries if lies(name, inside)]
        back = [entry for entry in old if lies(entry.path, inside)]
        if not gone and not back:
            raise StateMissing(
                f"no {inside!r} in either generation of tenant {tenant}",
                hint=f"claw-runtime sync list {tenant} --generation N lists what exists",
                tenant=tenant,
            )
        for name in gone:
            del entries[name]
        for entry in (*_above(inside, entries, old, tenant), *back):
            entries[entry.path] = entry
            if entry.kind == "sqlite":  # sidecars of one state of a database would damage another state of it
                for suffix in SIDECARS:
                    entries.pop(f"{entry.path}{suffix}", None)
    return tuple(sorted(entries.values(), key=lambda entry: order(entry.path)))


def inside_of(path: str) -> str:
    """A path as names of a tree have it; empty for the whole tree."""
    return _WHOLE if path.strip("/") in ("", ".") else path.strip("/")


def lies(name: str, inside: str) -> bool:
    """Whether a name is at or below a path of `inside_of`."""
    return inside == _WHOLE or name == inside or name.startswith(f"{inside}/")


def _above(inside: str, entries: dict[str, Entry], old: Sequence[Entry], tenant: TenantId) -> list[Entry]:
    """The missing directories above a path."""
    steps = inside.split("/")[:-1]
    names = ["/".join(steps[: count + 1]) for count in range(len(steps))]
    for name in names:
        if name in entries and entries[name].type != "d":
            raise Conflict(
                f"{inside!r} cannot be restored alone",
                why=f"{name!r} is no longer a directory",
                hint=f"restore {name!r} instead",
                tenant=tenant,
            )
    missing = {name for name in names if name not in entries}
    return [entry for entry in old if entry.path in missing]


def _differences(was: Entry, now: Entry) -> tuple[What, ...]:
    if was.type != now.type:
        return ("type",)
    told: dict[What, bool] = {
        "content": not was.holds_same(now),
        "target": was.target != now.target,
        "mode": was.mode != now.mode,
        "attributes": was.xattrs != now.xattrs,
        "time": was.mtime_ns != now.mtime_ns,
    }
    return tuple(name for name, differs in told.items() if differs)
