"""The configuration with which claw starts Podman's service: no container takes a kernel key."""

import tomllib
from pathlib import Path

import pytest
from claw_runtime.engine.configuration import without_keyrings


def test_a_file_that_podman_reads_last_is_added(tmp_path: Path) -> None:
    """The user's and the host's configuration stay what they are."""
    place = tmp_path / "s.conf"
    assert without_keyrings({"HOME": "/x"}, place) == {"CONTAINERS_CONF_OVERRIDE": str(place)}
    assert tomllib.loads(place.read_text()) == {"containers": {"keyring": False}}


@pytest.mark.parametrize(
    "text",
    [
        "",
        '[engine]\nruntime = "crun"',
        '[containers]\nlog_driver = "k8s-file"\n[engine]\nruntime = "crun"\n',
        ' [containers] # mine\nlog_driver = "k8s-file"',
    ],
)
def test_the_only_file_that_podman_reads_is_completed(tmp_path: Path, text: str) -> None:
    """Everything else in it is kept, and the file itself is not changed."""
    (tmp_path / "mine.conf").write_text(text)
    place = tmp_path / "s.conf"
    assert without_keyrings({"CONTAINERS_CONF": f"{tmp_path}/mine.conf"}, place) == {"CONTAINERS_CONF": str(place)}
    made, given = tomllib.loads(place.read_text()), tomllib.loads(text)
    assert made.pop("containers") == {**given.pop("containers", {}), "keyring": False}
    assert made == given
    assert (tmp_path / "mine.conf").read_text() == text


@pytest.mark.parametrize("text", ["[containers]\nkeyring = true\n", "[containers", "containers.keyring = true\n"])
def test_what_the_operator_sets_wins(tmp_path: Path, text: str) -> None:
    """A file that sets it, one that Podman will refuse, one that is not there, and an override are left alone."""
    (tmp_path / "mine.conf").write_text(text)
    for environment in (
        {"CONTAINERS_CONF": f"{tmp_path}/mine.conf"},
        {"CONTAINERS_CONF": f"{tmp_path}/nothing.conf"},
        {"CONTAINERS_CONF_OVERRIDE": f"{tmp_path}/mine.conf"},
    ):
        assert without_keyrings(environment, tmp_path / "s.conf") == {}
    assert not (tmp_path / "s.conf").exists()
