"""`install`, `upgrade-self` and `uninstall`: what they print, and which version does the work."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from claw_runtime.cli import running
from claw_runtime.daemon import environments, installing
from claw_runtime.operations import install
from claw_runtime.operations.install import Installable
from fakes.systemd import FakeSystemd
from fakes.terminal import Call

pytest_plugins = ["fakes.terminal_fixtures"]


@pytest.fixture(autouse=True)
def systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, claw: Call) -> FakeSystemd:
    """Somebody's own directories, a user manager, and environments that are built at once."""
    made = FakeSystemd()

    def build(venv: Path) -> None:
        (venv / "bin").mkdir(parents=True)

    def found(given: Path | None, installed: Path) -> Installable:
        assert installed.name == "venvs"
        return Installable(digest=given.name if given else "v1", build=build)

    for name in ("CLAW_HOME", "CLAW_RUN", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    monkeypatch.setattr(installing, "Systemctl", lambda: made)
    monkeypatch.setattr(environments, "found", found)
    monkeypatch.setattr(install, "ROOM", 1)
    monkeypatch.setattr(environments, "need_host", lambda: None)
    return made


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the process became instead of ending."""
    seen: list[list[str]] = []

    def become(argv: list[str]) -> None:
        seen.append(argv)
        raise SystemExit(0)

    monkeypatch.setattr(running, "become", become)
    return seen


Paths = Callable[[str], str]


@pytest.fixture
def at(tmp_path: Path) -> Paths:
    """A path below the person's home."""
    return lambda name: str(tmp_path / "me" / name)


def test_print_shows_files_and_writes_none(claw: Call, tmp_path: Path, systemd: FakeSystemd) -> None:
    """Also without a session: each file with its text."""
    systemd.session = False
    said = claw("install", "--print")
    assert said.code == 0
    assert "Type=notify" in said.out
    assert not (tmp_path / "me").exists()
    documents = json.loads(claw("install", "--print", "-o", "json").out)
    assert [Path(one["path"]).name for one in documents][:3] == [
        "claw-podman.service",
        "claw-s3.service",
        "claw.service",
    ]


def test_install_says_what_it_did(claw: Call, at: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and started units on stdout; warnings and the next step on stderr."""
    monkeypatch.setenv("CLAW_LEASE_TTL", "5m")
    said = claw("install")
    assert said.code == 0, said.err
    assert f"wrote {at('.config/systemd/user/claw.service')}\n" in said.out
    assert "started claw.service\n" in said.out
    assert "CLAW_LEASE_TTL is set in this shell only" in said.err
    assert "journalctl --user -u claw" in said.err


def test_install_as_a_document(claw: Call, at: Paths) -> None:
    """One object with the places."""
    document = json.loads(claw("install", "-o", "json").out)
    assert document["home"] == at(".local/share/claw")
    assert document["restarted"] == ["claw-podman.service", "claw-s3.service", "claw.service"]
    assert {file["action"] for file in document["files"]} == {"write"}


def test_edited_units_are_reported(claw: Call, at: Paths) -> None:
    """With the way to the new one."""
    claw("install")
    unit = Path(at(".config/systemd/user/claw.service"))
    unit.write_text(unit.read_text() + "# mine\n")
    said = claw("install")
    assert f"kept {unit}\n" in said.out
    assert f"{unit} was edited and is kept" in said.err


def test_an_upgrade_is_done_by_the_new_version(claw: Call, at: Paths, became: list[list[str]]) -> None:
    """It builds the environment; then the program in it writes the units, which it knows best."""
    claw("install")
    assert claw("upgrade-self", "--from", "v2", "-o", "json").code == 0
    program = at(".local/share/claw/venvs/v2/bin/claw-runtime")
    assert became == [[program, "-o", "json", "install", "--digest=v2"]]
    assert json.loads(claw("install", "--digest", "v2", "-o", "json").out)["restarted"] == ["claw.service"]


def test_an_upgrade_needs_an_installation(claw: Call, became: list[list[str]]) -> None:
    """Otherwise the error names the verb for that."""
    said = claw("upgrade-self")
    assert (said.code, became) == (37, [])
    assert "claw-runtime install" in said.err


def test_a_digest_that_is_not_built_is_refused(claw: Call) -> None:
    """The hidden option is for upgrades only."""
    assert claw("install", "--digest", "v9").code == 44


def test_uninstall_says_where_the_data_is(claw: Call, at: Paths) -> None:
    """And removes what was installed."""
    claw("install")
    said = claw("uninstall")
    assert said.code == 0
    assert f"removed {at('.config/systemd/user/claw.service')}\n" in said.out
    assert f"the data directory stays: {at('.local/share/claw')}" in said.err


def test_another_home_is_refused_before_anything_is_looked_for(
    claw: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of the installation is the first thing reported."""
    claw("install")
    monkeypatch.setattr(environments, "found", lambda *_: pytest.fail("looked for a source"))
    assert claw("--home", str(tmp_path / "other"), "install").code == 37


@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_no_session_is_41(claw: Call, systemd: FakeSystemd, verb: str) -> None:
    """With what to do about it."""
    systemd.session = False
    assert claw(verb).code == 41
