"""Which earlier generations a new one keeps in its history: the last few, then one an hour, then one a day.

No clock is read: only hours and days in which something was sealed count, so a tenant that was away for a year still
has its earlier generations. Pins keep generations regardless of retention.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

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


def is_kept_long(created: str, now: str, retention: Retention) -> bool:
    """Whether the newest generation is the last of its hour or day, and so stays long after the newest ones have gone.

    Args:
        created: When it was sealed, ISO 8601 in UTC.
        now: When the next one is sealed, likewise.
    """
    digits = _HOUR if retention.hourly else _DAY if retention.daily else 0
    return created[:digits] != now[:digits]


def is_likely_last(created: str, now: str, retention: Retention) -> bool:
    """Whether the generation that is sealed now is probably the last of its hour or day: the next one follows at the
    same distance as this one its parent.

    Args:
        created: When its parent was sealed, ISO 8601 in UTC.
        now: When it is sealed itself, likewise.
    """
    with suppress(ValueError, TypeError, OverflowError):  # the parent's time is a record, and may be anything
        this = datetime.fromisoformat(now)
        distance = this - datetime.fromisoformat(created)
        return distance > timedelta() and is_kept_long(now, (this + distance).isoformat(), retention)
    return False


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
