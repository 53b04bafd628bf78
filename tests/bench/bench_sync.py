"""The time to store and restore a tenant's state, compared with rclone and s5cmd, over one SeaweedFS on loopback.

Ours is what the daemon does in a warm process: from the lease to the swap of HEAD, or from the manifest to the synced
tree with every digest checked. The peers are whole processes, as a person or a timer starts them; their start takes a
few hundredths of a second. Trees are in memory, unless a figure says otherwise.
"""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from bench.figures import Figure, load, now, progress, take_turns
from bench.fleet import Unavailable
from bench.stage import memory
from bench.sync_peers import Peers, prepared
from claw_runtime.clock import SystemClock
from claw_runtime.objects.directory import DirectoryStore
from claw_runtime.objects.s3 import S3Store
from claw_runtime.objects.seaweedfs import SeaweedFS
from claw_runtime.ports import ObjectStore
from claw_runtime.safefs.tree import Tree
from claw_runtime.spec.parts import Retention
from claw_runtime.state.lease.leases import UploadRight
from claw_runtime.state.repository import CommitRequest, CommitResult, Repository
from claw_runtime.state.rules.selection import EVERYTHING
from claw_runtime.tenancy import TenantId

BUCKET = "bench"
FILES, SIZE = 10_000, 4096
LARGE = 1 << 30
RACY = 2.2  # seconds after which an unchanged file need not be read again
TESTS = Path(__file__).resolve().parents[1]
MOST_MB = 300.0
PUT, GET = 0.005 / 1000, 0.0004 / 1000
"""Dollars for a request of either kind on a large public service in 2026."""


class Counting(S3Store):
    """Counts requests by kind, and bytes sent."""

    requests: Counter[str]
    sent: int

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.requests, self.sent, self._counting = Counter(), 0, threading.Lock()

    def count(self, kind: str, sent: int = 0) -> None:
        """Add one request; several threads of a commit do."""
        with self._counting:
            self.requests[kind] += 1
            self.sent += sent

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        self.count("put", len(data))
        return super().put(key, data, if_absent=if_absent, if_match=if_match)

    def get(self, key: str) -> tuple[bytes, str]:
        self.count("get")
        return super().get(key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        self.count("get")
        return super().get_range(key, offset, length)


@dataclass(slots=True)
class Bench:
    """A server, the peers, and a directory in memory."""

    place: Path
    store: Counting
    server: SeaweedFS
    peers: Peers
    names: Iterator[int] = field(default_factory=lambda: count(1))

    def repository(self) -> Repository:
        """A runtime that has seen nothing yet, over the warm connection."""
        return Repository(self.store, "bench", SystemClock(), self.place / "scratch")

    def tenant(self) -> TenantId:
        return TenantId(f"t{next(self.names)}")

    def directory(self) -> Path:
        return self.place / f"d{next(self.names)}"


@contextmanager
def bench() -> Iterator[Bench]:
    """Raises `Unavailable`."""
    place = memory()
    if place is None:
        raise Unavailable("there is no directory in memory on this host")
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="claw-bench-sync-", dir=place)))
        server = SeaweedFS(home / "s3")
        stack.callback(server.stop)
        server.start()
        server.make_bucket(BUCKET)
        store = Counting(
            bucket=BUCKET, endpoint=server.endpoint, access_key=server.access_key, secret_key=server.secret_key
        )
        yield Bench(place=home, store=store, server=server, peers=prepared(server))


