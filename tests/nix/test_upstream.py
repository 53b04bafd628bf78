"""The real nix-openclaw evaluates our image, where its source and a nixpkgs can be had; nothing is built or fetched.

CLAW_NIX_OVERRIDES: words `INPUT=FLAKE`, for example `nix-openclaw=path:/src/nix-openclaw
nix-openclaw/nixpkgs=path:/src/nixpkgs nix-openclaw/flake-utils=path:/src/flake-utils`.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
OVERRIDES = [word.split("=", 1) for word in os.environ.get("CLAW_NIX_OVERRIDES", "").split()]
PARTS = ("flake.nix", "flake.lock", "nix", "images", "entrypoint", "runtime", "tests")
Nix = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.skipif(
    not OVERRIDES, reason="CLAW_NIX_OVERRIDES names no source of nix-openclaw and nixpkgs, and none is fetched"
)


@pytest.fixture(scope="module")
def flake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the flake is made of, without virtual environments and evidence."""
    copy = tmp_path_factory.mktemp("flake")
    for name in PARTS:
        if (TOP / name).is_dir():
            shutil.copytree(TOP / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(TOP / name, copy)
    return copy


def evaluate(nix: Nix, flake: Path, attribute: str) -> str:
    words = [word for name, target in OVERRIDES for word in ("--override-input", name, target)]
    features = ("--extra-experimental-features", "nix-command flakes")
    done = nix(
        "nix", *features, "eval", "--raw", f"path:{flake}#{attribute}", "--no-write-lock-file", *words, check=True
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize("system", ["x86_64-linux", "aarch64-darwin"])
def test_the_image_has_a_derivation(nix: Nix, flake: Path, system: str) -> None:
    """On Linux and, for a remote builder, on a Mac: the same one."""
    path = evaluate(nix, flake, f"packages.{system}.openclaw-nix-image.drvPath")
    assert re.search(r"/[0-9a-z]{32}-openclaw-nix\.tar\.zst\.drv$", path)
    assert path == evaluate(nix, flake, "packages.x86_64-linux.openclaw-nix-image.drvPath")


def test_there_is_one_gateway_in_it(nix: Nix, flake: Path) -> None:
    """The plugins' peer is the very gateway that the image starts: two would be 250 MB more."""
    path = evaluate(nix, flake, "packages.x86_64-linux.openclaw-nix-image.drvPath")
    needed = nix("nix-store", "--query", "--requisites", path, check=True).stdout.splitlines()
    gateways = [name for name in needed if re.search(r"-openclaw-gateway-[0-9.]+\.drv$", name)]
    contract = json.loads((TOP / "images/openclaw-nix/contract.json").read_text())
    assert [name.rpartition("-")[2] for name in gateways] == [f"{contract['application']['version']}.drv"]


@pytest.mark.parametrize("claim", ["image-keeps-contract", "plugins-are-trusted", "template-is-valid", "tools-answer"])
def test_a_claim_about_it_has_a_derivation(nix: Nix, flake: Path, claim: str) -> None:
    """What `nix flake check` would build evaluates over the real package set as well."""
    assert evaluate(nix, flake, f"checks.x86_64-linux.{claim}.drvPath").endswith(f"-claim-{claim}.drv")
