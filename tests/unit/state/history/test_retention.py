"""Which generations stay: the newest, one an hour, one a day; and never none."""

from datetime import UTC, datetime, timedelta

from claw_runtime.formats.manifest import Past
from claw_runtime.spec.parts import Retention
from claw_runtime.state.history.retention import kept
from hypothesis import given
from hypothesis import strategies as st

START = datetime(2026, 1, 1, tzinfo=UTC)


def history(*minutes: int) -> tuple[Past, ...]:
    return tuple(
        Past(generation=number, sha256="a" * 64, created=(START + timedelta(minutes=at)).isoformat(), files=1, size=1)
        for number, at in enumerate(minutes, 1)
    )


def numbers(history: tuple[Past, ...], retention: Retention) -> list[int]:
    return [past.generation for past in kept(history, retention)]


def test_the_newest_stay() -> None:
    """The one that is being sealed is one of them."""
    assert numbers(history(*range(10)), Retention(keep_last=4, hourly=0, daily=0)) == [8, 9, 10]


def test_of_each_hour_and_day_the_last_one_stays() -> None:
    """Of as many hours and days in which something was sealed; those in which nothing was do not count."""
    day = 24 * 60
    past = history(0, 10, 59, 61, 100, day, day + 1, 40 * day, 40 * day + 5)

    assert numbers(past, Retention(keep_last=1, hourly=2, daily=0)) == [7, 9]
    assert numbers(past, Retention(keep_last=1, hourly=0, daily=3)) == [5, 7, 9]
    assert numbers(past, Retention(keep_last=1, hourly=4, daily=9)) == [3, 5, 7, 9]


@given(
    st.lists(st.integers(0, 100_000), max_size=60).map(sorted),
    st.builds(Retention, keep_last=st.integers(1, 9), hourly=st.integers(0, 5), daily=st.integers(0, 5)),
)
def test_what_stays_is_bounded_and_never_nothing(minutes: list[int], retention: Retention) -> None:
    """The parent always stays, order is kept, and a tenant who commits for ever has a bounded history."""
    past = history(*minutes)
    left = kept(past, retention)

    assert past[-1:] == left[-1:]
    assert list(left) == sorted(left, key=lambda one: one.generation)
    assert len(left) <= max(retention.keep_last - 1, 1) + retention.hourly + retention.daily
    assert kept(left, retention) == left
