"""A day of commits, one every five seconds, of four kinds of state, on a clock that the bench sets.

Retention is the daemon's, and so is the last collection; others before it keep this process small. In the end the
bucket may hold little more than the kept generations differ by, and little more may have been sent than changed. The
unit of a change is a chunk: a file of up to 64 KiB, or 64 KiB of a longer one, as zstd stores it. A line that a log
gains counts as the log's last chunk, and a page of a database as the chunk that it is in. What the programs
themselves wrote is reported as well.

`make torture` runs a whole day; a seeded sample is part of `make test`.

    python -m torture.day [--commits 17280] [--seed 1]
"""

import logging
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import click
import structlog
from claw_runtime.formats.manifest import Manifest
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.spec.parts import Retention
from claw_runtime.state.repository import CommitRequest, Repository, UploadRight
from claw_runtime.state.rules.selection import EVERYTHING
from claw_runtime.tenancy import Keys, tenant_id
from fakes.clock import FakeClock
from kill.forked import in_workers, memory_directory
from torture.kinds import KINDS, Kind

ALICE: Final = tenant_id("alice")
DAY: Final = 24 * 3600.0
COMMITS: Final = 17_280
MOST_SENT: Final = 3.0
"""Bytes sent for each byte that changed, of all kinds together."""
MOST_STORED: Final = 2.0
"""Bytes in the bucket for each byte that the kept generations differ by, likewise."""
COLLECTIONS: Final = 24
"""Collections in a day, without a grace period. The daemon makes one, but what is left in the end is the same."""


class Counting(MemoryStore):
    """Counts the bytes that are sent."""

    sent = 0

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        etag = super().put(key, data, if_absent=if_absent, if_match=if_match)
        self.sent += len(data)
        return etag

    def send(self, key: str, source: IO[bytes], size: int) -> None:
        super().send(key, source, size)  # which puts it


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """What a day of one kind of state cost, in bytes, or of several together.

    Attributes:
        commits: Generations that were made.
        sent: To the store: packs, manifests and HEADs.
        changed: Of the chunks that each generation has and the one before it lacks, as they are stored.
        bucket: In the bucket after the last collection.
        differ: Of the distinct chunks of all kept generations.
        kept: Generations in the bucket in the end.
        packs: That the last generation names.
        least: The smallest commit that changed something: what a change costs at least.
        written: By the programs, as far as they counted: lines, rows and pages, not the chunks that these are in.
    """

    name: str
    commits: int
    sent: int
    changed: int
    bucket: int
    differ: int
    kept: int
    packs: int
    least: int
    written: int

    @property
    def sent_ratio(self) -> float:
        return self.sent / self.changed

    @property
    def bucket_ratio(self) -> float:
        return self.bucket / self.differ


def together(sums: Sequence[Sum]) -> Sum:
    """All kinds as one."""
    return Sum(
        name="together",
        commits=sum(one.commits for one in sums),
        sent=sum(one.sent for one in sums),
        changed=sum(one.changed for one in sums),
        bucket=sum(one.bucket for one in sums),
        differ=sum(one.differ for one in sums),
        kept=sum(one.kept for one in sums),
        packs=max(one.packs for one in sums),
        least=min(one.least for one in sums),
        written=sum(one.written for one in sums),
    )


def chunks(document: Manifest) -> dict[str, int]:
    """Bytes in the store of each distinct chunk and blob, by digest."""
    found = {}
    for entry in document.entries:
        if entry.blob:
            found[entry.blob] = entry.size
        found.update((one.sha256 or entry.sha256 or "", one.stored) for one in entry.extents if not one.hole)
    return found


