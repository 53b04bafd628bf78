"""Peak memory of a verification of a large state with a long history: 58 generations of 200,000 names.

One process seals the generations from rows alone: a tree of 200,000 files would take minutes to make, and its commits
are not what is measured. All files have the same content, so that little is read. Another process verifies them, and
reports its peak.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.bench_sync import TESTS, begin
from bench.figures import Figure, load, now, progress
from bench.stage import memory
from claw_runtime.clock import SystemClock
from claw_runtime.formats.entries import Entry, Extent
from claw_runtime.formats.envelope import PLAIN
from claw_runtime.formats.pack import PackBuilder
from claw_runtime.objects.directory import DirectoryStore
from claw_runtime.state.commit.guards import Draft
from claw_runtime.state.repository import Repository
from claw_runtime.state.verify import Verifier
from claw_runtime.tenancy import Keys, TenantId

NAMES, GENERATIONS, CHANGED = 200_000, 58, 20
MOST_MB = 400.0
PATIENCE = 900.0
CONTENT = b"the same in every file\n"
TENANT = TenantId("a")


def measure(_runs: int = 1) -> list[Figure]:
    """`verify_memory_mb`."""
    before = load()
    progress("verify_memory_mb")
    with tempfile.TemporaryDirectory(prefix="claw-bench-verify-", dir=memory() or Path.home()) as directory:
        _child("build", directory)
        peak = float(_child("verify", directory))
    progress("")
    return [
        Figure(
            name="verify_memory_mb",
            unit="MB",
            ours=[peak],
            most=MOST_MB,
            load=(before, load()),
            at=now(),
            note=f"{GENERATIONS} generations of {NAMES} names, {CHANGED} of which change at each commit",
        )
    ]


def _child(what: str, directory: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    argv = [sys.executable, str(Path(__file__)), what, directory]
    return subprocess.run(
        argv, env=environment, check=True, capture_output=True, text=True, timeout=PATIENCE
    ).stdout.strip()


def _repository(place: Path) -> Repository:
    (place / "bucket").mkdir(exist_ok=True)
    return Repository(DirectoryStore(place / "bucket"), "bench", SystemClock(), place / "scratch")


def build(place: Path, names: int = NAMES, generations: int = GENERATIONS) -> None:
    """Seal so many generations of so many names; at each, a few names have another time."""
    repository = _repository(place)
    right, parent = begin(repository, TENANT), None
    builder = PackBuilder()
    offset, stored = builder.add(CONTENT, path="one", at=0, mode=0o600, mtime_ns=0)
    pack = builder.seal()
    DirectoryStore(place / "bucket").put(Keys(TENANT).pack(pack.sha256), pack.data)
    place_of = (Extent(pack=pack.sha256, offset=offset, stored=stored, raw=len(CONTENT)),)
    sha256 = hashlib.sha256(CONTENT).hexdigest()

    def file(number: int, mtime_ns: int) -> Entry:
        path = f"agent-{number // 100:04}/session-{number:06}.jsonl"
        return Entry(
            path=path, type="f", mode=0o600, mtime_ns=mtime_ns, size=len(CONTENT), sha256=sha256, extents=place_of
        )

    entries = list[Entry]()
    for number in range(names):
        if number % 100 == 0:
            entries.append(Entry(path=f"agent-{number // 100:04}", type="d", mode=0o700, mtime_ns=0))
        entries.append(file(number, 0))
    for generation in range(1, generations + 1):
        for number in range(generation, names, max(1, names // CHANGED)):
            entries[number + number // 100 + 1] = file(number, generation)
        draft = Draft(entries=tuple(entries), packs=(pack.ref,), image="", application="")
        head, _, parent = repository.publisher.seal(TENANT, right.head, parent, draft, PLAIN)
        right = repository.publisher.publish(right, head, release=False)


def verify(place: Path) -> float:
    """Verify what `build` has made; the peak of this process, in MB."""
    repository = _repository(place)
    found = Verifier(DirectoryStore(place / "bucket"), repository).verify(TENANT)
    assert not found.damaged, found.damaged[:3]
    # Not ru_maxrss, which a child begins with its parent's.
    [peak] = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line[:6] == "VmHWM:"]
    return int(peak) * 1024 / 1e6


if __name__ == "__main__":
    if sys.argv[1] == "build":
        build(Path(sys.argv[2]))
    else:
        print(verify(Path(sys.argv[2])))
