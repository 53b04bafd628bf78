"""A living tree: nine programs write at once, and every generation that interval commits make is restored and judged.

The runtime that commits is killed at any moment, or another host takes the tenant over and continues from the bucket.
`make torture` makes 2,000 generations; a seeded sample is part of `make test`.

    python -m torture.living [--generations 2000] [--seed 1]
"""

import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click
from claw_runtime.clock import SystemClock
from claw_runtime.objects.directory import DirectoryStore
from claw_runtime.safefs.removal import remove_tree
from claw_runtime.state.commit import holding
from claw_runtime.state.commit.moving import CHANGES
from claw_runtime.state.repository import CommitRequest, Repository
from claw_runtime.state.rules.selection import EVERYTHING
from claw_runtime.tenancy import tenant_id
from kill.forked import memory_directory
from torture.writers import WRITERS

ALICE: Final = tenant_id("alice")
PACE: Final = 0.01
"""Seconds between two changes of one writer."""
PATIENCE: Final = 4
"""Commits of one runtime in a row that may leave out the same file because it changes all the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with one generation."""

    generation: int
    writer: str
    says: str


@dataclass(slots=True)
class Outcome:
    """What came of a life.

    Attributes:
        generations: How many were made and judged.
        kills, take_overs: How often the runtime was killed, and another host took over.
        holds: How often the programs were held, so that a commit could copy what changes all the time.
        kept: For each writer, in how many generations a name of it was reported as left out or kept from before.
        faults: What was wrong.
    """

    generations: int = 0
    kills: int = 0
    take_overs: int = 0
    holds: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)

    def __str__(self) -> str:
        kept = ", ".join(f"{name} {count}" for name, count in sorted(self.kept.items())) or "none"
        return (
            f"{self.generations} generations of a living tree, {self.kills} kills, {self.take_overs} take-overs, "
            f"{self.holds} holds, {len(self.faults)} faults; reported as kept from before or left out: {kept}"
        )


