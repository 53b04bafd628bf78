"""Durations and sizes mean what a person meant, or are refused with a sentence that shows how to write them."""

import time

import pytest
from claw_runtime import units
from claw_runtime.clock import SystemClock
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("10m", 600),
        ("1h30m", 5400),
        ("1d", 86_400),
        ("1d2h3m4s5ms", 93_784.005),
        ("1.5s", 1.5),
        (" 2m ", 120),
        ("0s", 0),
        (90, 90),
        (0.25, 0.25),
    ],
)
def test_a_duration_is_read(text: object, seconds: float) -> None:
    """Units from days to milliseconds, largest first, and plain seconds."""
    assert units.duration(text) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "10",
        "m10",
        "10x",
        "5m1h",
        "-1s",
        "1 h",
        "1m1m",
        "1e3s",
        "\u0661s",
        -1,
        True,
        None,
        [],
        float("nan"),
        float("inf"),
    ],
)
def test_a_wrong_duration_is_refused(value: object) -> None:
    """Nothing is guessed: no unit, a wrong order, a sign or another type is an error."""
    with pytest.raises(ValueError, match=r"duration|no unit"):
        units.duration(value)


def test_a_number_without_a_unit_is_refused_with_its_two_readings() -> None:
    """The commonest mistake gets the answer to copy."""
    with pytest.raises(ValueError, match="write 10s for seconds or 10m for minutes"):
        units.duration("10")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("2G", 2 << 30),
        ("2g", 2 << 30),
        ("512m", 512 << 20),
        ("2GiB", 2 << 30),
        ("2gb", 2 << 30),
        ("1k", 1024),
        ("1.5g", 3 << 29),
        ("1T", 1 << 40),
        ("4096", 4096),
        ("4096b", 4096),
        ("2 GiB", 2 << 30),
        (7, 7),
    ],
)
def test_a_size_is_read_as_podman_reads_it(text: object, count: int) -> None:
    """Every unit is a power of 1024, in either case, with or without B and iB."""
    assert units.size(text) == count


@pytest.mark.parametrize("value", ["", "G", "2X", "-1g", "2 G B", "2ib", "0x10", "1e3", -1, 1.5, True, None, {}])
def test_a_wrong_size_is_refused(value: object) -> None:
    """Nothing is guessed about a size either."""
    with pytest.raises(ValueError, match="size"):
        units.size(value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 ms"),
        (0.0004, "0.4 ms"),
        (0.64, "640 ms"),
        (0.9996, "1.0 s"),
        (1.2, "1.2 s"),
        (59.96, "1 min"),
        (125, "2 min 5 s"),
        (3600, "1 h"),
        (11_040, "3 h 4 min"),
        (183_600, "2 d 3 h"),
        (-1.2, "-1.2 s"),
    ],
)
def test_a_duration_is_written_for_people(seconds: float, text: str) -> None:
    """Two figures that matter, never `60.0 s` or `1000 ms`."""
    assert units.format_duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (512, "512 B"), (4100, "4.1 kB"), (143_000_000, "143 MB"), (2 << 30, "2.1 GB"), (999_600, "1.0 MB")],
)
def test_a_size_is_written_for_people(count: int, text: str) -> None:
    """Powers of 1000, as Podman's own listings write it."""
    assert units.format_size(count) == text


@given(st.integers(0, 9 * 10**17))
def test_no_written_size_has_four_figures(count: int) -> None:
    """A number for people never grows past its unit, over the whole range."""
    assert float(units.format_size(count).split(" ")[0]) < 1000


@given(st.floats(0, 10**9))
def test_no_written_duration_overflows_its_unit(seconds: float) -> None:
    """Neither `1000 ms` nor `60 s` nor `24 h` nor `60 min` is ever written."""
    words = units.format_duration(seconds).split(" ")
    bound = {"ms": 1000, "s": 60, "min": 60, "h": 24, "d": 10**9}
    assert all(float(number) < bound[unit] for number, unit in zip(words[::2], words[1::2], strict=True))


def test_the_system_clock_keeps_its_promises() -> None:
    """It tells the epoch, grows, and never fails on a wait that is over already."""
    clock = SystemClock()
    before = clock.monotonic()
    clock.sleep(-1)
    clock.sleep(0.001)
    assert clock.monotonic() - before >= 0.001
    assert abs(clock.now() - time.time()) < 5
