"""Compaction: which packs a commit replaces, so that a generation never names many packs or packs that are mostly dead.

The commit has the tree at hand. It stores what is left of such a pack again, from the tree, and the new generation no
longer names the pack; nothing is fetched from the store. The pack itself stays as long as a kept generation names it.

A pack is *settled* if the last generation of an earlier hour or day names it: retention keeps that one for long, so to
move a frame out of the pack frees nothing and stores the frame twice. The others are *young*: they go soon after the
tree stops needing them. So young packs are made dense before they settle, and settled ones mostly stay.

Three rules choose the packs. Each bounds what is stored again for each byte that changes:

- Dead bytes: while the young packs hold more than `DEAD` dead bytes for each live one, those with the smallest live
  share are replaced. Of all packs together, `DEAD_IN_ALL` are too many.
- Number: when there are `MOST` young packs that are not a quarter full, or `MOST_IN_ALL` of any age, those of similar
  size become one pack. A frame moves into a pack that is several times as large each time, so it moves once or twice
  until its pack is a quarter full (docs/adr/0014-compaction-at-commit.md). It is done at `FEW` young packs already if
  earlier commits have sent so much that this costs little beside it: each pack less saves a restore one request. A
  release merges as many as `RELEASE` bytes allow, of any age.
- Before they settle: the commit that is probably the last of its hour replaces young packs that are small or have dead
  bytes. The next commit is expected at the same distance; if it comes earlier or later, little is lost.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from claw_runtime.formats.manifest import Extent, Manifest, PackRef
from claw_runtime.spec.parts import Retention
from claw_runtime.state.commit.pack_upload import FULL, WEIGHT
from claw_runtime.state.history.retention import is_kept_long, is_likely_last

MOST: Final = 16
"""Young packs of a generation that are not a quarter full, before some of them become one."""
MOST_IN_ALL: Final = 24
"""Likewise of all packs, settled ones included."""
FEW: Final = 8
"""Of such packs, if what they still hold is worth less than what is spare."""
SHARE: Final = 0.25
"""What is spare of each byte that a commit sends because it is new."""
WORTH: Final = 4
"""Packs that a release makes one, at least."""
RELEASE: Final = 2 * 1024 * 1024
"""Bytes that a release may always spend on fewer packs: the next that reads this generation is a restore."""
QUARTER: Final = FULL // 4
DEAD: Final = 0.5
"""Dead bytes that the young packs of a generation may hold, for each live one."""
DEAD_IN_ALL: Final = 1.0
"""Likewise all its packs: a restore would fetch much that it does not need."""
DENSE: Final = 0.9
"""Live share of a young pack that need not be replaced before it settles, unless the pack is small."""
CLOSED: Final = 2 * FULL
"""What is stored again at most before young packs settle: this comes once an hour, for all tenants at the same time."""
MOVED: Final = 16 * FULL
"""What one commit stores again at most, about: a release waits for it. The next commits continue."""
SLACK: Final = 256 * 1024
"""Dead bytes that are never worth a change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """What a commit knows of its parent's packs beside the manifest.

    Attributes:
        spare: Bytes that may be stored again only to have fewer packs: a share of what earlier commits sent.
        settled: Digests of the packs that an earlier generation, or the parent itself, keeps for long in any case.
        closing: The new generation is likely the last of its hour, or of its day where no hours are kept.
    """

    spare: int = 0
    settled: frozenset[str] = frozenset()
    closing: bool = False


NEW: Final = Packing()
"""Of a tenant without packs."""


@dataclass(slots=True)
class _Left:
    """What a generation still needs of a pack: `stored` bytes of `size`; `weight` is what they count in a new pack, and
    `cost` what it costs to move them: rows of a delta, too."""

    sha256: str
    size: int
    stored: int = 0
    weight: int = 0
    cost: int = 0


