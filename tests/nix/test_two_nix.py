"""Two releases of Nix agree on what the OpenClaw image is: this host's, and a newer one out of another Debian suite.

Over the stand-in package sets, of which an evaluation reads the inventory and never a program: an invented inventory
does. The newer Nix is unpacked by mmdebstrap, needs neither root nor an installation, and stays in ~/.cache/claw-tests.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from claw_runtime.engine import buildhost

TOP = Path(__file__).parents[2]
STANDIN = TOP / "tests/nix/standin"
CACHE = Path.home() / ".cache/claw-tests"
SUITE = "trixie"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
PARTS = ("flake.nix", "flake.lock", "pyproject.toml", "nix", "images", "entrypoint", "runtime", "tests")
FETCHING = 300  # seconds
PACKAGES = (
    *("bash", "coreutils", "curl", "diffutils", "ffmpeg", "findutils", "gawk", "gh", "git", "grep", "gzip", "jq"),
    *("libc6", "procps", "python3", "python3.11", "python3-pip", "python3-requests", "ripgrep", "sed", "tar"),
)
Words = Sequence[str | Path]


def unpack_newer(target: Path) -> str:
    """Unpack the suite's Nix and its libraries to `target`; empty, or why it cannot be had."""
    host = buildhost.this_host()
    sources = [line.split() for line in buildhost.debian_sources(host)]
    mirrors = [f"deb {words[1]} {SUITE} main" for words in sources if words[2] == buildhost.SUITE]
    if shutil.which("mmdebstrap") is None:
        return "mmdebstrap is not installed"
    if not mirrors:
        return "apt on this host names no Debian mirror"
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="nix-", dir=CACHE) as name:
        scratch = Path(name)
        (scratch / "auth.conf").touch(mode=0o600)
        (scratch / "auth.conf").write_text(buildhost.apt_credentials(host))
        hook = f"--setup-hook=upload {scratch}/auth.conf /etc/apt/auth.conf"
        options = [f"--aptopt={line}" for line in buildhost.apt_options(host)]
        words = ["mmdebstrap", "--quiet", "--variant=extract", "--include=nix-bin", hook, *options, SUITE]
        try:
            made = subprocess.run(
                [*words, scratch / "root.tar", *mirrors], capture_output=True, text=True, timeout=FETCHING, check=False
            )
        except subprocess.TimeoutExpired:
            return f"Debian's {SUITE} was not fetched within {FETCHING} s"
        if made.returncode != 0:
            return f"Debian's {SUITE} cannot be had: {(made.stderr.strip().splitlines() or ['no reason given'])[-1]}"
        (scratch / "tree").mkdir()
        wanted = ("./usr/bin/nix", f"./{LIBRARIES}")
        command: Words = ["tar", "-xf", scratch / "root.tar", "-C", scratch / "tree", "--no-same-owner", *wanted]
        subprocess.run(command, check=True)
        (scratch / "tree").rename(target)
    return ""


def version(nix: Words) -> str:
    done = subprocess.run([*nix, "--version"], capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.split()[-1]


@pytest.fixture(scope="module")
def releases() -> dict[str, Words]:
    """Version of each Nix, and the words that start it: the newer one by its own loader, with its own libraries."""
    installed = shutil.which("nix")
    if installed is None:
        pytest.skip("nix is not installed (Debian: nix-bin)")
    tree = CACHE / f"nix-{SUITE}"
    if not (tree / "usr/bin/nix").exists() and (reason := unpack_newer(tree)):
        pytest.skip(reason)
    loader = tree / LIBRARIES / "ld-linux-x86-64.so.2"
    newer: Words = (loader, "--library-path", tree / LIBRARIES, tree / "usr/bin/nix")
    found = {version(nix): nix for nix in ((installed,), newer)}
    if len(found) == 1:
        pytest.skip(f"this host's nix is that of Debian's {SUITE}: {next(iter(found))}")
    return found


@pytest.fixture
def inputs(tmp_path: Path) -> list[str | Path]:
    """The flake's own parts, and words that override its inputs by the stand-ins over an invented machine."""
    contract: dict[str, Any] = json.loads((TOP / "images/openclaw-nix/contract.json").read_text())
    build, release = contract["build"], contract["application"]["version"]
    debian = {name: {"version": "1.2-3", "programs": [f"/usr/bin/{name}"]} for name in PACKAGES}
    pins = {"node": contract["node"], **{name: build[name] for name in ("npm", "gemini", "uv")}}
    files: dict[str, Any] = {
        "machine/versions.json": {"debian": debian, "pins": pins},
        "packages/node_modules/openclaw/package.json": {"version": release},
    }
    for plugin in contract["plugins"]["entries"]:
        manifest = f"packages/plugins/{plugin['id']}/node_modules/{plugin['package']}/package.json"
        files[manifest] = {"version": release}
    for name, document in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(document))
    for name in PARTS:
        if (TOP / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(TOP / name, tmp_path / "flake" / name, ignore=ignored)
        else:
            (tmp_path / "flake").mkdir(exist_ok=True)
            shutil.copy(TOP / name, tmp_path / "flake")
    overrides = {
        "nix-openclaw": STANDIN / "openclaw",
        "nix-openclaw/packages": tmp_path / "packages",
        "nix-openclaw/nixpkgs": STANDIN / "nixpkgs",
        "nix-openclaw/nixpkgs/machine": tmp_path / "machine",
    }
    told = [word for name, folder in overrides.items() for word in ("--override-input", name, f"path:{folder}")]
    return [f"path:{tmp_path / 'flake'}#packages.x86_64-linux.openclaw-nix-image.drvPath", *told]


def evaluate(nix: Words, inputs: Words, root: Path) -> tuple[str, bytes]:
    """The image's derivation path and the derivation, in a store that is empty and always at the same place."""
    if root.exists():
        root.rename(root.with_name(f"before-{len(list(root.parent.iterdir()))}"))
    places = {"NIX_STORE_DIR": "store", "NIX_STATE_DIR": "state", "NIX_LOG_DIR": "log", "NIX_LOCALSTATE_DIR": "local"}
    environment = {
        **os.environ,
        **{name: str(root / folder) for name, folder in places.items()},
        "NIX_REMOTE": "",
        "NIX_CONFIG": "build-users-group =\nsubstituters =\nflake-registry =\n",
        "HOME": str(root),
        "XDG_CACHE_HOME": str(root / "cache"),
    }
    root.mkdir()
    features = ("--extra-experimental-features", "nix-command flakes")
    done = subprocess.run(
        [*nix, *features, "eval", "--raw", "--no-write-lock-file", *inputs],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, Path(done.stdout).read_bytes()


def test_two_releases_of_nix_agree(releases: dict[str, Words], inputs: Words, tmp_path: Path) -> None:
    """The derivation of the image, and with it every input down to the last, is the same for both."""
    found = {version: evaluate(nix, inputs, tmp_path / "root") for version, nix in releases.items()}
    [(path, derivation), other] = found.values()
    assert path.endswith("-openclaw-nix.tar.zst.drv"), found.keys()
    assert (path, derivation) == other, found.keys()


def test_another_image_has_another_derivation(releases: dict[str, Words], inputs: Words, tmp_path: Path) -> None:
    """What the releases agree on depends on the flake: one more byte in the entrypoint, another path."""
    nix = next(iter(releases.values()))
    before, _ = evaluate(nix, inputs, tmp_path / "root")
    module = tmp_path / "flake/entrypoint/claw_entrypoint/contract.py"
    module.write_text(f"{module.read_text()}\n")
    assert evaluate(nix, inputs, tmp_path / "root")[0] != before
