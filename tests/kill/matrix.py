"""The matrix on a fake Podman: every story, killed at every one of its points, before it and after it."""

import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from claw_runtime.spec.contract import promise
from kill import engine_host, image, lives
from kill.forked import in_workers
from kill.lives import Case, Outcome, Sabotage
from kill.points import Shot
from kill.stories import BOOT, STORIES, Story


def run(
    stories: Sequence[Story] = (*STORIES, *BOOT),
    *,
    files_every: int = 1,
    again_every: int = 5,
    sabotage: Sabotage | None = None,
) -> list[Outcome]:
    """All outcomes, those of stories that nobody cut short first.

    Args:
        files_every: Of so many single changes of the file system one is a point.
        again_every: Of so many cases one has its recovery killed too.
        sabotage: As in `lives.tried`.
    """
    whole = whole_stories(stories, sabotage)
    cases = [case for story, told in zip(stories, whole, strict=True) for case in _cases(story, told, files_every)]
    cases = [
        replace(case, again=number // again_every * 7 % 23) if number % again_every == 0 else case
        for number, case in enumerate(cases)
    ]
    return whole + _tried(cases, sabotage)


def whole_stories(stories: Sequence[Story], sabotage: Sabotage | None = None) -> list[Outcome]:
    """The outcomes of stories that nobody cuts short."""
    return _tried([Case(story=story) for story in stories], sabotage)


def _cases(story: Story, told: Outcome, files_every: int) -> Iterator[Case]:
    """Before each call at a seam and each change of a file; after each call, unless such a case follows it at once.

    A daemon that dies after one call and a daemon that dies before the next leave the same things behind.
    """
    changes = [point for point in told.points if "fs." in point[0]]
    begun = {point for point in told.points if "fs." not in point[0]}.union(changes[files_every - 1 :: files_every])
    for point in told.points:
        name, nth = point
        if point in begun:
            yield Case(story=story, shot=Shot(name=name, nth=nth, when="before"))
        if "fs." not in name and told.follows.get(point) not in begun:
            yield Case(story=story, shot=Shot(name=name, nth=nth, when="after"))


def _tried(cases: Sequence[Case], sabotage: Sabotage | None) -> list[Outcome]:
    promise(image.contract(), image.IMAGE)  # compiles patterns once here, and not in each life
    workers = min(len(cases), os.cpu_count() or 1)
    with _hosts(workers) as addresses:
        return in_workers(cases, lambda number, case: lives.tried(case, addresses[number], sabotage), workers=workers)


@contextmanager
def _hosts(count: int) -> Iterator[list[str]]:
    """Addresses of hosts of fake engines, each a process of its own."""
    with tempfile.TemporaryDirectory(prefix="claw-k-") as directory:
        addresses = [Path(directory) / str(number) for number in range(count)]
        pids = [engine_host.serve(address) for address in addresses]
        try:
            yield [str(address) for address in addresses]
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
