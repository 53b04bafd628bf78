"""Which earlier generations a new one keeps in its history: the last few, then one an hour, then one a day.

No clock is read: only hours and days in which something was sealed count, so a tenant that was away for a year still
has its earlier generations. Pins keep generations regardless of retention.
"""

from collections.abc import Iterator, Sequence

from claw_runtime.formats.manifest import Past
from claw_runtime.spec.parts import Retention

_HOUR = len("2026-11-27T10")
_DAY = len("2026-11-27")


def kept(history: Sequence[Past], retention: Retention) -> tuple[Past, ...]:
    """The generations of a history (oldest first) that stay: the new generation counts as one of the newest, and the
    one before it always stays."""
    stay = {past.generation for past in history[-max(retention.keep_last - 1, 1) :]}
    stay.update(_last_of_each(history, _HOUR, retention.hourly))
    stay.update(_last_of_each(history, _DAY, retention.daily))
    return tuple(past for past in history if past.generation in stay)


def _last_of_each(history: Sequence[Past], digits: int, count: int) -> Iterator[int]:
    """The newest generation of each of the last `count` periods; the first `digits` of a time name a period."""
    seen: set[str] = set()
    for past in reversed(history):
        span = past.created[:digits]
        if span not in seen:
            if len(seen) >= count:
                return
            seen.add(span)
            yield past.generation
