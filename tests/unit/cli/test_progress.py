"""How far a long verb has come: on a terminal, in a file, and what the daemon tells meanwhile."""

import json
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from claw_runtime.cli import output, progress
from claw_runtime.cli.progress import Progress
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.tenancy import TenantId
from fakes.terminal import Call
from fakes.world import World

pytest_plugins = ["fakes.terminal_fixtures"]

ALICE = TenantId("alice")


class Terminal:
    """What stood in the line of a terminal, one picture after the other."""

    def __init__(self) -> None:
        self.pictures: list[str] = []

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Standard error is one."""
    made = Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=made))
    monkeypatch.setattr(output, "redraw", made.pictures.append)
    return made


class Seconds:
    """A clock that goes on by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def told(steps: list[tuple[float, int]], total: int = 0) -> None:
    """A verb whose bytes are done at these seconds."""
    clock = Seconds()
    with Progress("push", "alice", total, clock=clock) as shown:
        for seconds, done in steps:
            clock.now = 100 + seconds
            shown.at(done)


class TestShown:
    def test_a_bar_with_rate_and_time_left(self, terminal: Terminal) -> None:
        """On a terminal one line is written again and again, and is gone at the end."""
        told([(0.1, 1), (1.0, 250_000), (1.1, 260_000), (2.0, 750_000)], total=1_000_000)
        assert terminal.pictures == [
            "push alice  [######------------------]  25 %  250 kB of 1.0 MB  250 kB/s  3.0 s left",
            "push alice  [##################------]  75 %  750 kB of 1.0 MB  375 kB/s  667 ms left",
            "",
        ]

    def test_more_than_was_expected(self, terminal: Terminal) -> None:
        """A tar has headers: a bar never says more than all."""
        told([(1.0, 1_100_000)], total=1_000_000)
        assert terminal.pictures[0] == "push alice  [########################] 100 %  1.1 MB of 1.0 MB  1.1 MB/s"

    def test_nobody_knows_how_much_it_is(self, terminal: Terminal) -> None:
        """Then there is no bar, and no time left."""
        told([(1.0, 1000)])
        assert terminal.pictures[0] == "push alice  1.0 kB  1.0 kB/s"

    def test_a_moment_shows_nothing(self, terminal: Terminal) -> None:
        """A quick verb prints its result only."""
        told([(0.1, 10), (0.4, 20)], total=20)
        assert terminal.pictures == []

    def test_a_line_is_written_over(self, capsys: pytest.CaptureFixture[str]) -> None:
        """What stood there is gone, and nothing in it is obeyed by the terminal."""
        output.redraw("a\x1b[31mb")
        assert capsys.readouterr().err.startswith("\ra")
        output.redraw("")
        assert capsys.readouterr().err == "\r\x1b[K"

    def test_json_lines_otherwise(self, capsys: pytest.CaptureFixture[str]) -> None:
        """In a log a line every five seconds, for whatever reads it."""
        told([(1.0, 10), (5.0, 100), (6.0, 120), (10.0, 400)], total=400)
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        assert lines == [
            {
                "verb": "push",
                "tenantId": "alice",
                "bytes": 100,
                "total": 400,
                "bytesPerSecond": 20,
                "secondsLeft": 15.0,
            },
            {
                "verb": "push",
                "tenantId": "alice",
                "bytes": 400,
                "total": 400,
                "bytesPerSecond": 40,
                "secondsLeft": None,
            },
        ]


class Held(MemoryStore):
    """A store that takes no pack until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()
        self.may.set()

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        if "/packs/" in key:
            assert self.may.wait(100)
        return super().put(key, data, if_absent=if_absent, if_match=if_match)


@pytest.fixture
def store(world: World) -> Held:
    """What the world's states are in."""
    assert isinstance(world.store, Held)
    return world.store


@pytest.mark.world(store=Held, filled=True, served=True)
class TestTold:
    def test_a_push_under_way(
        self, claw: Call, world: World, store: Held, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The daemon is asked how far it has come until the answer is there, which comes out as ever."""
        monkeypatch.setattr(progress, "MOMENT", 0.05)
        claw("claim", "alice")
        world.write("alice", {"a": "x" * 5000})
        store.may.clear()

        def draw(picture: str) -> None:
            terminal.pictures.append(picture)
            if "5.0 kB" in picture:
                store.may.set()

        monkeypatch.setattr(output, "redraw", draw)
        pushed = claw("sync", "push", "alice")

        assert pushed.out.startswith("alice: generation 1: ")
        assert terminal.pictures[-2].startswith("push alice  5.0 kB  ")
        assert terminal.pictures[-1] == ""
        assert world.repository.transfers.of(ALICE) is None

    def test_an_error_of_a_push_comes_out_as_ever(self, claw: Call, world: World) -> None:
        """It is raised where the verb is, with its own exit code."""
        assert claw("sync", "push", "nobody").code == 10

    def test_an_import_knows_how_much_it_is(self, world: World, tmp_path: Path) -> None:
        """The size of the files that come in, whatever the generation before had."""
        transfers = world.repository.transfers
        with transfers.expected(ALICE, 700), transfers.begun(ALICE, 5) as first:
            first.add(100)
            world.clock.sleep(2)
            found, seconds = world.repository.transfers.of(ALICE) or (None, 0)
            assert found is not None
            assert (found.total, found.bytes, seconds) == (700, 100, 2)
        with world.repository.transfers.begun(ALICE, 5) as second:
            assert second.total == 5
