"""What a person should know, and what is left out, before a state is put back or copied for another tenant.

A channel's login is a key that changes with every use, such as WhatsApp's: an older one, or one in two places, may end
the login of the tenant. A secret of one tenant in a copy would be known to another. What the workload excludes is no
part of a state, although an earlier generation may have it: such as a key in a file that is written at each start.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from claw_runtime.errors import Conflict
from claw_runtime.formats.manifest import Entry, Manifest
from claw_runtime.safefs.quoting import quoted
from claw_runtime.state.rules.handed_out import SecretSearch
from claw_runtime.state.rules.selection import EVERYTHING, Selection
from claw_runtime.state.snapshots.diff import inside_of, lies
from claw_runtime.tenancy import TenantId


@dataclass(frozen=True, slots=True, kw_only=True)
class Precautions:
    """Facts about tenants that are not in the store.

    Attributes:
        logins: Patterns, as in .gitignore, of the channels' logins in a tenant's state.
        secrets: Names and values of the first tenant's secrets that the second one does not have.
        unexcluded: All names but those that the tenant's workload excludes.
    """

    logins: Callable[[TenantId], Sequence[str]] = lambda _tenant: ()
    secrets: Callable[[TenantId, TenantId], Sequence[tuple[str, str]]] = lambda _tenant, _other: ()
    unexcluded: Callable[[TenantId], Selection] = lambda _tenant: EVERYTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Along:
    """Whether a copy for another tenant includes the channels' logins, and files with secrets of the first tenant."""

    logins: bool = False
    secrets: bool = False


def older_logins(now: Sequence[Entry], after: Sequence[Entry], logins: Sequence[str]) -> tuple[str, ...]:
    """A warning if the login of a channel would change."""
    there = {entry.path: entry for entry in now if entry.type == "f"}
    changed = [
        entry.path
        for entry in _logins(after, logins)
        if entry.type == "f" and (entry.path not in there or not there[entry.path].same_as(entry))
    ]
    if not changed:
        return ()
    what = f"it puts back an earlier login of a channel ({_some(changed)})"
    return (f"{what}: the channel may log the tenant out; with --path, other parts can be restored alone",)


def without_logins(
    document: Manifest, logins: Sequence[str], target: TenantId, along: Along
) -> tuple[Manifest, tuple[str, ...]]:
    """What is copied for another tenant, and what to know about it."""
    found = _logins(document.entries, logins)
    files = [entry.path for entry in found if entry.type == "f"]
    if not files:
        return document, ()
    if along.logins:
        both = f"{document.tenant} and {target} have the same login of a channel ({_some(files)})"
        return document, (f"{both}: the channel may log one of them out; do not run both",)
    left = set(map(id, found))
    entries = tuple(entry for entry in document.entries if id(entry) not in left)
    told = f"logins of channels are left out ({_some(files)}): link the channels again, or add --with-logins"
    return replace(document, entries=entries), (told,)


def without_excluded(
    entries: Sequence[Entry], *selections: Selection, paths: Sequence[str] = ("",)
) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    """The entries that none of the selections excludes, and what to know about the others.

    Args:
        paths: What is outside all of them is not looked at. A path that is excluded itself was asked for by its name.
    """
    rules = tuple(dict.fromkeys(selections))

    def excluded(path: str, is_dir: bool) -> bool:
        return any(rule.excludes(path, is_dir) for rule in rules)

    inside = list(map(inside_of, paths))
    named = [path for path in inside if path and (excluded(path, False) or excluded(path, True))]
    left = [
        entry
        for entry in entries
        if excluded(entry.path, entry.type == "d")
        and any(lies(entry.path, path) for path in inside)
        and not any(lies(entry.path, path) for path in named)
    ]
    if not left:
        return tuple(entries), ()
    gone = set(map(id, left))
    told = f"what the workload excludes is left out ({_some([entry.path for entry in left])})"
    return tuple(entry for entry in entries if id(entry) not in gone), (told,)


def refuse_secrets(search: SecretSearch, source: TenantId, target: TenantId) -> None:
    """Refuse a copy in which a secret of the source was found. Raises `Conflict`."""
    if not search.found:
        return
    path, name = search.found[0]
    more = f" and {len(search.found) - 1} more" if len(search.found) > 1 else ""
    raise Conflict(
        f"the copy would give {target} a secret of {source}",
        why=f"{quoted(path)} holds its {name} in plain text{more}",
        hint="nothing was changed; exclude that file and release the tenant again, or add --with-secrets",
        tenant=target,
    )


def _logins(entries: Sequence[Entry], logins: Sequence[str]) -> list[Entry]:
    if not logins:
        return []
    others = Selection.everything(logins)
    return [entry for entry in entries if not others.stores(entry.path, entry.type == "d")]


def _some(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{quoted(paths[0])[:200]}{more}"