class Life:
    """One tenant, its bucket, and its writers.

    Args:
        top: A directory on a disk: a file system in memory knows no write-back, so mappings behave otherwise there.
        memory: A directory for the bucket, and for the copies that are judged, which takes a third of the time there.
    """

    def __init__(self, top: Path, memory: Path, seed: int) -> None:
        self._top, self._bucket, self._judged = top, memory / "bucket", memory / "judged"
        self._bucket.mkdir()
        self._dice = random.Random(seed)
        self._hosts = 0
        self._diary = top / "diary"
        self._diary.touch()
        self._writers = list[subprocess.Popen[bytes]]()
        self.outcome = Outcome()

    def live(self, generations: int, seconds: float) -> Outcome:
        """Commit until so many generations are made or so many seconds have passed, and judge each generation."""
        until = time.monotonic() + seconds
        try:
            self._settle()
            while self.outcome.generations < generations and time.monotonic() < until:
                lot = self._dice.random()
                if lot < 0.15:
                    self.outcome.take_overs += 1
                    self._settle()
                self._commits(self._dice.randint(5, 20), kill=lot > 0.5)
                self._judge_new()
        finally:
            self._stop()
        return self.outcome

    # --- hosts and writers ---

    def _settle(self) -> None:
        """Another host claims the tenant, whatever the last one holds, and starts the writers in what it restored."""
        self._stop()
        self._hosts += 1
        if self._hosts > 1:
            remove_tree(self._tree(self._hosts - 1))
        repository = self._repository()
        lease = repository.leases.acquire(ALICE, take_over=True)
        repository.restorer.restore(lease, self._tree())
        for kind in WRITERS:
            argv = [kind.name, str(self._tree() / kind.name), str(self._dice.random()), str(PACE)]
            self._writers.append(
                subprocess.Popen(
                    [sys.executable, "-m", "torture.writers", *argv],
                    stdout=subprocess.PIPE,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                )
            )
        for writer in self._writers:
            assert writer.stdout
            assert writer.stdout.readline() == b"ready\n"

    def _stop(self) -> None:
        for writer in self._writers:
            writer.kill()
            writer.wait()
            if writer.stdout:
                writer.stdout.close()
        self._writers.clear()

    def _tree(self, host: int | None = None) -> Path:
        return self._top / f"tree-{host or self._hosts}"

    def _repository(self, name: str = "") -> Repository:
        store = DirectoryStore(self._bucket)
        return Repository(store, name or f"host-{self._hosts}", SystemClock(), self._top / f"scratch-{name}")

    # --- commits ---

    def _commits(self, count: int, *, kill: bool) -> None:
        """A runtime's life: so many commits; one that is killed dies at any moment in them."""
        child = os.fork()
        if not child:
            code = 1
            try:
                self._commit_all(count)
                code = 0
            finally:
                os._exit(code)
        if kill:
            time.sleep(self._dice.uniform(0.05, 1.5))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        self.outcome.kills += os.WIFSIGNALED(status)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status):
            self._fault(self._newest(), "runtime", "a commit failed: see its output above")

    def _commit_all(self, count: int) -> None:
        self._signal(signal.SIGCONT)  # the last runtime may have been killed while it held them
        repository = self._repository()
        lease = repository.leases.acquire(ALICE)
        right = repository.restorer.adopt(lease, lease.head.generation)
        setattr(holding, "SHARE", 1)  # noqa: B010 - here commits follow each other at once,
        setattr(holding, "MOST_SECONDS", 30.0)  # noqa: B010 - on a host that may be busy with other tests
        overdue = Counter[str]()
        for _ in range(count):
            number = right.base_generation + 1
            self._note(generation=number, progress=self._progress())
            request = CommitRequest(
                right=right, tree=self._tree(), selection=EVERYTHING, image_digest="", application="", release=False,
                hold=self._held,
            )  # fmt: skip
            done = repository.committer.commit(request)
            assert done.right is not None
            if done.number != number:
                self._note(generation=number, idle=True)
            self._note(generation=number, reported=[str(one.path) for one in done.reported])
            right = done.right
            changed = {one.path for one in done.reported if CHANGES in one.reason}
            overdue = Counter({path: overdue[path] + 1 for path in changed})
            late = [path for path, commits in overdue.items() if commits > PATIENCE]
            if late:
                self._note(generation=done.number, late=late)
            time.sleep(self._dice.uniform(0, 0.05))

    @contextmanager
    def _held(self) -> Iterator[bool]:
        """What pausing a container does to its programs."""
        self._note(held=True)
        self._signal(signal.SIGSTOP)
        try:
            for writer in self._writers:
                while (state := _state(writer.pid)) != "T":
                    if state == "Z":
                        raise RuntimeError(f"the program {writer.pid} has ended")
                    time.sleep(0.0002)
            yield True
        finally:
            self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for writer in self._writers:
            os.kill(writer.pid, number)

    def _progress(self) -> Mapping[str, int]:
        return {kind.name: kind(self._tree() / kind.name, self._dice).progress() for kind in WRITERS}

    def _note(self, **facts: object) -> None:
        with self._diary.open("a") as diary:
            diary.write(json.dumps(facts) + "\n")

    # --- judgement ---

    def _newest(self) -> int:
        head = self._repository("reader").generations.head(ALICE)
        return head.generation if head else 0

    def _judge_new(self) -> None:
        """Judge each generation that was made since the last time, then collect garbage."""
        notes = [json.loads(line) for line in self._diary.read_text().splitlines()]
        self.outcome.holds += sum("held" in note for note in notes)
        notes = [note for note in notes if "held" not in note]
        for note in notes:
            for path in note.get("late", ()):
                self._fault(note["generation"], path.partition("/")[0], f"{path} is left out of each commit")
            if "idle" in note:
                self._fault(note["generation"], "runtime", "a commit found no change, while all programs write")
        for number in range(self.outcome.generations + 1, self._newest() + 1):
            own = [note for note in notes if note["generation"] == number]
            progress = [note["progress"] for note in own if "progress" in note]
            reported = [path for note in own for path in note.get("reported", ())]
            self._judge(number, progress[-1], reported, told=any("reported" in note for note in own))
        self._diary.write_text("")
        self._repository().collect_garbage(ALICE, grace=0)

    def _judge(self, number: int, progress: Mapping[str, int], reported: Sequence[str], *, told: bool) -> None:
        target = self._judged
        self.outcome.generations = number
        kept = {path.partition("/")[0] for path in reported}
        self.outcome.kept.update(kept)
        try:
            self._repository("reader").restorer.extract(ALICE, target, number)
            for kind in WRITERS:
                fresh = told and kind.name not in kept
                writer = kind(target / kind.name, random.Random(0))
                for says in writer.judge(progress[kind.name] if fresh else 0):
                    self._fault(number, kind.name, says)
        except Exception as error:  # noqa: BLE001 - a generation that cannot be read or judged is the worst fault
            self._fault(number, "runtime", repr(error))
        finally:
            remove_tree(target)

    def _fault(self, generation: int, writer: str, says: str) -> None:
        self.outcome.faults.append(Fault(generation=generation, writer=writer, says=says))


def _state(pid: int) -> str:
    """How a process is, in the kernel's letter: `T` is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def lived(generations: int, seed: int, *, seconds: float = math.inf) -> Outcome:
    """A life of so many generations or seconds, in directories of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="claw-t-", dir=os.environ.get("TMPDIR", "/var/tmp")) as top,
        tempfile.TemporaryDirectory(prefix="claw-t-", dir=memory_directory()) as memory,
    ):
        return Life(Path(top), Path(memory), seed).live(generations, seconds)


def report(outcome: Outcome, seed: int, seconds: float) -> Iterator[str]:
    """The page `evidence/living.md`."""
    yield "# A living tree"
    yield ""
    yield f"Seed {seed}, {seconds:.0f} s: {outcome}."
    yield ""
    for fault in outcome.faults:
        yield f"- generation {fault.generation}, {fault.writer}: {fault.says}"


@click.command()
@click.option("--generations", default=2000, show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(generations: int, seed: int) -> None:
    """Commit a tree that nine programs write to, and judge every generation."""
    began = time.monotonic()
    outcome = lived(generations, seed)
    target = Path(os.environ.get("EVIDENCE_DIR") or Path(__file__).resolve().parents[2] / "evidence")
    target.mkdir(parents=True, exist_ok=True)
    (target / "living.md").write_text("\n".join(report(outcome, seed, time.monotonic() - began)) + "\n")
    print(f"{outcome}; report: {target / 'living.md'}", file=sys.stderr)
    for fault in outcome.faults[:20]:
        print(f"  generation {fault.generation}, {fault.writer}: {fault.says}", file=sys.stderr)
    sys.exit(bool(outcome.faults))


if __name__ == "__main__":
    main()
