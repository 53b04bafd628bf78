"""A workload names the extensions that it uses; the gateway is shown these, and the image keeps all."""

from pathlib import Path

import pytest
from claw_entrypoint.contract import load
from claw_entrypoint.errors import SeedError
from claw_entrypoint.log import Log
from claw_entrypoint.seed import seed
from fakes.image_root import contract_document, events, furnish

NAME = "CLAW_BUNDLED_EXTENSIONS"
SOURCE = contract_document()["discovery"]["source"]
VARIABLE = contract_document()["discovery"]["variable"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An image with five extensions, and one file among them."""
    furnish(tmp_path)
    for name in ("memory-core", "browser", "canvas", "openrouter", "telegram"):
        (tmp_path / SOURCE.lstrip("/") / name).mkdir(parents=True)
    (tmp_path / SOURCE.lstrip("/") / "notes.txt").touch()
    return tmp_path


def shown(root: Path, *, strict: bool = True, **values: str) -> list[str] | None:
    """Seed with these values; the names that the gateway is told, None when it is told nothing."""
    needs = seed(load(str(root / "etc/claw/contract.json")), values, Log(strict=strict), str(root))
    assert needs.keys() <= {VARIABLE}
    return needs[VARIABLE].split(",") if needs else None


def test_without_a_choice_the_gateway_finds_all_by_itself(root: Path) -> None:
    """Nothing is said of it."""
    assert shown(root) is None


@pytest.mark.parametrize("text", ["browser canvas", "canvas,browser", " browser,\n canvas ,browser"])
def test_the_named_ones_are_shown_and_what_is_always_needed(root: Path, text: str) -> None:
    """Each once, however the names are separated."""
    assert shown(root, **{NAME: text}) == ["browser", "canvas", "memory-core"]


def test_what_a_tenants_values_need_is_shown_unasked(root: Path) -> None:
    """A key for OpenRouter is of no use without its extension."""
    assert shown(root, OPENROUTER_API_KEY="x", **{NAME: "browser"}) == ["browser", "memory-core", "openrouter"]


@pytest.mark.parametrize("name", ["brwoser", "notes.txt", "../extensions/browser", "..", "."])
def test_a_name_that_is_no_extension_ends_the_start(root: Path, name: str) -> None:
    """A typing error must not take an extension away in silence."""
    with pytest.raises(SeedError, match="names no extension") as caught:
        shown(root, **{NAME: f"browser {name}"})
    assert name in caught.value.brief


def test_for_a_command_it_is_a_warning(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A person's shell starts, and sees all."""
    assert shown(root, strict=False, **{NAME: "brwoser"}) is None
    assert "seed.defect" in [event["event"] for event in events(capfd.readouterr().err)]


def test_the_choice_is_no_feature_that_is_off(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Nobody is warned of a value that only makes a start quicker."""
    shown(root)
    log = events(capfd.readouterr().err)
    assert [event for event in log if NAME in event.get("missing", ())] == []
    assert {event.get("feature") for event in log if event["event"] == "feature.off"} == {
        "control_ui",
        "matrix",
        "model",
        "openrouter",
    }
