"""Which generations stay: the newest, one an hour, one a day; and never none."""

import itertools
from datetime import UTC, datetime, timedelta

from claw_runtime.formats.manifest import Past
from claw_runtime.spec.parts import Retention
from claw_runtime.state.history.retention import is_kept_long, is_likely_last, kept
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


def test_the_last_of_an_hour_or_day_is_known_by_the_time_of_the_next() -> None:
    """As soon as the next one is sealed in another hour; the day counts where no hours are kept."""
    hours, days, newest = Retention(), Retention(hourly=0), Retention(hourly=0, daily=0)
    last, same, hour, day = (f"2026-01-{one}:00.000+00:00" for one in ("01T10:59", "01T10:59", "01T11:00", "02T10:59"))
    assert [is_kept_long(last, now, hours) for now in (same, hour, day)] == [False, True, True]
    assert [is_kept_long(last, now, days) for now in (same, hour, day)] == [False, False, True]
    assert not any(is_kept_long(last, now, newest) for now in (same, hour, day))


def test_the_last_of_an_hour_is_expected_from_the_distance_of_commits() -> None:
    """The next one follows at the same distance; a time that cannot be read, or lies ahead, tells nothing."""
    now = "2026-01-01T10:58:00.000+00:00"
    hours, days = Retention(), Retention(hourly=0)
    assert is_likely_last("2026-01-01T10:55:00.000+00:00", now, hours)
    assert not is_likely_last("2026-01-01T10:57:00.000+00:00", now, hours)
    assert not is_likely_last("2026-01-01T10:55:00.000+00:00", now, days)
    assert is_likely_last("2025-12-31T20:00:00.000+00:00", now, days)
    for odd in (
        "",
        "yesterday",
        "2026-01-01T10:55:00",
        "2026-01-01T11:55:00.000+00:00",
        "0001-01-01T00:00:00.000+00:00",
    ):
        assert not is_likely_last(odd, now, Retention(hourly=0, daily=0))
        assert is_likely_last(odd, now, hours) in (False, odd.startswith("0001"))


@given(st.lists(st.integers(1, 90), min_size=40, max_size=40), st.integers(1, 3))
def test_what_counts_as_kept_long_stays_when_the_newest_have_gone(steps: list[int], keep_last: int) -> None:
    """For as many hours as are kept, and it alone of its hour."""
    retention = Retention(keep_last=keep_last, hourly=5, daily=0)
    past = history(*(sum(steps[:number]) for number in range(len(steps))))
    long = [
        one.generation for one, after in itertools.pairwise(past) if is_kept_long(one.created, after.created, retention)
    ]
    assert set(long[-4:]) <= set(numbers(past, retention))
    assert set(numbers(past, retention)) <= {*long, *(one.generation for one in past[-max(keep_last, 1) :])}
