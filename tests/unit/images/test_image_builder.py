"""images/build.sh chooses who builds the image: Nix where a cache answers, Podman everywhere else, and soon.

Nix, Podman and claw-runtime are played by small programs which write down how they were called.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

TOP = Path(__file__).parents[3]
TOOLS = ("sh", "cat", "dirname", "mktemp", "readlink", "rm", "sed", "sleep", "tar", "timeout", "tr", "ln", "touch")
WAIT = 1  # seconds
NIX = """
shift 2  # the experimental features
echo "nix $*" >> "$CALLS"
case $* in
  show-config) echo "substituters = https://one.example/ https://two.example" ;;
  "store ping --store https://two.example"*) {two} ;;
  "store ping"*) exit 1 ;;
  build*) {build} ;;
esac
"""
GOOD_BUILD = 'ln -sfn "$CALLS.archive" "${4}"'

pytestmark = pytest.mark.spawns


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildHost:
    """A tree with the script, and a PATH that has nothing but what a test puts there."""

    root: Path

    def program(self, name: str, body: str) -> None:
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{body}")
        path.chmod(0o755)

    def build(self, **environment: str) -> subprocess.CompletedProcess[str]:
        places = {
            "PATH": str(self.root / "bin"),
            "CALLS": str(self.root / "calls"),
            "CLAW_RUNTIME": str(self.root / "bin/claw-runtime"),
            "NIX_STORE_DIR": str(self.root / "store"),
            "CLAW_NIX_WAIT": str(WAIT),
            "TMPDIR": str(self.root / "scratch"),
        }
        script = self.root / "tree/images/build.sh"
        return subprocess.run(
            [script], env={**places, **environment}, capture_output=True, text=True, timeout=60, check=False
        )

    def calls(self) -> list[str]:
        path = self.root / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def host(tmp_path: Path) -> BuildHost:
    for folder in ("bin", "store", "scratch", "tree/images", "tree/.venv", "tree/.git"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(TOP / "images/build.sh", tmp_path / "tree/images")
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None, tool
        (tmp_path / "bin" / tool).symlink_to(found)
    host = BuildHost(root=tmp_path)
    host.program("claw-runtime", 'echo "claw-runtime $*" >> "$CALLS"\n')
    host.program("podman", 'echo "podman $*" >> "$CALLS"\ncase $2 in inspect) echo the-id ;; esac\n')
    return host


def with_nix(host: BuildHost, *, two: str = "exit 0", build: str = GOOD_BUILD) -> None:
    """A nix of which `two` is what the second substituter does; the first never answers."""
    host.program("nix", NIX.replace("{two}", two).replace("{build}", build))


def test_without_nix_podman_builds_at_once(host: BuildHost) -> None:
    """No nix: the Containerfile, said in one line, and nothing else is asked."""
    done = host.build()
    assert done.stderr == "image: built with Podman from the Containerfile: nix is not installed\n"
    assert done.returncode == 0
    assert host.calls() == ["claw-runtime image build openclaw-nix"]


def test_nix_builds_where_a_substituter_answers(host: BuildHost) -> None:
    """The archive is loaded and gets the name that workloads use; the line says who answered."""
    with_nix(host)
    done = host.build()
    assert "image: built with Nix: https://two.example answers\n" in done.stderr
    assert done.returncode == 0, done.stderr
    told = host.calls()
    tree = host.root / "tree"
    assert f"nix build {tree}#openclaw-nix-image --out-link {tree}/result" in told
    assert f"claw-runtime image load {tree}/result" in told
    assert "podman tag localhost/openclaw-nix:nix localhost/openclaw-nix:dev" in told
    assert "claw-runtime image build openclaw-nix" not in told


def test_an_installer_s_nix_is_found(host: BuildHost) -> None:
    """Nix that is not on PATH, as for a user whom host/run became, is looked for in its default profile."""
    with_nix(host)
    profile = host.root / "var/nix/profiles/default/bin"
    profile.mkdir(parents=True)
    (host.root / "bin/nix").rename(profile / "nix")
    assert "image: built with Nix" in host.build().stderr


def test_what_is_loaded_is_not_loaded_again(host: BuildHost) -> None:
    """The second run takes no time, unless somebody gave the name to another image."""
    with_nix(host)
    host.build()
    assert "is up to date" in host.build().stderr
    host.program("podman", "case $2 in inspect) echo another-id ;; esac\n")
    host.build()
    assert [line.split()[:3] for line in host.calls()].count(["claw-runtime", "image", "load"]) == 2


def test_a_silent_substituter_leaves_it_to_podman(host: BuildHost) -> None:
    """Nobody answers: the Containerfile, and the line names who was asked."""
    with_nix(host, two="exit 1")
    done = host.build()
    assert "no substituter of nix answers within 1 s: https://one.example/ https://two.example\n" in done.stderr
    assert host.calls()[-1] == "claw-runtime image build openclaw-nix"


@pytest.mark.parametrize(
    "hanging", [lambda host: with_nix(host, two="sleep 50"), lambda host: host.program("nix", "sleep 50\n")]
)
def test_a_nix_that_hangs_is_not_waited_for(host: BuildHost, hanging: Callable[[BuildHost], None]) -> None:
    """A network that swallows packets, or a nix that waits for a lock, costs the given seconds and no more."""
    hanging(host)
    began = time.monotonic()
    done = host.build()
    assert time.monotonic() - began < 20
    assert "built with Podman from the Containerfile" in done.stderr
    assert host.calls()[-1] == "claw-runtime image build openclaw-nix"


def test_a_nix_without_a_store_leaves_it_to_podman(host: BuildHost) -> None:
    """A nix that nobody set up yet cannot build for this user."""
    with_nix(host)
    done = host.build(NIX_STORE_DIR="/no-such-store")
    assert "nix is installed, but /no-such-store does not exist" in done.stderr
    assert host.calls() == ["claw-runtime image build openclaw-nix"]


def test_a_failed_build_is_not_hidden_by_the_other_builder(host: BuildHost) -> None:
    """Once Nix was chosen its failure is the answer, with the way out."""
    with_nix(host, build="exit 1")
    done = host.build()
    assert done.returncode == 1
    assert "hint: its output is above; to build without Nix: CLAW_BUILDER=containerfile make image" in done.stderr
    assert not [line for line in host.calls() if line.startswith("claw-runtime")]


def test_a_person_decides(host: BuildHost) -> None:
    """CLAW_BUILDER is obeyed without a question; a wrong word is an error."""
    with_nix(host)
    assert "Containerfile: CLAW_BUILDER selects it" in host.build(CLAW_BUILDER="containerfile").stderr
    assert host.calls() == ["claw-runtime image build openclaw-nix"]
    assert "with Nix: CLAW_BUILDER selects it" in host.build(CLAW_BUILDER="nix").stderr
    assert not [line for line in host.calls() if "ping" in line]
    assert host.build(CLAW_BUILDER="docker").returncode == 1


def test_another_version_is_built_from_the_containerfile(host: BuildHost) -> None:
    """Nix builds the version that its lock pins, so it is neither asked nor, where a person insists, silently used."""
    with_nix(host)
    assert "Containerfile: OpenClaw 2026.9.6 is asked for" in host.build(CLAW_OPENCLAW="2026.9.6").stderr
    assert host.calls() == ["claw-runtime image build openclaw-nix --version 2026.9.6"]
    done = host.build(CLAW_OPENCLAW="2026.9.6", CLAW_BUILDER="nix")
    assert done.returncode == 1
    assert "hint: docs/NIX.md says how to raise the pin; or CLAW_BUILDER=containerfile" in done.stderr
    assert len(host.calls()) == 1


def test_nothing_is_left_behind(host: BuildHost) -> None:
    """The directory of the questions goes, whoever builds; a tree that is no checkout gives Nix a copy of its parts."""
    with_nix(host)
    (host.root / "tree/.git").rmdir()
    for name in ("flake.nix", "flake.lock", "pyproject.toml"):
        (host.root / "tree" / name).touch()
    for name in ("nix", "entrypoint", "runtime", "tests"):
        (host.root / "tree" / name).mkdir()
    assert host.build().returncode == 0
    assert [line for line in host.calls() if line.startswith(f"nix build path:{os.fspath(host.root)}/scratch/")]
    with_nix(host, two="exit 1")
    host.build()
    assert list((host.root / "scratch").iterdir()) == []
