"""The judge of the laboratory's power failures can find a loss, and finds none where nothing was promised."""

import pytest
from lab import deeds
from lab.acknowledged import Acknowledged, Lost

FILES = deeds.FILES


def write(known: Acknowledged, version: int, *, deed: str = "write", ends: bool = True) -> None:
    known.hear({"tenant": "alice", "deed": deed, "at": "begin", "version": version})
    if ends:
        known.hear({"tenant": "alice", "deed": deed, "at": "end", "version": version, "answer": {}})


def answer(known: Acknowledged, deed: str, generation: int) -> None:
    known.hear({"tenant": "alice", "deed": deed, "at": "begin"})
    known.hear({"tenant": "alice", "deed": deed, "at": "end", "answer": {"generation": generation}})


def read(known: Acknowledged, **found: int | None) -> None:
    known.power_was_cut()
    known.hear({"tenant": "alice", "deed": "read", "at": "end", "found": dict.fromkeys(FILES, 1) | found})


@pytest.fixture
def known() -> Acknowledged:
    """Version 1 is committed as generation 1."""
    made = Acknowledged(["alice"])
    write(made, 1)
    answer(made, "commit", 1)
    return made


def test_what_was_committed_must_be_there(known: Acknowledged) -> None:
    """An older version, a file that is not whole, and a version that nobody wrote are losses."""
    read(known)
    for wrong in (0, None, 2):
        with pytest.raises(Lost, match="version 1 of b is certain"):
            read(known, b=wrong)


def test_what_was_flushed_must_be_there(known: Acknowledged) -> None:
    """Whether a commit has sealed it or not."""
    write(known, 2, deed="flushed write")
    with pytest.raises(Lost, match="version 2 of a is certain"):
        read(known)


@pytest.mark.parametrize("ends", [True, False])
def test_what_was_neither_may_be_there(known: Acknowledged, ends: bool) -> None:
    """A write that nobody flushed or committed may have reached the disk, in some files and not in others."""
    write(known, 2, ends=ends)
    read(known, a=2)
    with pytest.raises(Lost, match="version 2 of a is certain"):
        read(known)  # a claim has restored it since


def test_generations_never_go_back(known: Acknowledged) -> None:
    """Not in the answer of any deed."""
    for deed in ("claim", "commit", "release"):
        with pytest.raises(Lost, match="after generation 1"):
            answer(known, deed, 0)


def test_a_refusal_is_a_loss(known: Acknowledged) -> None:
    """After its time to start, the daemon must claim each tenant."""
    with pytest.raises(Lost, match="the claim of alice was refused"):
        known.hear({"tenant": "alice", "deed": "claim", "at": "end", "answer": {"refused": 409}})


def test_what_was_under_way_is_told(known: Acknowledged) -> None:
    """By tenant; once."""
    write(known, 2, ends=False)
    assert known.power_was_cut() == {"alice": "write"}
    assert known.power_was_cut() == {}


@pytest.mark.parametrize(
    ("name", "body", "version"),
    [
        ("a", b"17\n", 17),
        ("a", b"", None),
        ("a", b"17", None),
        ("a", b"17\n18\n", None),
        ("big", (b"17\n" * deeds.BIG)[: deeds.BIG], 17),
        ("big", (b"17\n" * deeds.BIG)[: deeds.BIG - 1], None),
        ("big", b"17\n" + b"\0" * (deeds.BIG - 3), None),
    ],
)
def test_a_file_has_a_version_if_it_is_whole(name: str, body: bytes, version: int | None) -> None:
    """Half a file, an empty one and one of two versions have none."""
    assert deeds.version_of(name, body) == version
