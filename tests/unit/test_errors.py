"""The error table is one table: its classes, its codes and its documentation are the same."""

import re

import pytest
from claw_runtime import errors
from claw_runtime.errors import ClawError

OWN = sorted(
    (cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, ClawError)),
    key=lambda cls: cls.exit_code,
)
RESERVED = {0, 2, 3, 125, 126, 127, 130}  # success, usage, partial, exec's own three, interrupted


def test_no_two_classes_share_an_exit_code_or_a_slug() -> None:
    """A script can tell every failure from every other by its code, a client by its slug."""
    assert len({cls.exit_code for cls in OWN}) == len(OWN)
    assert len({cls.slug for cls in OWN}) == len(OWN)


def test_the_documented_table_is_the_table() -> None:
    """The module's docstring names each class with its code, and no other."""
    documented = re.findall(r"([A-Z]\w+) (\d+)", errors.__doc__ or "")
    assert sorted(documented) == sorted((cls.__name__, str(cls.exit_code)) for cls in OWN)


def test_table_holds_every_class() -> None:
    """`table()` is complete, so an exit code can always be turned back into a class."""
    assert {code: cls for code, cls in errors.table().items() if cls in OWN} == {cls.exit_code: cls for cls in OWN}


@pytest.mark.parametrize("cls", OWN)
def test_codes_and_statuses_keep_to_their_ranges(cls: type[ClawError]) -> None:
    """No exit code collides with a shell's, and every HTTP status is an error's."""
    assert cls.exit_code not in RESERVED
    assert cls.exit_code == 1 or 10 <= cls.exit_code < 64
    assert 400 <= cls.http_status < 600


@pytest.mark.parametrize("cls", OWN)
def test_a_slug_leads_back_to_its_class(cls: type[ClawError]) -> None:
    """The client of the API raises the class that the daemon raised."""
    assert errors.by_slug(cls.slug) is cls


def test_an_unknown_slug_is_the_general_error() -> None:
    """A newer daemon's error is still an error to an older client."""
    assert errors.by_slug("from-the-future") is ClawError


def test_a_message_keeps_its_parts() -> None:
    """What, why, what to do and the facts stay apart, so nobody parses a text."""
    error = errors.DiskFull("no room", why="0 bytes left", hint="free some", path="p", need=7)
    assert (str(error), error.brief, error.hint, error.facts) == (
        "no room: 0 bytes left",
        "no room",
        "free some",
        {"path": "p", "need": 7},
    )
