"""What small commits cost for ever: bytes and seconds of each, and the restore after two thousand of them."""

import os
import random
import shutil
import time

from bench.bench_sync import LARGE, RACY, Bench, begin, commit, grow, told
from bench.figures import Figure, load, now, progress
from claw_runtime.state.lease.leases import UploadRight

COMMITS = 2000
PAGE = 4096
MOST_GETS = 16
"""GETs that a restore after many commits may need more than one of the same state, stored once."""


def measure_small(runs: int = 20) -> list[Figure]:
    """Bytes and seconds of a commit of one new file among 10,000 names."""
    return told(lambda made: _small(made, runs))


def _small(made: Bench, runs: int) -> list[Figure]:
    progress("commit_small_10k")
    before, store, tree = load(), made.store, grow(made.directory())
    time.sleep(RACY)
    repository = made.repository()
    right: UploadRight | None = commit(repository, begin(repository, made.tenant()), tree).right
    sent, seconds = list[float](), list[float]()
    dice = random.Random(2)
    for turn in range(runs + 1):
        (tree / "agent-0001" / f"new-{turn:04}.jsonl").write_bytes(dice.randbytes(1024).hex().encode())
        assert right is not None
        store.sent, began = 0, time.perf_counter()
        right = commit(repository, right, tree).right
        seconds.append(time.perf_counter() - began)
        sent.append(store.sent / 1e3)
    shutil.rmtree(tree)
    common = {"load": (before, load()), "at": now(), "note": "one new file of 2 kB among 10,000 names"}
    return [
        Figure(name="commit_small_10k_bytes", unit="kB", ours=sent[1:], most=32.0, **common),
        Figure(name="commit_small_10k_s", ours=seconds[1:], most=0.1, **common),
    ]


def measure_dense(runs: int = 3) -> list[Figure]:
    """Bytes of a commit of three changed pages of a file of 1 GiB that does not compress."""
    return told(lambda made: _dense(made, runs))


def _dense(made: Bench, runs: int) -> list[Figure]:
    progress("dense_page_bytes")
    before, store, tree = load(), made.store, made.directory()
    tree.mkdir()
    with (tree / "model.bin").open("wb") as file:
        for _ in range(LARGE >> 20):
            file.write(os.urandom(1 << 20))
    repository = made.repository()
    right: UploadRight | None = commit(repository, begin(repository, made.tenant()), tree).right
    sent = list[float]()
    dice = random.Random(3)
    for _ in range(runs + 1):
        with (tree / "model.bin").open("r+b") as file:
            for _ in range(3):
                file.seek(dice.randrange(LARGE // PAGE) * PAGE)
                file.write(os.urandom(PAGE))
        assert right is not None
        store.sent = 0
        right = commit(repository, right, tree).right
        sent.append(store.sent / 1e6)
    shutil.rmtree(tree)
    return [
        Figure(
            name="dense_page_bytes",
            unit="MB",
            ours=sent[1:],
            most=0.5,
            load=(before, load()),
            at=now(),
            note=f"3 changed pages of 1 GiB; the first change of all, {sent[0]:.0f} MB, stores the file in chunks",
        )
    ]


def measure_restore(runs: int = 5) -> list[Figure]:
    """A restore after two thousand small commits, beside one of the same state that was stored once."""
    return told(lambda made: _restore(made, runs))


def _restore(made: Bench, runs: int) -> list[Figure]:
    progress(f"restore_after_{COMMITS}")
    before, store = load(), made.store
    tree, many, once = grow(made.directory(), files=1000), made.tenant(), made.tenant()
    dice, repository = random.Random(4), made.repository()
    right: UploadRight | None = commit(repository, begin(repository, many), tree).right
    names = sorted(tree.glob("*/*"))
    for number in range(COMMITS):
        dice.choice(names).write_bytes(dice.randbytes(2048).hex().encode())
        with (tree / "gateway.log").open("ab") as log:
            log.write(dice.randbytes(60).hex().encode() + b"\n")
        assert right is not None
        right = commit(repository, right, tree, release=number == COMMITS - 1).right
    commit(repository, begin(repository, once), tree, release=True)
    seconds: dict[str, list[float]] = {many: [], once: []}
    gets: dict[str, int] = {}
    for _ in range(runs):
        for tenant in (many, once):
            reader, target = made.repository(), made.directory()
            store.requests.clear()
            began = time.perf_counter()
            reader.restorer.extract(tenant, target)
            seconds[tenant].append(time.perf_counter() - began)
            gets[tenant] = store.requests["get"]
            shutil.rmtree(target)
    shutil.rmtree(tree)
    return [
        Figure(
            name="restore_after_2000",
            ours=seconds[many],
            theirs=seconds[once],
            peer="the same state, stored once",
            goal=1.3,
            load=(before, load()),
            at=now(),
            note=f"{gets[many]} GETs beside {gets[once]}; the goal is at most {MOST_GETS} more",
        )
    ]
