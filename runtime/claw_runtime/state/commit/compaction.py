"""Compaction: which packs a commit replaces, so that a generation never names many packs or packs that are mostly dead.

The commit has the tree at hand. It stores what is left of such a pack again, from the tree, and the new generation no
longer names the pack; nothing is fetched from the store. The pack itself stays as long as a kept generation names it.

Two rules choose the packs. Both bound what is stored again for each byte that changes:

- Dead bytes: while the packs hold more than `DEAD` dead bytes for each live one, those with the smallest live share are
  replaced.
- Number: when there are `MOST` packs that are not a quarter full, those of similar size become one pack. A frame moves
  into a pack that is several times as large each time, so it moves once or twice until its pack is a quarter full
  (docs/adr/0014-compaction-at-commit.md). It is done at `FEW` packs already if earlier commits have sent so much that
  this costs little beside it: each pack less saves a restore one request. A release merges as many as `RELEASE` bytes
  allow.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from claw_runtime.formats.manifest import Extent, PackRef
from claw_runtime.state.commit.pack_upload import FULL, WEIGHT

MOST: Final = 16
"""Packs of a generation that are not a quarter full, before some of them become one."""
FEW: Final = 8
"""Of such packs, if what they still hold is worth less than what is spare."""
SHARE: Final = 0.25
"""What is spare of each byte that a commit sends because it is new."""
WORTH: Final = 4
"""Packs that a release makes one, at least."""
RELEASE: Final = 1024 * 1024
"""Bytes that a release may always spend on fewer packs: the next that reads this generation is a restore."""
QUARTER: Final = FULL // 4
DEAD: Final = 0.5
"""Dead bytes that the packs of a generation may hold, for each live one."""
MOVED: Final = 16 * FULL
"""What one commit stores again at most, about: a release waits for it. The next commits continue."""
SLACK: Final = 256 * 1024
"""Dead bytes that are never worth a change."""


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
    spare: int = 0,
    release: bool = False,
) -> frozenset[str]:
    """Digests of the packs to replace.

    Args:
        frames: Every frame that the parent generation needs, once.
        packs: Those that the parent generation names.
        fixed: Digests of packs that stay: the tree lacks some of their content.
        spare: Bytes that may be stored again only to have fewer packs (`spare_after`).
        release: The next that needs the generation is a restore.
    """
    left = {ref.sha256: _Left(ref.sha256, ref.size) for ref in packs if ref.sha256 not in fixed}
    for extent in frames:
        if (one := left.get(extent.pack)) is not None:
            one.stored += extent.stored
            one.weight += extent.raw + WEIGHT
            one.cost += extent.stored + WEIGHT
    dead = _mostly_dead(left.values())
    small = [one for one in left.values() if one.sha256 not in dead and one.weight < QUARTER]
    found = _of_similar_size(small, spare)
    return dead | max(found, _affordable(small), key=len) if release else dead | found


def spare_after(before: int, sent: int, moved: int) -> int:
    """What is spare after a commit that sent so many bytes, of which it stored so many again."""
    return min(FULL, max(0, before - moved + int(SHARE * max(0, sent - moved))))


def _mostly_dead(packs: Collection[_Left]) -> frozenset[str]:
    live = sum(one.stored for one in packs)
    dead = sum(one.size for one in packs) - live
    found, moved = set[str](), 0
    for one in sorted(packs, key=lambda one: one.stored / one.size):
        if dead <= DEAD * live + SLACK or moved >= MOVED:
            break
        found.add(one.sha256)
        moved += one.weight
        dead -= one.size - one.stored
    return frozenset(found)


def _affordable(packs: Sequence[_Left]) -> frozenset[str]:
    """As many packs as may be moved at a release, without the largest; none if that saves few requests."""
    found, cost = list[str](), 0
    for one in sorted(packs, key=lambda one: one.weight)[:-1]:
        cost += one.cost
        if cost > RELEASE:
            break
        found.append(one.sha256)
    return frozenset(found if len(found) >= WORTH else ())


def _of_similar_size(packs: Sequence[_Left], spare: int) -> frozenset[str]:
    """Of too many packs, the smallest ones: so many that the result is as large as possible beside its largest part."""
    if len(packs) < min(FEW, MOST):
        return frozenset()
    ordered = sorted(packs, key=lambda one: one.weight)
    total, best, count = 0, 0.0, 0
    for number, one in enumerate(ordered, 1):
        total += one.weight
        if number > 1 and total >= best * one.weight:
            best, count = total / max(one.weight, 1), number
    is_cheap = count > 2 and sum(one.cost for one in ordered[:count]) <= spare
    return frozenset(one.sha256 for one in ordered[:count]) if is_cheap or len(packs) >= MOST else frozenset()
