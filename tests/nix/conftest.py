"""What the tests of the flake share: the Nix command with a store of its own, and archives of small images."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).parents[2]
PROGRAMS = TOP / "nix/checks/programs"
Claim = Callable[..., str]
Archive = Callable[..., Path]


@pytest.fixture(scope="session")
def nix(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command of Nix; its store is a directory of this test run, so that any user can, without a network."""
    if shutil.which("nix-instantiate") is None:
        pytest.skip("nix is not installed (Debian: nix-bin)")
    top = tmp_path_factory.mktemp("nix")
    places = {"NIX_STORE_DIR": "store", "NIX_STATE_DIR": "state", "NIX_LOG_DIR": "log", "NIX_LOCALSTATE_DIR": "local"}
    environment = {
        **os.environ,
        **{name: str(top / folder) for name, folder in places.items()},
        "NIX_REMOTE": "",
        "NIX_CONFIG": "build-users-group =\nsandbox = false\nsubstituters =\n",
        "HOME": str(top),
    }

    def run(*words: str | Path, check: bool = False) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(words, env=environment, cwd=TOP, capture_output=True, text=True, timeout=120, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture
def claim() -> Claim:
    """Runs the program of a claim: empty when it holds, else the one line that it says."""

    def run(name: str, *words: str | Path) -> str:
        program = PROGRAMS / f"{name.replace('-', '_')}.py"
        done = subprocess.run(
            [sys.executable, "-B", program, *words], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode == 0) == (done.stderr == ""), done.stderr
        assert done.stderr.count("\n") <= 1, done.stderr
        return done.stderr.strip()

    return run


def _entry(name: str, told: Mapping[str, Any]) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name.lstrip("/"))
    entry.mtime, entry.mode = told.get("time", 1), told.get("mode", 0o644)
    if "link" in told:
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, told["link"], 0o777
    elif "text" not in told:
        entry.type, entry.mode = tarfile.DIRTYPE, told.get("mode", 0o755)
    entry.size = len(told.get("text", ""))
    entry.uid = entry.gid = told.get("owner", 0)
    return entry


def _layer(entries: Mapping[str, Mapping[str, Any]]) -> bytes:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as layer:
        for name, told in entries.items():
            layer.addfile(_entry(name, told), io.BytesIO(told.get("text", "").encode()))
    return body.getvalue()


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Writes a docker-archive: `layers` are path → {text, mode, link, owner, time}; without text it is a directory."""

    def write(config: Mapping[str, Any], *layers: Mapping[str, Mapping[str, Any]]) -> Path:
        target = tmp_path / "image.tar"
        names = [f"{number}.tar" for number in range(len(layers))]
        files = {name: _layer(layer) for name, layer in zip(names, layers, strict=True)}
        files["config.json"] = json.dumps({"config": config}).encode()
        files["manifest.json"] = json.dumps([{"Config": "config.json", "Layers": names}]).encode()
        with tarfile.open(target, "w") as outer:
            for name, body in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(body)
                outer.addfile(entry, io.BytesIO(body))
        return target

    return write
