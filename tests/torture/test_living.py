"""While programs write, every generation that is committed is a state that they had, whatever is killed meanwhile."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from torture import living
from torture.writers import PAGE, WRITERS, Append, Database, Dense, Mapped, Renames, Replaced, WriteAhead, Writer

SECONDS = 100.0


def test_every_generation_of_a_living_tree_is_whole() -> None:
    """A seeded sample: logs, databases, mappings, renames, replaced, dense and sparse files keep their invariants, and
    what was written before a commit is in it, unless the commit reports the name."""
    outcome = living.lived(generations=80, seed=7, seconds=SECONDS)

    assert outcome.faults == []
    assert outcome.generations > 10


@pytest.fixture
def stepped(tmp_path: Path) -> Iterator[dict[type[Writer], Writer]]:
    """One writer of each kind that a test below harms, after a few steps."""
    made = {kind: kind(tmp_path / kind.name, random.Random(1)) for kind in WRITERS}
    for writer in made.values():
        writer.begin()
        for _ in range(30):
            writer.step()
    yield made
    for writer in made.values():
        writer.end()


def test_what_is_whole_is_accepted(stepped: dict[type[Writer], Writer]) -> None:
    """No judge objects to its own program's directory, with as much progress as the program made."""
    assert [says for writer in stepped.values() for says in writer.judge(writer.progress())] == []


def test_what_is_lost_or_mixed_is_noticed(stepped: dict[type[Writer], Writer]) -> None:
    """Each judge objects to the fault that it is there for."""
    home = {kind: writer.home for kind, writer in stepped.items()}
    log = home[Append] / "gateway.log"
    log.write_bytes(b"".join(reversed(log.read_bytes().splitlines(keepends=True))))
    next(home[Renames].glob("room*/*")).unlink()
    (home[Replaced] / "state.json").write_bytes((home[Replaced] / "state.json").read_bytes()[:-1] + b"z")
    with (home[Dense] / "model.bin").open("r+b") as file:
        file.seek(PAGE)
        file.write(b"\0" * 20)
    for kind in (Append, Renames, Replaced, Dense):
        assert list(stepped[kind].judge(stepped[kind].progress() if kind is not Dense else 0)), kind.name

    mapped = stepped[Mapped]
    assert list(mapped.judge(mapped.progress() + 1))
    assert isinstance(database := stepped[WriteAhead], Database)
    assert list(database.judge(database.progress() + 1))


def test_the_report_names_what_is_wrong(tmp_path: Path) -> None:
    """Generation, program and fault, in evidence that a person reads."""
    fault = living.Fault(generation=3, writer="append", says="line 4 is missing")
    outcome = living.Outcome(generations=5, faults=[fault])

    page = "\n".join(living.report(outcome, 1, 2.0))
    assert "generation 3, append: line 4 is missing" in page
    assert json.dumps(str(outcome)).count("1 faults") == 1