def retired(
    frames: Iterable[Extent],
    packs: Iterable[PackRef],
    fixed: Collection[str] = (),
    *,
    packing: Packing = NEW,
    release: bool = False,
) -> frozenset[str]:
    """Digests of the packs to replace.

    Args:
        frames: Every frame that the parent generation needs, once.
        packs: Those that the parent generation names.
        fixed: Digests of packs that stay: the tree lacks some of their content.
        release: The next that needs the generation is a restore.
    """
    left = {ref.sha256: _Left(ref.sha256, ref.size) for ref in packs if ref.sha256 not in fixed}
    for extent in frames:
        if (one := left.get(extent.pack)) is not None:
            one.stored += extent.stored
            one.weight += extent.raw + WEIGHT
            one.cost += extent.stored + WEIGHT
    gone = _mostly_dead(left.values(), DEAD_IN_ALL)
    young = [one for one in left.values() if one.sha256 not in gone and one.sha256 not in packing.settled]
    gone |= _mostly_dead(young, DEAD, sum(left[sha256].weight for sha256 in gone))
    gone |= _loose(young) if packing.closing else frozenset()
    small = [one for one in left.values() if one.sha256 not in gone and one.weight < QUARTER]
    young = [one for one in small if one.sha256 not in packing.settled]
    found = _of_similar_size(young, MOST, packing.spare) or _of_similar_size(small, MOST_IN_ALL)
    return gone | max(found, _affordable(small), key=len) if release else gone | found


def packing_at(parent: Manifest | None, before: Packing | None, now: str, retention: Retention | None) -> Packing:
    """What a commit must know of its parent's packs.

    Args:
        before: What was known when the parent was made; None if that is unknown, and then all its packs are settled.
        now: When the next generation is sealed, ISO 8601 in UTC.
        retention: None keeps every generation, and tells nothing.
    """
    if parent is None:
        return NEW
    known = before or Packing(settled=parent.pack_names)
    if retention is None:
        return known
    if is_kept_long(parent.created, now, retention):
        known = replace(known, settled=parent.pack_names)
    return replace(known, closing=is_likely_last(parent.created, now, retention))


def spare_after(before: int, sent: int, moved: int) -> int:
    """What is spare after a commit that sent so many bytes, of which it stored so many again."""
    return min(FULL, max(0, before - moved + int(SHARE * max(0, sent - moved))))


def _mostly_dead(packs: Collection[_Left], most: float, moved: int = 0) -> frozenset[str]:
    """Of packs with more than `most` dead bytes for each live one, those with the smallest live share.

    Args:
        moved: What the same commit stores again already.
    """
    live = sum(one.stored for one in packs)
    dead = sum(one.size for one in packs) - live
    found = set[str]()
    for one in sorted(packs, key=lambda one: one.stored / one.size):
        if dead <= most * live + SLACK or moved >= MOVED:
            break
        found.add(one.sha256)
        moved += one.weight
        dead -= one.size - one.stored
    return frozenset(found)


def _loose(packs: Collection[_Left]) -> frozenset[str]:
    """Packs that are small or have dead bytes, as many as may be moved; none if that changes nothing."""
    found, moved = list[_Left](), 0
    for one in sorted(packs, key=lambda one: one.stored / one.size):
        if one.stored >= DENSE * one.size and one.weight >= QUARTER:
            continue
        moved += one.weight
        if moved > CLOSED:
            break
        found.append(one)
    dead = sum(one.size - one.stored for one in found)
    return frozenset(one.sha256 for one in found) if len(found) > 1 or dead > SLACK else frozenset()


def _affordable(packs: Sequence[_Left]) -> frozenset[str]:
    """As many packs as may be moved at a release, without the largest; none if that saves few requests."""
    found, cost = list[str](), 0
    for one in sorted(packs, key=lambda one: one.weight)[:-1]:
        cost += one.cost
        if cost > RELEASE:
            break
        found.append(one.sha256)
    return frozenset(found if len(found) >= WORTH else ())


def _of_similar_size(packs: Sequence[_Left], most: int, spare: int = 0) -> frozenset[str]:
    """Of too many packs, the smallest ones: so many that the result is as large as possible beside its largest part."""
    if len(packs) < min(FEW, most):
        return frozenset()
    ordered = sorted(packs, key=lambda one: one.weight)
    total, best, count = 0, 0.0, 0
    for number, one in enumerate(ordered, 1):
        total += one.weight
        if number > 1 and total >= best * one.weight:
            best, count = total / max(one.weight, 1), number
    is_cheap = count > 2 and sum(one.cost for one in ordered[:count]) <= spare
    return frozenset(one.sha256 for one in ordered[:count]) if is_cheap or len(packs) >= most else frozenset()
