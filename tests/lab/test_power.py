"""A host whose power fails while tenants are claimed, written, committed and released: what was acknowledged is there.

A power failure kills the host's kernel, and with it everything that it had not written to its disk. What it had written
stays, flushed or not: a real disk may also lose what its own cache held, but not what was flushed to it.
"""

import json
import os
import queue
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
from lab import bucket, claw, deeds, evidence, program
from lab.acknowledged import Acknowledged, Lost
from lab.bucket import Bucket
from lab.hosts import Host

pytestmark = pytest.mark.uml

CUTS = int(os.environ.get("CLAW_LAB_CUTS", "60"))
SEED = int(os.environ.get("CLAW_LAB_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
AIMS = ("claim", "commit", "release", "write", "flushed write")
TENANTS = ("alice", "bob", "carol", "dave")


@pytest.fixture(scope="module")
def store(own_uml_host: Host) -> Iterator[Bucket]:
    """A bucket on this machine, which keeps its power."""
    with bucket.serve(own_uml_host) as served:
        yield served


@pytest.fixture(scope="module")
def powered(own_uml_host: Host, store: Bucket) -> Host:
    """A host on which claw is installed, so that it starts at each boot."""
    assert store
    (own_uml_host.share / "deeds.py").write_text(Path(deeds.__file__).read_text("utf-8"))
    claw.install(own_uml_host, program.WORKLOAD, bucket.SETTINGS)
    own_uml_host.ok("sync", user="root")
    return own_uml_host


class Deeds:
    """deeds.py on the host, until its power is cut."""

    def __init__(self, host: Host, seed: int, version: int) -> None:
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        script = f"exec python3 /lab/deeds.py {seed} {version} {' '.join(TENANTS)}"
        self._process = host.begin(script, seconds=600)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)

    def next(self, timeout: float) -> dict[str, object] | None:
        """The next line; None when none came in time."""
        try:
            line: dict[str, object] = json.loads(self._lines.get(timeout=timeout))
        except queue.Empty:
            return None
        return line

    def error(self) -> str:
        """What it complained about, if it has ended."""
        if self._process.poll() is None or self._process.stderr is None:
            return ""
        return self._process.stderr.read()

    def end(self) -> None:
        """The connection to a host that was cut ends when the host is up again."""
        try:
            self._process.wait(90)
        except subprocess.TimeoutExpired:
            self._process.kill()


class Cuts:
    """Power failures of one host, each at a moment that its seed decides."""

    def __init__(self, host: Host, store: Bucket) -> None:
        self._host, self._store = host, store
        self._known = Acknowledged(TENANTS)
        self._took: dict[str, list[float]] = {}
        self._version = 1
        self.table: list[tuple[str, ...]] = []

    def cut(self, seed: int) -> None:
        """Let tenants act, cut the power, and boot again. Raises `Lost`."""
        dice = random.Random(seed)
        aim, nth, part = dice.choice(AIMS), dice.randrange(1, 4), dice.uniform(0.0, 1.2)
        acts = Deeds(self._host, seed, self._version)
        began = self._until(acts, aim, nth)
        typical = median(self._took.get(aim, [0.5]))
        while (left := began + part * typical - time.monotonic()) > 0:
            self._hear(acts.next(left))
        self._host.cut()
        while (line := acts.next(0.5)) is not None:
            self._hear(line)
        under_way = self._known.power_was_cut()
        for name, tenant in self._known.tenants.items():
            if (found := self._store.generation(name)) < tenant.generation:
                raise Lost(f"HEAD of {name} names generation {found}, but {tenant.generation} was acknowledged")
        started = time.monotonic()
        self._host.again()
        acts.end()
        words = ", ".join(f"{deed} of {name}" for name, deed in sorted(under_way.items()))
        self.table.append((str(seed), aim, words or "nothing", f"{time.monotonic() - started:.1f}"))
        print("power cut:", *self.table[-1], sep=" | ", flush=True)

    def _until(self, acts: Deeds, aim: str, nth: int) -> float:
        """Go on until all tenants have been claimed and a deed of that kind begins; the time at which it began."""
        claimed, deadline, begins = set[str](), time.monotonic() + 300, dict[str, float]()
        while time.monotonic() < deadline:
            line = acts.next(1.0)
            self._hear(line)
            if line is None:
                assert not (error := acts.error()), error
                continue
            name, deed, now = str(line["tenant"]), str(line["deed"]), time.monotonic()
            if line["at"] == "begin":
                begins[name] = now
                nth -= len(claimed) == len(TENANTS) and deed == aim
                if nth <= 0:
                    return now
            elif deed == "read":
                claimed.add(name)
            elif name in begins and len(claimed) == len(TENANTS):
                self._took.setdefault(deed, []).append(now - begins[name])
        raise Lost(f"no {aim} began within 300 s; claimed: {sorted(claimed)}")

    def _hear(self, line: dict[str, object] | None) -> None:
        if line is not None:
            self._version = max(self._version, int(str(line.get("version", 0))) + 1)
            self._known.hear(line)

    def verify(self) -> None:
        """All tenants can be claimed and have what is certain; every generation that the bucket holds is whole."""
        acts = Deeds(self._host, 0, self._version)
        self._until(acts, "claim", 1)
        self._host.ok("systemctl stop user@$(id -u claw)", user="root")  # the deeds too
        acts.end()

    @property
    def counts(self) -> dict[str, int]:
        """Acknowledged deeds, by kind."""
        return self._known.counts


def test_what_was_not_flushed_is_lost(own_uml_host: Host) -> None:
    """The laboratory's power failure is one: a flushed file is there afterwards, and an unflushed one is gone."""
    host = own_uml_host
    host.ok("sync", user="root")  # Podman does not flush an image that it stores
    host.ok("cd ~; echo kept > flushed; sync flushed .; echo lost > unflushed; cat flushed unflushed")
    host.cut()
    host.again()
    assert host.ok("cd ~; cat flushed unflushed 2>/dev/null || true") == "kept"


def test_nothing_acknowledged_is_lost(powered: Host, store: Bucket) -> None:
    """After each power failure every tenant can be claimed, and has what was flushed, committed or released."""
    cuts, before = Cuts(powered, store), time.monotonic()
    try:
        for seed in range(SEED, SEED + CUTS):
            try:
                cuts.cut(seed)
            except AssertionError as error:
                raise AssertionError(f"power failure {seed - SEED + 1} (CLAW_LAB_SEED={SEED}): {error}") from error
        cuts.verify()
    finally:
        acknowledged = ", ".join(f"{number} {deed}" for deed, number in sorted(cuts.counts.items()))
        evidence.add(
            "lab-power.md",
            f"Power failures\n\n{len(cuts.table)} of {CUTS}, seed {SEED}, {time.monotonic() - before:.0f} s. "
            f"Acknowledged in between: {acknowledged}.",
            ("seed", "aimed at", "under way", "s until up"),
            cuts.table,
        )
