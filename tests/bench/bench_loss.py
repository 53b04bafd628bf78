"""What losing a host costs, and what commits cost a program that runs meanwhile.

A program writes a row into a SQLite database in its tenant's /state every few milliseconds, each in a transaction. The
real daemon commits the running tenant at its interval, over SQLite's backup API. Then every generation is read from the
bucket, as another host would read it. The time of its last row is compared with the time at which the next generation
existed: at worst, everything written in between is lost with the host. The outage is the longest time between two rows,
compared with the same program without commits.
"""

import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

from bench.bench_frozen import SMALL
from bench.figures import Figure, load, now, progress
from bench.stage import BUCKET, Stage, daemon, staged
from claw_runtime.api.client import Client
from claw_runtime.clock import SystemClock
from claw_runtime.objects.s3 import S3Store
from claw_runtime.state.repository import Repository
from claw_runtime.tenancy import TenantId
from fakes.live_podman import small_image

TENANT = TenantId("alice")
INTERVAL = 5.0
SLACK = 1.0  # seconds: a commit takes a part of one
SYNC = f"sync: {{policy: {{interval: {INTERVAL:g}s}}}}\n"
# By the clock of the whole host, so that rows can be compared with what other processes saw.
WRITER = """
import json, sqlite3, sys, threading, time
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
database.execute("PRAGMA journal_mode = WAL")
database.execute("CREATE TABLE words (at REAL, word TEXT)")
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
longest, last = 0.0, time.monotonic()
while not over.is_set():
    database.execute("INSERT INTO words VALUES (?, ?)", (time.monotonic(), "x" * 200))
    now = time.monotonic()
    longest, last = max(longest, now - last), now
    time.sleep(0.002)
json.dump(longest, sys.stdout)
"""


def measure(runs: int = 4) -> list[Figure]:
    """`sync_loss_s` and `sync_outage_s`: `runs` intervals of one running tenant."""
    before = load()
    progress("sync_loss_s")
    with staged(SMALL.format(image=small_image()) + SYNC) as stage, daemon(stage) as api:
        api.post(f"/api/v1/tenants/{TENANT}/claim", {})
        [state] = stage.settings.layout.slots.glob("*/state")
        with tempfile.TemporaryDirectory(dir=stage.home) as beside, writing(Path(beside) / "words.sqlite") as alone:
            time.sleep(2 * INTERVAL)
        with writing(state / "words.sqlite") as during:
            seen = _watched(api, runs + 2)
        losses = list(losses_of(stage, seen))
    progress("")
    told = f"commits every {INTERVAL:g} s; at worst, of {len(losses)}"
    return [
        Figure(
            name="sync_loss_s",
            ours=losses,
            quantile=1.0,
            most=INTERVAL + SLACK,
            load=(before, load()),
            at=now(),
            note=told,
        ),
        Figure(
            name="sync_outage_s",
            peer="the same program without commits",
            ours=during,
            theirs=alone,
            load=(before, load()),
            at=now(),
            note="the longest time between two transactions of a program that writes every 2 ms",
        ),
    ]


@contextmanager
def writing(database: Path) -> Iterator[list[float]]:
    """A program that writes until the end; then the list has its longest pause, in seconds."""
    longest: list[float] = []
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        yield longest
        said, _ = writer.communicate(timeout=30)
    longest.append(float(json.loads(said)))


def _watched(api: Client, generations: int) -> dict[int, float]:
    """When each of so many generations was in the store, by the monotonic clock."""
    seen: dict[int, float] = {}
    deadline = time.monotonic() + (generations + 2) * (INTERVAL + SLACK)
    while len(seen) < generations and time.monotonic() < deadline:
        number = api.get(f"/api/v1/tenants/{TENANT}/stored")["generation"]
        if number is not None:
            seen.setdefault(number, time.monotonic())
        time.sleep(0.02)
    return seen


def losses_of(stage: Stage, seen: dict[int, float]) -> Iterator[float]:
    """Seconds of words that were in no generation just before the next one was there."""
    ours = stage.settings
    store = S3Store(bucket=BUCKET, endpoint=ours.endpoint, access_key=ours.access_key, secret_key=ours.secret_key)
    repository = Repository(store, "elsewhere", SystemClock(), stage.home / "scratch-elsewhere")
    for number, following in pairwise(sorted(seen)[1:]):  # the first may have come before the first row
        target = stage.home / f"generation-{number}"
        repository.restorer.extract(TENANT, target, number)
        with closing(sqlite3.connect(target / "words.sqlite")) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            [last] = database.execute("SELECT max(at) FROM words").fetchone()
        yield seen[following] - last
