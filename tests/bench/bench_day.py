"""A day of commits of four kinds of state: what is sent and stored, beside what changed (`torture/day.py`)."""

from bench.figures import Figure, load, now, progress
from torture import day

COMMITS = 2160
"""One every 40 s; `make torture` commits every 5 s, which takes eight times as long."""


def measure(_runs: int = 1) -> list[Figure]:
    """`day_bucket_ratio` and `day_sent_ratio`."""
    before = load()
    progress("day_bucket_ratio")
    sums = day.lived(COMMITS)
    whole = day.together(sums)
    progress("")
    common = {"unit": "x", "load": (before, load()), "at": now()}
    stored = ", ".join(f"{one.name} {one.bucket_ratio:.2f}" for one in sums)
    sent = ", ".join(f"{one.name} {one.sent_ratio:.2f}" for one in sums)
    every = f"a commit every {day.DAY / COMMITS:g} s"
    return [
        Figure(
            name="day_bucket_ratio",
            ours=[whole.bucket_ratio],
            most=day.MOST_STORED,
            note=f"{every}; {stored}",
            **common,
        ),
        Figure(name="day_sent_ratio", ours=[whole.sent_ratio], most=day.MOST_SENT, note=f"{every}; {sent}", **common),
    ]
