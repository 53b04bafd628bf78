"""What the programs of our images keep is committed while they write it, and comes back as it was then."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.spec import contract
from claw_runtime.state.repository import CommitRequest, Repository, UploadRight
from claw_runtime.state.rules.selection import Selection
from claw_runtime.tenancy import tenant_id
from fakes.clock import FakeClock

pytestmark = pytest.mark.spawns

ALICE = tenant_id("alice")
IMAGES = Path(__file__).resolve().parents[4] / "images"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where a program keeps its words.

    Attributes:
        databases: SQLite, in WAL mode, open as long as the program runs.
        lines: Files that are only ever appended to.
        passing: Names that are not stored.
    """

    image: str
    databases: tuple[str, ...]
    lines: tuple[str, ...] = ()
    passing: tuple[str, ...] = ()


LAYOUTS = {
    "OpenClaw 2026.6": Layout(
        image="openclaw-nix",
        databases=(
            ".openclaw/state/openclaw.sqlite",
            ".openclaw/matrix/accounts/default/h__u/00ff/state/openclaw.sqlite",
        ),
        lines=(".openclaw/agents/main/sessions/0198.jsonl", ".openclaw/agents/main/sessions/0198.trajectory.jsonl"),
        passing=(".openclaw/agents/main/sessions/0198.jsonl.lock", ".openclaw/tmp/openclaw-1000/gateway.state.lock"),
    ),
    "OpenClaw 2026.9": Layout(
        image="openclaw-nix",
        databases=(".openclaw/agents/main/agent/openclaw-agent.sqlite", ".openclaw/state/openclaw.sqlite"),
        passing=(".openclaw/tmp/openclaw-1000/gateway.00ff.lock.sqlite",),
    ),
    "NanoClaw": Layout(
        image="nanoclaw",
        databases=(
            "nanoclaw/data/v2.db",
            "nanoclaw/data/v2-sessions/main/inbound.db",
            "nanoclaw/data/v2-sessions/main/outbound.db",
        ),
        lines=("nanoclaw/groups/main/CLAUDE.md",),
        passing=("nanoclaw/.env",),
    ),
}


@dataclass(slots=True)
class Program:
    """One that runs: its databases stay open, and what it wrote last is in their logs alone."""

    root: Path
    layout: Layout
    said: list[str] = field(default_factory=list)
    open: list[sqlite3.Connection] = field(default_factory=list)

    def start(self) -> None:
        for name in self.layout.databases:
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(path, isolation_level=None)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA wal_autocheckpoint = 0")
            database.execute("CREATE TABLE IF NOT EXISTS words (word TEXT)")
            self.open.append(database)
        for name in self.layout.passing:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text("of this run")

    def say(self, word: str) -> None:
        self.said.append(word)
        for database in self.open:
            database.execute("INSERT INTO words VALUES (?)", (word,))
        for name in self.layout.lines:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            with (self.root / name).open("a") as file:
                file.write(f"{word}\n")

    def stop(self) -> None:
        while self.open:
            self.open.pop().close()


@pytest.fixture(params=LAYOUTS)
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Program]:
    """Each of them, at work in a state of its own."""
    (tmp_path / "state").mkdir()
    made = Program(tmp_path / "state", LAYOUTS[request.param])
    made.start()
    yield made
    made.stop()


def found(tree: Path, layout: Layout) -> list[list[str]]:
    """The words in each of the program's places."""
    words = []
    for name in layout.databases:
        with closing(sqlite3.connect(f"file:{tree / name}?mode=ro&immutable=1", uri=True)) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            words.append([word for (word,) in database.execute("SELECT word FROM words ORDER BY rowid")])
    return words + [(tree / name).read_text().splitlines() for name in layout.lines]


def test_each_moment_comes_back_as_it_was(program: Program, tmp_path: Path) -> None:
    """Commits of a running program and of one that ended: every place has the words of that moment, and no others."""
    repository = Repository(MemoryStore(), "here", FakeClock(), tmp_path / "scratch")
    selection = Selection.everything(contract.load(IMAGES / program.layout.image / "contract.json").exclude)
    right: UploadRight | None = repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "empty")
    moments = []
    for word in ("blue", "milk", "bye"):
        program.say(word)
        moments.append(list(program.said))
        if word == "bye":
            program.stop()
        assert right is not None
        done = repository.committer.commit(
            CommitRequest(
                right=right,
                tree=program.root,
                selection=selection,
                image_digest="",
                application="",
                release=word == "bye",
            )
        )
        right = done.right

    for number, words in enumerate(moments, 1):
        target = tmp_path / f"generation-{number}"
        document = repository.restorer.extract(ALICE, target, number)
        places = program.layout.databases + program.layout.lines
        assert found(target, program.layout) == [words] * len(places)
        assert sorted(entry.path for entry in document.entries if entry.type == "f") == sorted(places)
