"""Which names of a tenant's tree are stored, which are restored, and which are kept although the tree lacks them.

The rules of a workload, reduced to one answer a name. Patterns mean what they mean in .gitignore: what lies in an
excluded directory is excluded, even if a later `!pattern` matches. Answers are cached by name, since every pass asks
for the same names.

Paths are relative to the tree, as `safefs.tree` gives them.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from claw_runtime.spec.mappings import SyncMapping
from claw_runtime.spec.places import OWN
from claw_runtime.spec.plan import Workload
from claw_runtime.state.rules.gitignore import Patterns
from claw_runtime.state.sqlite.backup import SIDECARS

REMEMBERED: Final = 65_536
"""Maximum cached answers, about 150 bytes each; all tenants of a workload share them."""


class Fate(NamedTuple):
    """What happens to a name.

    Attributes:
        stored: The tree's version goes into the next generation.
        restored: A claim restores it.
        kept: The parent generation's version stays when the tree's is absent or not stored.
    """

    stored: bool
    restored: bool
    kept: bool


SYNCED: Final = Fate(stored=True, restored=True, kept=False)
COPIED: Final = Fate(stored=True, restored=True, kept=True)
UPLOADED: Final = Fate(stored=True, restored=False, kept=True)
DOWNLOADED: Final = Fate(stored=False, restored=True, kept=True)
IGNORED: Final = Fate(stored=False, restored=False, kept=True)
EXCLUDED: Final = Fate(stored=False, restored=True, kept=False)
"""Fate of excluded names: one that was stored earlier is restored once more; the next generation drops it."""


_FATES: Final = {
    ("bidirectional", "sync"): SYNCED,
    ("bidirectional", "copy"): COPIED,
    ("upload", "sync"): UPLOADED,
    ("upload", "copy"): UPLOADED,
    ("download", "sync"): DOWNLOADED,
    ("download", "copy"): DOWNLOADED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What happens to names at and below `path` (empty: the whole tree) that match `pattern` (None: all).

    `pattern` and `exclude` are relative to `path`; names that match `exclude` are left out. The rule does not cover
    names at or below `apart`.
    """

    path: str
    fate: Fate
    pattern: str | None = None
    exclude: tuple[str, ...] = ()
    apart: str = ""


class Selection:
    """The rules of one workload: the first rule that matches a path decides; `rest` decides when none matches.

    Selections with the same rules are equal and have the same hash, so answers can be cached with their rules. Safe to
    use from several threads.

    Attributes:
        restores_all: Whether a claim restores every name.
        keeps_none: Whether every name that the tree lacks is dropped.
        forgets_none: Whether every name lasts in a generation or a restore; see `forgets`.

    Args:
        exclude: Patterns of names that are left out before any rule applies.
    """

    def __init__(self, rules: Sequence[Rule] = (), *, exclude: Sequence[str] = (), rest: Fate = SYNCED) -> None:
        self._source = (tuple(rules), tuple(exclude), rest)
        self._withheld: Selection | None = None
        self._exclude = Patterns(exclude)
        self._rules = tuple(_Compiled(rule) for rule in rules)
        self._rest = rest
        fates = {rest, *(rule.fate for rule in rules)}
        self.restores_all = all(fate.restored for fate in fates)
        self.keeps_none = not any(fate.kept for fate in fates)
        lasting = all(fate.stored or (fate.restored and fate.kept) for fate in fates)
        self.forgets_none = lasting and not exclude and not any(rule.exclude for rule in rules)
        self._known: dict[tuple[str, bool], tuple[Fate, int]] = {}

    @classmethod
    def everything(cls, exclude: Sequence[str] = ()) -> "Selection":
        """A selection of the whole tree except names that match these patterns."""
        return cls(exclude=exclude)

    def after(self, restored: "Selection") -> "Selection":
        """This selection for a tree restored by other rules: names that they did not restore are not deleted."""
        if restored.restores_all:
            return self
        rules, exclude, rest = self._source
        found = Selection(rules, exclude=exclude, rest=rest)
        found._withheld, found.keeps_none = restored, False
        return found

    @property
    def withheld(self) -> str:
        """The rules as text for `parse`; empty when a claim restores every name."""
        rules, exclude, rest = self._source
        lists = [[rule.path, rule.fate, rule.pattern, rule.exclude, rule.apart] for rule in rules]
        return "" if self.restores_all else json.dumps([lists, exclude, rest], separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> "Selection":
        """A selection from its text; an empty text selects everything."""
        if not text:
            return cls()
        lists, exclude, rest = json.loads(text)
        rules = [
            Rule(path=path, fate=Fate(*fate), pattern=pattern, exclude=tuple(left_out), apart=apart)
            for path, fate, pattern, left_out, apart in lists
        ]
        return cls(rules, exclude=exclude, rest=Fate(*rest))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Selection) and self._source == other._source and self._withheld == other._withheld

    def __hash__(self) -> int:
        return hash((self._source, self._withheld))

    def stores(self, path: str, is_dir: bool) -> bool:
        """Whether the tree's version of a name goes into the next generation. A directory also goes when something in
        it does."""
        return self.fate(path, is_dir=is_dir).stored

    def descends(self, directory: str) -> bool:
        """Whether anything below a directory can be stored."""
        fate, governing = self._verdict(directory, is_dir=True)
        if fate.stored:
            return True
        # The rule of a directory covers all in it, except for earlier rules.
        return any(rule.fate.stored and rule.touches(directory) for rule in self._rules[:governing])

    def restores(self, path: str, *, is_dir: bool = False) -> bool:
        """Whether a claim restores this name. A directory is also restored when something in it is."""
        return self.fate(path, is_dir=is_dir).restored

    def keeps_deleted(self, path: str, *, is_dir: bool = False) -> bool:
        """Whether the parent generation's version of a name is kept when no version of the tree is stored."""
        return self.fate(path, is_dir=is_dir).kept

    def forgets(self, path: str, is_dir: bool) -> bool:
        """Whether neither a generation nor a restore has this name: the tree's own version lasts as long as its
        container, with all below a directory."""
        fate = self.fate(path, is_dir=is_dir)
        lasts = fate.stored or (fate.restored and fate.kept)
        return not lasts and not (is_dir and self.descends(path))

    def excludes(self, path: str, is_dir: bool) -> bool:
        """Whether a pattern leaves out this name, with all below a directory."""
        return self.fate(path, is_dir=is_dir) == EXCLUDED and not (is_dir and self.descends(path))

    def governing(self, path: str) -> int | None:
        """The number of the rule for a file's name; None for the rest and for excluded names."""
        fate, number = self._verdict(path, is_dir=False)
        return None if fate is EXCLUDED or number == len(self._rules) else number

    def fate(self, path: str, *, is_dir: bool) -> Fate:
        """What happens to a name."""
        return self._verdict(path, is_dir=is_dir)[0]

    def _verdict(self, path: str, *, is_dir: bool) -> tuple[Fate, int]:
        """The fate, and how many rules precede the one that gives it."""
        key = (path, is_dir)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            found = self._judge(path, is_dir=is_dir)
            if (
                self._withheld is not None
                and found[0] is not EXCLUDED
                and not self._withheld.restores(path, is_dir=is_dir)
            ):
                found = (found[0]._replace(kept=True), found[1])
            self._known[key] = found
        return found

    def _judge(self, path: str, *, is_dir: bool) -> tuple[Fate, int]:
        if self._exclude.name(path, is_dir=is_dir):
            return EXCLUDED, 0
        path = _database_of(path)
        for number, rule in enumerate(self._rules):
            if (fate := rule.judge(path, is_dir=is_dir)) is not None:
                return fate, number
        return self._rest, len(self._rules)


