"""Compaction: which packs a commit replaces, so that a generation never names many packs or packs that are mostly dead.

The commit has the tree at hand. It stores what is left of such a pack again, from the tree, and the new generation no
longer names the pack; nothing is fetched from the store. The pack itself stays as long as a kept generation names it.

Two rules choose the packs. Both bound what is stored again for each byte that changes:

- Dead bytes: while the packs hold more than `DEAD` dead bytes for each live one, those with the smallest live share are
  replaced.
- Number: when there are `MOST` packs that are not a quarter full, those of similar size become one pack. A frame moves
  into a pack that is several times as large each time, so it moves once or twice until its pack is a quarter full
  (docs/adr/0014-compaction-at-commit.md).
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from claw_runtime.formats.manifest import Extent, PackRef
from claw_runtime.state.commit.pack_upload import FULL, WEIGHT

MOST: Final = 16
"""Packs of a generation that are not a quarter full, before some of them become one."""
QUARTER: Final = FULL // 4
DEAD: Final = 0.5
"""Dead bytes that the packs of a generation may hold, for each live one."""
MOVED: Final = 16 * FULL
"""What one commit stores again at most, about: a release waits for it. The next commits continue."""
SLACK: Final = 256 * 1024
"""Dead bytes that are never worth a change."""


@dataclass(slots=True)
class _Left:
    """What a generation still needs of a pack: `stored` bytes of `size`; `weight` is what they count in a new pack."""

    sha256: str
    size: int
    stored: int = 0
    weight: int = 0


def retired(frames: Iterable[Extent], packs: Iterable[PackRef], fixed: Collection[str] = ()) -> frozenset[str]:
    """Digests of the packs to replace.

    Args:
        frames: Every frame that the parent generation needs, once.
        packs: Those that the parent generation names.
        fixed: Digests of packs that stay: the tree lacks some of their content.
    """
    left = {ref.sha256: _Left(ref.sha256, ref.size) for ref in packs if ref.sha256 not in fixed}
    for extent in frames:
        if (one := left.get(extent.pack)) is not None:
            one.stored += extent.stored
            one.weight += extent.raw + WEIGHT
    dead = _mostly_dead(left.values())
    small = [one for one in left.values() if one.sha256 not in dead and one.weight < QUARTER]
    return dead | _of_similar_size(small)


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


def _of_similar_size(packs: Sequence[_Left]) -> frozenset[str]:
    """Of too many packs, the smallest ones: so many that the result is as large as possible beside its largest part."""
    if len(packs) < MOST:
        return frozenset()
    ordered = sorted(packs, key=lambda one: one.weight)
    total, best, count = 0, 0.0, 0
    for number, one in enumerate(ordered, 1):
        total += one.weight
        if number > 1 and total >= best * one.weight:
            best, count = total / max(one.weight, 1), number
    return frozenset(one.sha256 for one in ordered[:count])
