"""Verifying images, over fakes: which broken promises are found."""

from typing import Any

import pytest
from claw_runtime.errors import VerifyMismatch
from claw_runtime.images.build import Images
from fakes.imagetool import FakeImageTool

REFERENCE = "localhost/openclaw-nix:dev"


def test_a_good_image_verifies(images: Images, contract: dict[str, Any]) -> None:
    """Every tool of the contract is among the checks."""
    checks = images.verify(REFERENCE)
    assert all(check.ok for check in checks)
    assert {f"tool {name}" for name in contract["tools"]} <= {check.name for check in checks}


@pytest.mark.parametrize(
    ("key", "value", "check"),
    [
        ("User", "1000", "no user"),
        ("Healthcheck", {"Test": ["CMD", "x"]}, "no healthcheck"),
        ("Env", ["HOME=/root"], "environment"),
        ("ExposedPorts", {}, "ports"),
        ("Entrypoint", [], "entrypoint"),
        ("Cmd", ["sh"], "no command"),
    ],
)
def test_a_wrong_configuration_is_found(images: Images, tool: FakeImageTool, key: str, value: Any, check: str) -> None:
    """Each promise about the configuration fails by its own name."""
    tool.configs[REFERENCE] |= {key: value}
    with pytest.raises(VerifyMismatch) as caught:
        images.verify(REFERENCE)
    assert [found.name for found in caught.value.facts["checks"] if not found.ok] == [check]


@pytest.mark.parametrize(
    ("key", "value", "check"),
    [
        ("setuid", ["/usr/bin/su"], "no setuid file"),
        ("open", ["/opt"], "no other writable directory"),
        ("modes", {"/config": "755"}, "writable directories"),
        ("missing", ["/opt/openclaw"], "promised paths"),
        ("tools", {"openclaw": [127, "not found"]}, "tool openclaw"),
        ("tools", {"openclaw": [0, "OpenClaw 2020.1.1"]}, "application version"),
    ],
)
def test_a_wrong_root_is_found(images: Images, tool: FakeImageTool, key: str, value: Any, check: str) -> None:
    """Each promise about the files and tools fails by its own name."""
    tool.found[key] = value
    with pytest.raises(VerifyMismatch) as caught:
        images.verify(REFERENCE)
    assert check in [found.name for found in caught.value.facts["checks"] if not found.ok]


def test_a_tool_that_is_not_run_is_no_pass(images: Images, tool: FakeImageTool, contract: dict[str, Any]) -> None:
    """A probe that answers for fewer tools than the contract lists does not verify the image."""
    tool.found["tools"] = {"openclaw": [0, contract["application"]["version"]]}
    with pytest.raises(VerifyMismatch) as caught:
        images.verify(REFERENCE)
    assert "tool curl" in caught.value.why


def test_an_image_without_a_contract_is_refused(images: Images, tool: FakeImageTool) -> None:
    """Nothing is guessed about an image that promises nothing."""
    tool.configs[REFERENCE] = {"Labels": None}
    with pytest.raises(VerifyMismatch, match="no contract"):
        images.verify(REFERENCE)
