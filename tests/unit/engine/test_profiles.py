"""The files that Podman reads profiles from, and that no container is created without one."""

from pathlib import Path

import pytest
from claw_runtime.engine import mapping, options
from claw_runtime.engine.imagetool import PodmanImageTool
from claw_runtime.engine.profiles import ProfileFiles
from claw_runtime.errors import EngineFailed
from claw_runtime.ports import ContainerSpec
from claw_runtime.seccomp import profiles


def test_without_a_text_it_is_strict(tmp_path: Path) -> None:
    """Whoever forgets the profile gets the narrow one."""
    assert ProfileFiles(tmp_path / "s").path(None).read_text() == profiles.text("strict")


def test_each_text_has_one_private_file(tmp_path: Path) -> None:
    """The same text is the same file, another text another one; only this user can read them."""
    files = ProfileFiles(tmp_path / "s")
    one, other = files.path("{}"), files.path("[]")
    assert (one.read_text(), other.read_text()) == ("{}", "[]")
    assert files.path("{}") == one
    assert ((tmp_path / "s").stat().st_mode & 0o777, one.stat().st_mode & 0o777) == (0o700, 0o600)


def test_a_file_that_was_removed_is_written_again(tmp_path: Path) -> None:
    """A run directory may be cleared under a daemon."""
    files = ProfileFiles(tmp_path / "s")
    files.path("{}").unlink()
    assert files.path("{}").read_text() == "{}"


def test_every_container_has_a_profile(tmp_path: Path) -> None:
    """It is among the options that cannot be switched off."""
    spec = ContainerSpec(name="a", image="b")
    made = options.of(spec, profile=tmp_path / "p.json", cgroup_parent=None, log_driver="", helper="slirp4netns")
    assert made["seccomp_profile_path"] == str(tmp_path / "p.json")


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The podman commands of an image tool, none of which runs."""
    seen: list[tuple[str, ...]] = []

    class Done:
        returncode, stdout, stderr = 0, b"", b""

    def podman(self: PodmanImageTool, *arguments: str) -> type[Done]:
        seen.append(arguments)
        return Done

    monkeypatch.setattr(PodmanImageTool, "_podman", podman)
    return seen


def test_images_are_looked_into_under_strict(commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    """The container of `image verify` has the narrow profile, the common mapping, and none of this user's proxies."""
    monkeypatch.setattr(PodmanImageTool, "config", lambda self, reference: {"Env": ["PATH=/bin", "EMPTY="]})
    PodmanImageTool().run("localhost/a", ["true"])
    flags = {f"--security-opt=seccomp={profiles.path_of('strict')}", "--http-proxy=false", *mapping.flags()}
    assert flags <= set(commands[0])


def test_an_image_that_inherits_variables_is_not_looked_into(
    commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command would hand it this user's own variables."""
    monkeypatch.setattr(PodmanImageTool, "config", lambda self, reference: {"Env": ["PATH=/bin", "AWS_*"]})
    with pytest.raises(EngineFailed, match=r"'AWS_\*'"):
        PodmanImageTool().run("localhost/a", ["true"])
    assert commands == []
