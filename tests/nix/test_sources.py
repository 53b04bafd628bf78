"""The Nix expressions and the lock, without building anything."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).parents[2]
SOURCES = [
    TOP / "flake.nix",
    *sorted(path for folder in ("nix", "images", "tests/nix") for path in (TOP / folder).rglob("*.nix")),
]
Nix = Callable[..., subprocess.CompletedProcess[str]]


def checks() -> set[str]:
    """The claims that `nix flake check` looks at: nix/checks/default.nix names them."""
    text = (TOP / "nix/checks/default.nix").read_text()
    return set(re.findall(r'^ {4}"([a-z-]+)"$', text, re.MULTILINE))


def test_every_expression_parses(nix: Nix) -> None:
    """No `.nix` file has a syntax error."""
    nix("nix-instantiate", "--parse", *SOURCES, check=True)


def test_expressions_are_short() -> None:
    """The flake is at most 80 lines, any other file at most 160: what is longer hides something."""
    long = {path: len(path.read_text().splitlines()) for path in SOURCES}
    assert long.pop(TOP / "flake.nix") <= 80
    assert {
        str(path.relative_to(TOP)): lines for path, lines in long.items() if lines > 160 and "standin" not in str(path)
    } == {}


def test_every_claim_has_a_file_and_every_file_is_a_claim() -> None:
    """nix/checks/<claim>.nix is named in default.nix, and says in its first line what it claims."""
    beside = {"default", "claim", "root", "nixos"}
    files = {path.stem: path for path in (TOP / "nix/checks").glob("*.nix") if path.stem not in beside}
    assert checks() == files.keys()
    for path in files.values():
        assert path.read_text().startswith("# "), path


def test_a_claim_s_program_has_its_name() -> None:
    """programs/<claim>.py exists for each claim; what is left over is imported by one of them."""
    programs = {path.stem for path in (TOP / "nix/checks/programs").glob("*.py")}
    shared = {"archive", "image_root", "secrets_in", "verdict"}
    claims = {name.replace("-", "_") for name in checks() - {"entrypoint-tests-pass"}}
    assert programs - shared == claims


def test_the_entrypoint_s_tests_are_where_the_check_runs_them() -> None:
    """A move of the tests would leave a check that finds none."""
    text = (TOP / "nix/checks/entrypoint-tests-pass.nix").read_text()
    (folder,) = re.findall(r"-m pytest .* (tests/\S+)$", text, re.MULTILINE)
    assert list((TOP / folder).glob("test_*.py")) != []


def test_the_flake_pins_what_it_names() -> None:
    """flake.lock was made for this flake.nix: the same repository and tag, one package set for all."""
    flake = (TOP / "flake.nix").read_text()
    lock = json.loads((TOP / "flake.lock").read_text())
    told = re.search(r'nix-openclaw\.url = "github:([^/]+)/([^/]+)/([^"]+)"', flake)
    assert told is not None
    original = lock["nodes"]["nix-openclaw"]["original"]
    assert told.groups() == (original["owner"], original["repo"], original["ref"])
    assert lock["nodes"]["root"]["inputs"]["nixpkgs"] == ["nix-openclaw", "nixpkgs"]


def test_the_locked_openclaw_is_the_contract_s() -> None:
    """The tag of nix-openclaw and the version in the contract are raised together."""
    lock = json.loads((TOP / "flake.lock").read_text())
    contract = json.loads((TOP / "images/openclaw-nix/contract.json").read_text())
    assert lock["nodes"]["nix-openclaw"]["original"]["ref"] == f"v{contract['application']['version']}"


def test_a_homelab_s_additions_are_a_contract(nix: Nix, tmp_path: Path) -> None:
    """What images/openclaw-homelab promises is the base contract and its own tools, and the entrypoint accepts it."""
    from claw_entrypoint.contract import load

    expression = """
      let lib = import ./tests/nix/standin/nixpkgs/lib.nix; in
      import ./images/openclaw-homelab {
        inherit lib;
        callPackage = _: asked: { inherit (asked) promised; tools = builtins.attrNames asked.extraTools; };
        dig = null; openssh = null;
        unfree = { consul = null; nomad = null; terraform = null; _1password-cli = null; };
      }"""
    asked = json.loads(nix("nix-instantiate", "--eval", "--strict", "--json", "-E", expression, check=True).stdout)
    (tmp_path / "contract.json").write_text(json.dumps(asked["promised"]))
    contract = load(str(tmp_path / "contract.json"))
    base: dict[str, Any] = json.loads((TOP / "images/openclaw-nix/contract.json").read_text())
    added = asked["promised"]["tools"].keys() - base["tools"].keys()

    assert contract.name == "openclaw-homelab"
    assert added == set(asked["tools"]) == {"nomad", "consul", "terraform", "op", "ssh", "dig"}
    assert {**asked["promised"], "tools": 0, "environment": 0, "name": 0, "image": 0} == {
        **base, "tools": 0, "environment": 0, "name": 0, "image": 0
    }  # fmt: skip


@pytest.mark.parametrize("name", ["nixos.nix", "home-manager.nix", "service.nix"])
def test_modules_hold_no_secret_and_no_root(name: str) -> None:
    """The service is a user's own: no module asks for a system service or takes a key as an option."""
    text = (TOP / "nix/modules" / name).read_text()
    assert "systemd.services" not in text
    assert not re.search(r"(secret|access)[A-Z_]?[kK]ey *= *mkOption", text)