class Tenant:
    """One tenant with one kind of state, in a bucket in memory.

    Args:
        top: A directory for the tree.
        seconds: Between two commits.
    """

    def __init__(self, kind: type[Kind], top: Path, seed: int, seconds: float) -> None:
        self._clock, self._seconds = FakeClock(), seconds
        self._store = Counting(self._clock.now)
        self._repository = Repository(self._store, "here", self._clock, top / "scratch")
        self._tree = top / "tree"
        lease = self._repository.leases.acquire(ALICE)
        self._right: UploadRight = self._repository.restorer.restore(lease, self._tree)
        self._kind = kind(self._tree, random.Random(seed))

    def live(self, commits: int) -> Sum:
        """Commit so often, with collections between, and one long after the end."""
        changed, least, before, made = 0, sys.maxsize, dict[str, int](), 0
        self._kind.begin()
        try:
            for number in range(commits):
                self._kind.step(number)
                sent = self._store.sent
                document = self._commit()
                found = chunks(document)
                changed += sum(size for sha256, size in found.items() if sha256 not in before)
                before, made = found, document.generation
                least = min(least, self._store.sent - sent)
                if (number + 1) % max(1, commits // COLLECTIONS) == 0:
                    self._collect(grace=0)
            sent = self._store.sent
            self._clock.advance(2 * DAY)
            self._collect()
        finally:
            self._kind.end()
        return self._summed(made, sent, changed, least, len(document.packs))

    def _commit(self) -> Manifest:
        self._clock.advance(self._seconds)
        request = CommitRequest(
            right=self._right,
            tree=self._tree,
            selection=EVERYTHING,
            image_digest="",
            application="",
            release=False,
            retention=Retention(),
        )
        self._right = self._repository.committer.commit(request).right or self._right
        return self._repository.generations.manifest(ALICE)

    def _collect(self, grace: float = DAY) -> None:
        self._repository.heartbeats.beat()
        survey = None
        while True:  # as the daemon: part by part, over one survey
            survey = survey or self._repository.survey_garbage(ALICE)
            done = self._repository.collect_garbage(ALICE, self._right, survey=survey, grace=grace)
            if done is None or not done.left:
                return

    def _kept(self) -> Iterator[Manifest]:
        newest = self._repository.generations.manifest(ALICE)
        yield newest
        read = self._repository.generations.series(ALICE, newest.base)
        yield from map(read, self._repository.generations.earlier(newest))

    def _summed(self, made: int, sent: int, changed: int, least: int, packs: int) -> Sum:
        differ, kept = dict[str, int](), 0
        for document in self._kept():
            differ.update(chunks(document))
            kept += 1
        return Sum(
            name=self._kind.name,
            commits=made,
            sent=sent,
            changed=changed,
            bucket=sum(item.size for item in self._store.list(Keys(ALICE).prefix)),
            differ=sum(differ.values()),
            kept=kept,
            packs=packs,
            least=least,
            written=self._kind.written,
        )


def _lived(kind: type[Kind], commits: int, seed: int) -> Sum:
    with tempfile.TemporaryDirectory(prefix="claw-t-", dir=memory_directory()) as top:
        return Tenant(kind, Path(top), seed, DAY / commits).live(commits)


def lived(commits: int = COMMITS, seed: int = 1) -> list[Sum]:
    """A day of each kind, with so many commits at equal distances, in a few processes."""
    return in_workers(KINDS, lambda _, kind: _lived(kind, commits, seed), workers=min(os.cpu_count() or 1, len(KINDS)))


def broken(sums: Sequence[Sum]) -> Iterator[str]:
    """Bounds that do not hold."""
    whole = together(sums)
    if whole.sent_ratio > MOST_SENT:
        yield f"{whole.sent_ratio:.2f} bytes were sent for each that changed, more than {MOST_SENT:g}"
    if whole.bucket_ratio > MOST_STORED:
        yield f"the bucket has {whole.bucket_ratio:.2f} bytes for each that differs, more than {MOST_STORED:g}"


def report(sums: Sequence[Sum], seed: int, seconds: float) -> Iterator[str]:
    """The page `evidence/day.md`."""
    yield "# A day of commits"
    yield ""
    yield f"Seed {seed}, {seconds:.0f} s. Sizes in MB; docs/CRASHES.md describes what is counted."
    yield ""
    yield (
        "| state | commits | written | changed | sent | sent ÷ changed | bucket | difference | bucket ÷ difference "
        "| generations | packs | least, bytes |"
    )
    yield f"|---|{'---:|' * 11}"
    for one in (*sums, together(sums)):
        sizes = (one.written, one.changed, one.sent, one.bucket, one.differ)
        written, changed, sent, bucket, differ = (f"{size / 1e6:.1f}" for size in sizes)
        yield (
            f"| {one.name} | {one.commits} | {written} | {changed} | {sent} | {one.sent_ratio:.2f} | {bucket} "
            f"| {differ} | {one.bucket_ratio:.2f} | {one.kept} | {one.packs} | {one.least} |"
        )
    yield ""
    yield from (f"- {fault}" for fault in broken(sums))


def _page(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--commits", default=COMMITS, show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(commits: int, seed: int) -> None:
    """Commit four kinds of state for a day, and compare what was sent and is stored with what changed."""
    print(f"torture: a day of {commits} commits of {len(KINDS)} kinds of state; some minutes", file=sys.stderr)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))  # of each collection
    began = time.monotonic()
    sums = lived(commits, seed)
    target = Path(os.environ.get("EVIDENCE_DIR") or Path(__file__).resolve().parents[2] / "evidence")
    target.mkdir(parents=True, exist_ok=True)
    page = _page(report(sums, seed, time.monotonic() - began))
    (target / "day.md").write_text(page)
    print(f"{page}\nreport: {target / 'day.md'}", file=sys.stderr)
    sys.exit(any(True for _ in broken(sums)))


if __name__ == "__main__":
    main()