class _Compiled:
    """A rule with compiled patterns."""

    def __init__(self, rule: Rule) -> None:
        self.fate, self._path = rule.fate, rule.path
        self._below, self._apart = f"{rule.path}/" if rule.path else "", rule.apart
        self._pattern = None if rule.pattern is None else Patterns((rule.pattern,))
        self._exclude = Patterns(rule.exclude)

    def judge(self, path: str, *, is_dir: bool) -> Fate | None:
        """The fate of a path; None when the rule does not match it."""
        if self._apart and f"{path}/".startswith(f"{self._apart}/"):
            return None
        if path == self._path:
            if self._pattern is not None and is_dir:
                return None
            inner = path.rpartition("/")[2] if self._pattern else ""
        elif path.startswith(self._below):
            inner = path[len(self._below) :]
        else:
            return None
        if self._pattern is not None and not self._pattern.name(inner, is_dir=is_dir):
            return None
        return EXCLUDED if inner and self._exclude.name(inner, is_dir=is_dir) else self.fate

    def touches(self, directory: str) -> bool:
        """Whether the rule may match something below a directory."""
        return self._path.startswith(f"{directory}/") or f"{directory}/".startswith(self._below)


def _database_of(path: str) -> str:
    """The database of a sidecar's name. A sidecar follows its database's rule: one without the other is useless."""
    return path.rpartition("-")[0] if path.endswith(SIDECARS) else path


EVERYTHING: Final = Selection()
"""The whole tree, for commits and restores."""


def selection_of(workload: Workload, withheld: str = "") -> Selection:
    """The selection of a workload; equal rules give the same object.

    Args:
        withheld: Text of the rules by which the tree was restored, from its tenant's row.
    """
    return _made(workload.mappings, workload.exclude, workload.rest == "store", withheld)


def unexcluded(workloads: Sequence[Workload]) -> Selection:
    """The selection of all names but those that every one of these workloads excludes.

    It is for states that come from elsewhere: mappings say what a program may change, so only their patterns of
    excluded names apply. Of several workloads, the patterns that all have are taken, unless one of them includes
    names again.
    """
    found = {_unexcluded(one.mappings, one.exclude) for one in workloads}
    if len(found) < 2:
        return found.pop() if found else EVERYTHING
    lists = [one.exclude for one in workloads]
    if any(pattern.startswith("!") for patterns in lists for pattern in patterns):
        return EVERYTHING
    return Selection.everything([one for one in lists[0] if all(one in patterns for patterns in lists)])


@lru_cache(maxsize=256)
def _unexcluded(mappings: tuple[SyncMapping, ...], exclude: tuple[str, ...]) -> Selection:
    return Selection(_rules(mappings, lambda _mapping: SYNCED), exclude=exclude)


@lru_cache(maxsize=256)
def _made(mappings: tuple[SyncMapping, ...], exclude: tuple[str, ...], rest: bool, withheld: str) -> Selection:
    rules = _rules(mappings, lambda mapping: _FATES[mapping.direction, mapping.mode])
    return Selection(rules, exclude=exclude, rest=SYNCED if rest else IGNORED).after(Selection.parse(withheld))


def _rules(mappings: Sequence[SyncMapping], fate: Callable[[SyncMapping], Fate]) -> list[Rule]:
    return [
        Rule(
            path=mapping.path,
            fate=fate(mapping),
            pattern=mapping.pattern,
            exclude=mapping.exclude,
            apart="" if mapping.path else OWN,
        )
        for mapping in mappings
    ]
