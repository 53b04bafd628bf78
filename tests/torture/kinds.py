"""Four kinds of state that a day of commits is measured with: each changes as such a program's state does."""

import os
import random
import sqlite3
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Final

WORDS: Final = [
    "".join(random.Random(number).choices("aeioubcdfghklmnprst", k=3 + number % 7)) for number in range(3000)
]


class Kind(ABC):
    """A program that changes its tree a little before each commit.

    Attributes:
        name: For the report.
        written: Bytes that steps have written: lines, rows and pages.
    """

    name: ClassVar[str]

    def __init__(self, tree: Path, dice: random.Random) -> None:
        self.tree, self.dice, self.written = tree, dice, 0

    def begin(self) -> None:
        """What is there before the first commit."""
        self.written = 0

    @abstractmethod
    def step(self, number: int) -> None:
        """What changes before commit `number`."""

    def end(self) -> None:
        """Close what is open; most kinds leave nothing open."""
        return

    def append(self, path: Path, line: str) -> None:
        """Add a line to a file."""
        with path.open("a") as file:
            self.written += file.write(line + "\n")

    def text(self, words: int) -> str:
        return " ".join(self.dice.choices(WORDS, k=words))


class Chat(Kind):
    """An assistant's state: a turn at each commit in a session's file, the list of sessions, now and then a note."""

    name = "chat"
    turns: Final = 150
    """Turns of one session."""

    def begin(self) -> None:
        for place in ("agents/main/sessions", "memory", "credentials"):
            (self.tree / place).mkdir(parents=True, exist_ok=True)
        (self.tree / "openclaw.json").write_text(self.text(400))
        for number in range(40):
            (self.tree / f"agents/main/sessions/old-{number:02}.jsonl").write_text(self.text(1500))

    def step(self, number: int) -> None:
        session, turn = divmod(number, self.turns)
        sessions = self.tree / "agents/main/sessions"
        for role, words in (("user", self.dice.randrange(5, 40)), ("assistant", self.dice.randrange(20, 120))):
            self.append(sessions / f"session-{session:04}.jsonl", f'{{"role": "{role}", "text": "{self.text(words)}"}}')
        listed = "".join(f'"session-{one:04}": {{"updated": {number}}},\n' for one in range(session + 1))
        self.written += (sessions / "sessions.new").write_text(f"{listed}{turn}\n")
        (sessions / "sessions.new").rename(sessions / "sessions.json")
        if number % 40 == 0:
            self.append(self.tree / f"memory/{number // 4000:02}.md", f"- {self.text(15)}")


class Logs(Kind):
    """Two logs that grow by lines; a log that is long enough is rotated, and the third of its kind goes."""

    name = "logs"
    longest: Final = 4_000_000

    def step(self, number: int) -> None:
        for name, lines in (("gateway", 3), ("events", 1)):
            path = self.tree / f"{name}.log"
            for line in range(lines):
                self.append(path, f"{number:08} {line} {self.dice.getrandbits(64):x} {self.text(8)}")
            if path.stat().st_size > self.longest:
                for old, new in ((f"{name}.log.1", f"{name}.log.2"), (f"{name}.log", f"{name}.log.1")):
                    if (self.tree / old).exists():
                        (self.tree / old).rename(self.tree / new)


class Database(Kind):
    """A SQLite database in WAL mode that stays open: new rows, a counter, an index, and rows that expire."""

    name = "sqlite"
    rows: Final = 8000

    def begin(self) -> None:
        self._database = sqlite3.connect(self.tree / "memory.sqlite", isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=OFF")
        self._database.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, topic TEXT, words TEXT)")
        self._database.execute("CREATE TABLE counts (name TEXT PRIMARY KEY, count INTEGER)")
        self._database.execute("CREATE INDEX topics ON notes (topic)")
        self._database.execute("INSERT INTO counts VALUES ('turns', 0)")
        self._database.execute("BEGIN")
        for _ in range(self.rows):
            self._insert()
        self._database.execute("COMMIT")
        self.written = 0

    def _insert(self) -> None:
        row = (self.dice.choice(WORDS[:200]), self.text(40))
        self.written += sum(map(len, row))
        self._database.execute("INSERT INTO notes (topic, words) VALUES (?, ?)", row)

    def step(self, number: int) -> None:
        self._database.execute("BEGIN")
        self._insert()
        self._database.execute("UPDATE counts SET count = count + 1 WHERE name = 'turns'")
        self._database.execute("DELETE FROM notes WHERE id <= ?", (number,))
        self._database.execute("COMMIT")

    def end(self) -> None:
        self._database.close()


class Dense(Kind):
    """A file that does not compress, of which single pages change in place, most of them in a tenth of the file."""

    name = "dense"
    page: Final = 4096
    pages: Final = 2304

    def begin(self) -> None:
        (self.tree / "index.bin").write_bytes(self.dice.randbytes(self.page * self.pages))

    def step(self, number: int) -> None:
        file = os.open(self.tree / "index.bin", os.O_WRONLY)
        try:
            for _ in range(2):
                within = self.pages // 10 if self.dice.random() < 0.7 else self.pages
                at = self.dice.randrange(within) * self.page
                self.written += os.pwrite(file, self.dice.randbytes(self.page), at)
        finally:
            os.close(file)


KINDS: Final[tuple[type[Kind], ...]] = (Chat, Logs, Database, Dense)
