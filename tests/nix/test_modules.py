"""The NixOS and Home Manager modules, evaluated with the module system of a real nixpkgs' lib where there is one.

CLAW_NIXPKGS_LIB names the directory `lib` of any nixpkgs.
"""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
LIBRARY = os.environ.get("CLAW_NIXPKGS_LIB", "")

pytestmark = pytest.mark.skipif(not LIBRARY, reason="CLAW_NIXPKGS_LIB does not name nixpkgs' lib")


@pytest.fixture(scope="module")
def modules(nix: Callable[..., subprocess.CompletedProcess[str]]) -> Any:
    words = ["nix-instantiate", "--eval", "--strict", "--json", HERE / "modules.nix", "--argstr", "library", LIBRARY]
    return json.loads(nix(*words, check=True).stdout)


def test_the_daemon_runs_with_what_was_given(modules: Any) -> None:
    """Settings file, then the verb, then the workload files, each one word also when it has a space."""
    start = modules["nixos"]["serviceConfig"]["ExecStart"].replace("'", '"')
    assert start.replace('"', "").startswith("/claw-runtime/bin/claw-runtime --config /nix/store/claw-runtime.toml up")
    assert '"/etc/claw/my assistant.yaml"' in start
    assert modules["plain"]["ExecStart"].replace("'", "") == "/claw-runtime/bin/claw-runtime up"


def test_images_are_loaded_before_the_daemon(modules: Any) -> None:
    """The archive is loaded by the verb that maps it for the user as well."""
    expected = ["/claw-runtime/bin/claw-runtime image load /image.tar.zst"]
    assert modules["home"]["Service"]["ExecStartPre"] == expected


def test_tenants_survive_the_daemon(modules: Any) -> None:
    """A stop of the unit ends the daemon and nothing else, and its control group is the user's own."""
    for service in (modules["nixos"]["serviceConfig"], modules["home"]["Service"]):
        assert (service["KillMode"], service["Delegate"]) == ("process", True)
        assert service["EnvironmentFile"] == "/run/keys/claw.env"


def test_the_user_is_an_ordinary_one(modules: Any) -> None:
    """A normal user with ranges of ids, who lingers, and whose service no other user has."""
    nixos = modules["nixos"]
    assert nixos["user"] == {"autoSubUidGidRange": True, "isNormalUser": True, "linger": True}
    assert nixos["unitConfig"]["ConditionUser"] == "keeper"
    assert nixos["podman"] is True


def test_nothing_is_set_unless_enabled(modules: Any) -> None:
    """To import the module changes nothing."""
    assert modules["off"] == {}
