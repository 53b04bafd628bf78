"""Ten changed files among ten thousand, and their restore, beside restic: it keeps snapshots in a bucket, too."""

import random
import shutil
import sys
import time
from pathlib import Path

from bench import restic
from bench.bench_sync import BUCKET, RACY, Bench, begin, bench, commit, grow, timed
from bench.figures import Figure, load, now, take_turns
from bench.fleet import Unavailable
from claw_runtime.state.lease.leases import UploadRight

GOAL = 0.5


def measure(runs: int = 5) -> list[Figure]:
    """`restic_backup_10of10k` and `restic_restore_10k`; none, with the reason, where restic cannot be had."""
    try:
        with bench() as made:
            peer = restic.prepared(made.server, BUCKET, made.place)
            return _beside(made, peer, runs)
    except Unavailable as why:
        print(f"bench: the figures beside restic are skipped: {why}", file=sys.stderr)
        return []


def _beside(made: Bench, peer: restic.Restic, runs: int) -> list[Figure]:
    before, tree = load(), grow(made.directory())
    repository, tenant = made.repository(), made.tenant()
    right: UploadRight | None = commit(repository, begin(repository, tenant), tree).right
    peer.run("backup", str(tree))
    time.sleep(RACY)
    dice, names = random.Random(5), sorted(tree.glob("*/*"))

    def change() -> None:
        for path in dice.sample(names, 10):
            path.write_bytes(dice.randbytes(2048).hex().encode())

    def ours() -> float:
        nonlocal right
        change()
        assert right is not None
        began = time.perf_counter()
        right = commit(repository, right, tree).right
        return time.perf_counter() - began

    def theirs() -> float:
        change()
        return peer.run("backup", str(tree))

    mine, other = take_turns("restic_backup_10of10k", runs, ours, theirs)
    common = {"goal": GOAL, "note": "restic encrypts what it stores; claw does so only with an operator's key"}
    backup = Figure(
        name="restic_backup_10of10k",
        ours=mine,
        theirs=other,
        peer="restic backup, with its cache",
        load=(before, load()),
        at=now(),
        **common,
    )
    before = load()

    def into(target: Path, *, claw: bool) -> float:
        try:
            if claw:
                return timed(lambda: made.repository().restorer.extract(tenant, target))
            return peer.run("restore", "latest", "--target", str(target))
        finally:
            shutil.rmtree(target, ignore_errors=True)

    mine, other = take_turns(
        "restic_restore_10k",
        runs,
        lambda: into(made.directory(), claw=True),
        lambda: into(made.directory(), claw=False),
    )
    shutil.rmtree(tree)
    restore = Figure(
        name="restic_restore_10k",
        ours=mine,
        theirs=other,
        peer="restic restore latest",
        load=(before, load()),
        at=now(),
        **common,
    )
    return [backup, restore]
