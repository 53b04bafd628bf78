"""`TZ` of a workload file: unknown zones are refused with near matches, everything else is left alone."""

import zoneinfo
from pathlib import Path

import pytest
from claw_runtime.errors import InvalidSpec
from claw_runtime.spec import loader
from claw_runtime.spec.zones import mistake
from fakes.world import WORKLOAD


@pytest.mark.parametrize(
    "zone",
    [
        "",
        "Etc/UTC",
        "UTC",
        "Asia/Tokyo",
        ":Asia/Tokyo",
        "UTC0",
        "CET-1CEST,M3.5.0,M10.5.0/3",
        "<+03>-3",
        "/etc/localtime",
    ],
)
def test_zones_rules_and_files_are_accepted(zone: str) -> None:
    """All forms that POSIX has; what a program makes of a rule or a file is its own affair."""
    assert mistake(zone) == ""


@pytest.mark.parametrize(
    ("zone", "near"),
    [("Asia/Tokio", "Asia/Tokyo"), ("europe/berlin", "Europe/Berlin"), ("Berlin", "Europe/Berlin"), ("Asia", "")],
)
def test_an_unknown_zone_is_named_with_those_like_it(zone: str, near: str) -> None:
    """A typing error, another case, a city alone, and a name like which there is nothing."""
    wrong = mistake(zone)
    assert repr(zone) in wrong
    assert near in wrong


@pytest.mark.parametrize("zone", ["../etc/passwd", "no zone", "x\0y"])
def test_names_that_are_none_are_refused(zone: str) -> None:
    """Also those that lead elsewhere."""
    assert mistake(zone)


def test_a_host_without_zones_refuses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slim host may lack what the image has."""
    zoneinfo.ZoneInfo.clear_cache()
    monkeypatch.setattr("claw_runtime.spec.zones._exists", lambda _name: False)
    assert mistake("Asia/Tokio") == ""


def test_the_file_names_the_place() -> None:
    """The refusal has line and column of the value, after variables were filled in."""
    text = WORKLOAD + "variables: {city: Tokio}\nenvironment:\n  TZ: Asia/${city}\n"
    line = text.splitlines().index("  TZ: Asia/${city}") + 1
    with pytest.raises(InvalidSpec, match=f"w.yaml:{line}:7: .*Asia/Tokyo"):
        loader.parse(text, Path("w.yaml"))
