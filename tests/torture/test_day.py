"""After a day of commits, the bucket holds little more than the kept generations differ by."""

from dataclasses import replace

import pytest
from torture import day
from torture.day import Sum
from torture.kinds import KINDS

COMMITS = 120
GOOD = Sum(name="chat", commits=9, sent=290, changed=100, bucket=190, differ=100, kept=5, packs=2, least=20, written=10)


@pytest.fixture(scope="module")
def sums() -> list[Sum]:
    """A day with fewer commits."""
    return day.lived(commits=COMMITS, seed=7)


def test_a_day_of_commits_stays_small(sums: list[Sum]) -> None:
    """What is sent and what is stored have a bound, with retention and collection as in the daemon."""
    assert list(day.broken(sums)) == []
    assert [one.name for one in sums] == [kind.name for kind in KINDS]
    assert all(one.commits == COMMITS for one in sums)
    assert all(one.kept < COMMITS / 2 for one in sums)


def test_a_small_commit_costs_little_more_than_its_manifest(sums: list[Sum]) -> None:
    """A changed line of a small state sends a few kilobytes in all."""
    assert min(one.least for one in sums) < 8000


@pytest.mark.parametrize("wrong", [{"sent": 310}, {"bucket": 210}])
def test_what_grows_too_much_is_noticed(wrong: dict[str, int]) -> None:
    """Each bound breaks by itself, and the report says how."""
    assert not list(day.broken([GOOD]))
    bad = replace(GOOD, **wrong)
    [fault] = day.broken([bad])
    page = list(day.report([bad], 1, 2.0))
    assert f"- {fault}" in page
    assert any(line.startswith("| together | 9 |") for line in page)
