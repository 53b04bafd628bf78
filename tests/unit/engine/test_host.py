"""What tells one boot of the machine from another."""

from pathlib import Path

import pytest
from claw_runtime.engine import host


def kernel(directory: Path, monkeypatch: pytest.MonkeyPatch, *, boot: str | None, started: str | None) -> str:
    """The boot by these files; None is a file that cannot be read."""
    stat = f"1 (in it) a) S {' '.join(['0'] * 18)} {started} 0 0\n"
    for name, text in (("_BOOT", boot), ("_PROCESS_1", started and stat)):
        path = directory / f"{name}-{text is None}"
        if text is not None:
            path.write_text(text)
        monkeypatch.setattr(host, name, path)
    return host.boot()


def test_cgroup_v2_alone_has_the_list_of_controllers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With v1, and with a tree of both, the file is not at the top."""
    monkeypatch.setattr(host, "_CGROUPS", tmp_path)
    (tmp_path / "unified").mkdir()
    (tmp_path / "unified/cgroup.controllers").touch()
    assert not host.has_cgroup_v2()
    (tmp_path / "cgroup.controllers").touch()
    assert host.has_cgroup_v2()


def test_a_boot_has_one_name() -> None:
    """Two questions within one boot get the same answer, and it is not empty."""
    assert host.boot() == host.boot() != ""


def test_a_machine_and_a_container_that_start_again_have_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The boot id changes with the machine; the start of process 1 with a container that has the same kernel."""
    first = kernel(tmp_path, monkeypatch, boot="a\n", started="24")
    assert first == "a 24"
    assert kernel(tmp_path, monkeypatch, boot="b\n", started="24") != first
    assert kernel(tmp_path, monkeypatch, boot="a\n", started="99") != first


def test_it_may_be_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a boot id nothing is compared; a hidden process 1 leaves the boot id."""
    assert kernel(tmp_path, monkeypatch, boot=None, started="24") == ""
    assert kernel(tmp_path, monkeypatch, boot="a\n", started=None) == "a"