def grow(root: Path, files: int = FILES) -> Path:
    """Conversations of a few kilobytes each, a hundred in a directory."""
    dice = random.Random(1)
    for number in range(files):
        path = root / f"agent-{number // 100:04}" / f"session-{number:06}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        line = f'{{"role": "user", "id": "{dice.randbytes(16).hex()}", "text": "{dice.randbytes(30).hex()}"}}\n'
        path.write_bytes((line * (SIZE // len(line) + 1)).encode()[:SIZE])
    return root


def commit(repository: Repository, right: UploadRight, tree: Path, *, release: bool = False) -> CommitResult:
    """A commit as the daemon makes it, with the default retention."""
    request = CommitRequest(
        right=right,
        tree=tree,
        selection=EVERYTHING,
        image_digest="",
        application="",
        release=release,
        retention=Retention(),
    )
    return repository.committer.commit(request)


def begin(repository: Repository, tenant: TenantId) -> UploadRight:
    lease = repository.leases.acquire(tenant)
    return repository.restorer.adopt(lease, lease.head.generation)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def told(measured: Callable[[Bench], list[Figure]]) -> list[Figure]:
    """The figures of one server; none, with the reason on standard error, where it cannot be had."""
    try:
        with bench() as made:
            return measured(made)
    except Unavailable as why:
        print(f"bench: the figures of sync are skipped: {why}", file=sys.stderr)
        return []


def _beside(
    name: str, before: float, ours: Sequence[float], **peers: tuple[str, Sequence[float], float]
) -> list[Figure]:
    """A figure for each peer: its description, its costs, and the ratio that is the goal."""
    after = load()
    return [
        Figure(name=f"{name}_{one}", ours=ours, theirs=costs, peer=peer, goal=goal, load=(before, after), at=now())
        for one, (peer, costs, goal) in peers.items()
    ]


# --- ten thousand small files -----------------------------------------------------------------------------------------


def measure(runs: int = 3) -> list[Figure]:
    """Up, down, nothing changed, ten changed."""
    return told(lambda made: _small(made, runs))


def _small(made: Bench, runs: int) -> list[Figure]:
    tree = grow(made.place / "tree")
    time.sleep(RACY)
    figures = _up(made, tree, runs)
    figures += _down(made, tree, runs)
    return figures + _again(made, tree, runs)


def _up(made: Bench, tree: Path, runs: int) -> list[Figure]:
    before = load()

    def ours() -> float:
        repository, tenant = made.repository(), made.tenant()
        return timed(lambda: commit(repository, begin(repository, tenant), tree, release=True))

    peers = made.peers
    mine, rclone, s5cmd = take_turns(
        "sync_up_10k",
        runs,
        ours,
        lambda: peers.rclone("copy", str(tree), f"bench:{BUCKET}/r{next(made.names)}"),
        lambda: peers.s5cmd("cp", f"{tree}/", f"s3://{BUCKET}/s{next(made.names)}/"),
    )
    return _beside(
        "sync_up_10k",
        before,
        mine,
        rclone=("rclone copy, 32 transfers", rclone, 1 / 8),
        s5cmd=("s5cmd cp, 256 workers", s5cmd, 1 / 5),
    )


def _down(made: Bench, tree: Path, runs: int) -> list[Figure]:
    before, peers = load(), made.peers
    repository, tenant = made.repository(), made.tenant()
    commit(repository, begin(repository, tenant), tree, release=True)
    lease = repository.leases.acquire(tenant)
    peers.s5cmd("cp", f"{tree}/", f"s3://{BUCKET}/down/")

    def into(work: Callable[[Path], float], parent: Path | None = None) -> float:
        target = (parent or made.place) / f"down-{next(made.names)}"
        try:
            return work(target)
        finally:
            shutil.rmtree(target, ignore_errors=True)

    def restore(target: Path) -> float:
        return timed(lambda: repository.restorer.restore(lease, target))

    mine, rclone, s5cmd = take_turns(
        "sync_down_10k",
        runs,
        lambda: into(restore),
        lambda: into(lambda target: peers.rclone("copy", f"bench:{BUCKET}/down", str(target))),
        lambda: into(lambda target: peers.s5cmd("cp", f"s3://{BUCKET}/down/*", f"{target}/")),
    )
    figures = _beside(
        "sync_down_10k",
        before,
        mine,
        rclone=("rclone copy, 32 transfers", rclone, 1 / 5),
        s5cmd=("s5cmd cp, 256 workers", s5cmd, 1 / 5),
    )
    before = load()
    with tempfile.TemporaryDirectory(prefix="claw-bench-sync-", dir=Path.home()) as disk:
        home = Path(disk)

        def drained(work: Callable[[Path], float]) -> float:
            """What the turn before left to be written is on the disk before the clock starts."""
            os.sync()
            return into(work, home)

        on_disk, bare = take_turns(
            "sync_down_10k_disk",
            runs,
            lambda: drained(restore),
            lambda: drained(lambda target: timed(lambda: _bare(tree, target))),
        )
    return figures + _beside("sync_down_10k", before, on_disk, disk=("the same files created, one sync", bare, 1.2))


def _bare(tree: Path, target: Path) -> None:
    """What nobody can do without: the directories, the files with their bytes, and one sync."""
    target.mkdir()
    for directory in sorted(tree.iterdir()):
        (target / directory.name).mkdir()
        for file in sorted(directory.iterdir()):
            fd = os.open(target / directory.name / file.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(fd, b"x" * SIZE)
            os.close(fd)
    with Tree(target) as made:
        made.sync()


def _again(made: Bench, tree: Path, runs: int) -> list[Figure]:
    before, peers, store = load(), made.peers, made.store
    repository, tenant = made.repository(), made.tenant()
    right = commit(repository, begin(repository, tenant), tree).right
    peers.rclone("sync", str(tree), f"bench:{BUCKET}/again")
    changes = count(1)

    def ours() -> float:
        nonlocal right
        assert right is not None
        began = time.perf_counter()
        right = commit(repository, right, tree).right
        return time.perf_counter() - began

    def theirs() -> float:
        return peers.rclone("sync", str(tree), f"bench:{BUCKET}/again")

    def change() -> None:
        turn = next(changes)
        for number in range(10):
            path = tree / f"agent-{number:04}" / f"session-{number * 100:06}.jsonl"
            path.write_bytes(os.urandom(64).hex().encode() * 32 + str(turn).encode())

    def changed(work: Callable[[], float]) -> float:
        change()
        return work()

    quiet, rclone = take_turns("sync_nochange_10k", runs + 2, ours, theirs)
    nothing = Figure(
        name="sync_nochange_10k",
        ours=quiet,
        theirs=rclone,
        peer="rclone sync, 32 transfers",
        goal=1 / 20,
        most=0.05,
        load=(before, load()),
        at=now(),
    )
    before = load()
    store.requests.clear()
    store.sent = 0
    few, rclone = take_turns("sync_10of10k", runs + 2, lambda: changed(ours), lambda: changed(theirs))
    turns = len(few) + 1  # the one that was thrown away sent as much
    puts, gets = store.requests["put"] / turns, store.requests["get"] / turns
    bill = puts * PUT + gets * GET
    note = (
        f"{puts:.0f} writes, {gets:.0f} reads and {store.sent / turns / 1e3:.0f} kB a commit, ${bill:.6f} on a public"
        f" bucket; a request for each of 10,000 files: ${FILES * GET:.3f}"
    )
    return [
        nothing,
        Figure(
            name="sync_10of10k",
            ours=few,
            theirs=rclone,
            peer="rclone sync, 32 transfers",
            goal=1 / 10,
            load=(before, load()),
            at=now(),
            note=note,
        ),
    ]


# --- one large file, one database -------------------------------------------------------------------------------------


def measure_large(runs: int = 3) -> list[Figure]:
    """One file of 1 GiB that does not compress, up and down."""
    return told(lambda made: _large(made, runs))


def _large(made: Bench, runs: int) -> list[Figure]:
    before, peers = load(), made.peers
    tree = made.place / "large"
    tree.mkdir()
    with (tree / "film").open("wb") as file:
        for _ in range(LARGE >> 20):
            file.write(os.urandom(1 << 20))
    repository, tenants = made.repository(), []

    def up() -> float:
        tenants.append(made.tenant())
        for old in tenants[:-1]:  # what is in memory twice is in the way of what is measured
            _forget(made.store, old)
        return timed(lambda: commit(repository, begin(repository, tenants[-1]), tree, release=True))

    parts = ("-c", "8", "-p", "16")
    mine, theirs = take_turns(
        "sync_1gib_up",
        runs,
        up,
        lambda: peers.s5cmd("cp", *parts, str(tree / "film"), f"s3://{BUCKET}/film"),
        warming=0,
    )
    figures = [_one("sync_1gib_up", before, mine, theirs, "s5cmd cp, 8 parts of 16 MiB")]
    before, lease, target = load(), repository.leases.acquire(tenants[-1]), made.place / "down"

    def down() -> float:
        try:
            return timed(lambda: repository.restorer.restore(lease, target))
        finally:
            shutil.rmtree(target, ignore_errors=True)

    def their_down() -> float:
        try:
            return peers.s5cmd("cp", *parts, f"s3://{BUCKET}/film", str(target / "film"))
        finally:
            shutil.rmtree(target, ignore_errors=True)

    mine, theirs = take_turns("sync_1gib_down", runs, down, their_down)
    return [*figures, _one("sync_1gib_down", before, mine, theirs, "s5cmd cp, 8 parts of 16 MiB")]


def _one(name: str, before: float, ours: Sequence[float], theirs: Sequence[float], peer: str) -> Figure:
    return Figure(name=name, ours=ours, theirs=theirs, peer=peer, goal=1.1, load=(before, load()), at=now())


def _forget(store: ObjectStore, tenant: TenantId) -> None:
    for item in list(store.list(f"tenants/{tenant}/")):
        store.delete(item.key)


def measure_database(_runs: int = 1) -> list[Figure]:
    """Bytes that a commit sends of a database of 84 MB in which 205 rows have changed."""
    before = load()
    with tempfile.TemporaryDirectory(prefix="claw-bench-sync-", dir=memory() or Path.home()) as directory:
        place = Path(directory)
        (place / "bucket").mkdir()
        tree = place / "tree"
        tree.mkdir()
        repository = Repository(DirectoryStore(place / "bucket"), "bench", SystemClock(), place / "scratch")
        dice = random.Random(1)
        with closing(sqlite3.connect(tree / "memory.sqlite", isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("CREATE TABLE memory (id INTEGER PRIMARY KEY, words TEXT)")
            database.execute("BEGIN")
            words = ((dice.randbytes(400).hex(),) for _ in range(102_500))
            database.executemany("INSERT INTO memory (words) VALUES (?)", words)
            database.execute("COMMIT")
            right = commit(repository, begin(repository, TenantId("a")), tree).right
            size = (tree / "memory.sqlite").stat().st_size
            for _ in range(200):
                database.execute("INSERT INTO memory (words) VALUES (?)", (dice.randbytes(400).hex(),))
            database.execute("UPDATE memory SET words = upper(words) WHERE id IN (7, 50000, 99000)")
            database.execute("DELETE FROM memory WHERE id IN (1000, 60000)")
            assert right is not None
            done = commit(repository, right, tree)
    return [
        Figure(
            name="sync_sqlite_bytes",
            unit="MB",
            ours=[done.uploaded_bytes / 1e6],
            most=2.0,
            load=(before, load()),
            at=now(),
            note=f"of a database of {size / 1e6:.0f} MB, open in its program; 200 rows new, 3 changed, 2 gone",
        )
    ]


# --- memory, fairness -------------------------------------------------------------------------------------------------


def measure_memory(_runs: int = 1) -> list[Figure]:
    """Peak memory of a process that commits and restores 100,000 files, and a sparse file of 10 GiB."""
    figures = []
    for name, what in (("sync_memory_100k_mb", "files"), ("sync_memory_sparse_mb", "sparse")):
        before = load()
        progress(name)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
        with tempfile.TemporaryDirectory(prefix="claw-bench-sync-", dir=memory() or Path.home()) as directory:
            argv = [sys.executable, str(Path(__file__)), what, directory]
            done = subprocess.run(argv, env=environment, check=True, capture_output=True, text=True, timeout=300)
        figures.append(
            Figure(name=name, unit="MB", ours=[float(done.stdout)], most=MOST_MB, load=(before, load()), at=now())
        )
    progress("")
    return figures


def _peak(what: str, place: Path) -> float:
    """Of this process, in MB."""
    (place / "bucket").mkdir()
    tree = place / "tree"
    if what == "files":
        grow(tree, 100_000)
    else:
        tree.mkdir()
        with (tree / "sparse").open("wb") as file:
            file.truncate(10 << 30)
            file.seek(5 << 30)
            file.write(b"word")
    repository = Repository(DirectoryStore(place / "bucket"), "bench", SystemClock(), place / "scratch")
    commit(repository, begin(repository, TenantId("a")), tree, release=True)
    repository.restorer.restore(repository.leases.acquire(TenantId("a")), place / "restored")
    # Not ru_maxrss, which a child begins with its parent's.
    [peak] = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line[:6] == "VmHWM:"]
    return int(peak) * 1024 / 1e6


def measure_fairness(runs: int = 3) -> list[Figure]:
    """Nineteen small states and a large one at once: how much longer the small ones take than alone."""
    return told(lambda made: _fair(made, runs))


def _fair(made: Bench, runs: int) -> list[Figure]:
    before = load()
    small, large = grow(made.place / "small", 500), made.place / "big"
    large.mkdir()
    (large / "film").write_bytes(os.urandom(200 << 20))
    slowest, alone = [], []

    def one(repository: Repository, tree: Path) -> float:
        return timed(lambda: commit(repository, begin(repository, made.tenant()), tree, release=True))

    for turn in range(runs + 1):
        progress(f"sync_fair_20: turn {turn} of {runs}")
        repository = made.repository()
        single = one(repository, small)
        with ThreadPoolExecutor(20) as threads:
            films = threads.submit(one, repository, large)
            both = [threads.submit(one, repository, small) for _ in range(19)]
        films.result()
        if turn:
            slowest.append(max(waited.result() for waited in both))
            alone.append(19 * single)
    progress("")
    return [
        Figure(
            name="sync_fair_20",
            ours=slowest,
            theirs=alone,
            peer="19 of them, one after the other",
            load=(before, load()),
            at=now(),
            note="the slowest of 19 states of 500 files, beside one of 200 MB",
        )
    ]


if __name__ == "__main__":
    print(_peak(sys.argv[1], Path(sys.argv[2])))
