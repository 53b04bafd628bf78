"""An installation of one user, over a fake systemd: what is written, what is kept, what a failure leaves."""

import errno
import itertools
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from claw_runtime.deploy import units
from claw_runtime.deploy.units import Program
from claw_runtime.errors import (
    ClawError,
    Conflict,
    DaemonRunning,
    DiskFull,
    InstallFailed,
    NotLingering,
    NoUserSession,
    PortTaken,
    UnitFailed,
)
from claw_runtime.operations import install, install_files
from claw_runtime.operations.install import Installable, Installer
from claw_runtime.operations.install_files import InstallPaths
from fakes.systemd import FakeSystemd, refusing

PODMAN, S3, ROUTER, CLAW = "claw-podman.service", "claw-s3.service", "claw-router.service", "claw.service"


@dataclass
class User:
    """Somebody's directories, and the installer of a version."""

    base: Path
    systemd: FakeSystemd = field(default_factory=FakeSystemd)
    holder: str = ""
    port: str = ""
    built: list[Path] = field(default_factory=list)

    @property
    def paths(self) -> InstallPaths:
        return InstallPaths(data=self.base / "share/claw", config=self.base / "config", commands=self.base / "bin")

    def installer(self, home: str = "data", *, s3: bool = True, ingress: str = "", **environment: str) -> Installer:
        program = Program(
            venv=self.paths.link,
            socket=self.base / "run/podman.sock",
            environment=environment,
            variables=self.base / "config/claw/claw.env",
            s3=s3,
            run=self.base / "run",
            ingress=ingress,
        )
        return Installer(
            self.paths, self.systemd, self.base / home, program, holder=lambda: self.holder, listen=self._listen
        )

    def _listen(self) -> None:
        if self.port:
            raise PortTaken(f"the API cannot listen on {self.port}", hint="end that process")

    def source(self, digest: str = "v1", build: Callable[[Path], None] | None = None) -> Installable:
        def made(venv: Path) -> None:
            (venv / "bin").mkdir(parents=True)
            for name in install.COMMANDS:
                (venv / "bin" / name).touch()
            self.built.append(venv)

        return Installable(digest=digest, build=build or made)

    def files(self) -> dict[str, bytes]:
        """Every file and link below the base, by path."""
        links = {path: str(path.readlink()).encode() for path in self.base.rglob("*") if path.is_symlink()}
        files = {path: path.read_bytes() for path in self.base.rglob("*") if path.is_file() and path not in links}
        return {str(path.relative_to(self.base)): content for path, content in (files | links).items()}


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    """Somebody with a session who lingers, has nothing yet, and needs no room."""
    monkeypatch.setattr(install, "ROOM", 1)
    return User(tmp_path)


def unit(user: User, name: str = CLAW) -> Path:
    return user.paths.unit(name)


class TestInstall:
    def test_everything_is_in_place_and_runs(self, user: User) -> None:
        """Environment, units and commands are there; units are enabled, and started in their order."""
        done = user.installer().install(user.source())

        assert user.paths.link.readlink() == user.paths.environments / "v1"
        assert [file.path.name for file in done.files] == [PODMAN, S3, CLAW, "claw-runtime", "claw"]
        assert {file.action for file in done.files} == {"write"}
        assert done.restarted == (PODMAN, S3, CLAW)
        assert user.systemd.enabled == user.systemd.active == {PODMAN, S3, CLAW}
        assert (user.paths.commands / "claw").resolve() == user.paths.environments / "v1/bin/claw"
        asked = user.systemd.asked
        assert asked.index("reload") < asked.index(f"enable {PODMAN} {S3} {CLAW}") < asked.index(f"restart {PODMAN}")

    def test_a_second_time_changes_nothing(self, user: User) -> None:
        """No file is written, no environment built, and no unit restarted: tenants and operators notice nothing."""
        user.installer().install(user.source())
        before, user.systemd.asked = user.files(), []

        done = user.installer().install(user.source())

        assert {file.action for file in done.files} == {"unchanged"}
        assert (done.restarted, user.files(), len(user.built)) == ((), before, 1)

    def test_a_new_program_restarts_the_daemon_alone(self, user: User) -> None:
        """Podman's service and the S3 server run on: their units did not change."""
        user.installer().install(user.source())

        done = user.installer().install(user.source("v2"))

        assert done.restarted == (CLAW,)
        assert user.paths.link.readlink().name == "v2"

    def test_old_environments_are_removed(self, user: User) -> None:
        """Except the one before, for the way back."""
        for version in ("v1", "v2", "v3"):
            user.installer().install(user.source(version))
        assert sorted(venv.name for venv in user.paths.environments.iterdir()) == ["v2", "v3"]

    def test_one_that_is_in_use_stays(self, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
        """The S3 server of an older version may still run from it."""
        monkeypatch.setattr(install, "_in_use", lambda venv: venv.name == "v1")
        for version in ("v1", "v2", "v3"):
            user.installer().install(user.source(version))
        assert sorted(venv.name for venv in user.paths.environments.iterdir()) == ["v1", "v2", "v3"]

    def test_a_store_of_the_operators_ends_the_s3_server(self, user: User) -> None:
        """A bucket was configured since: the unit is stopped and removed."""
        user.installer().install(user.source())

        user.installer(s3=False).install(user.source())

        assert not unit(user, S3).exists()
        assert S3 not in user.systemd.active
        assert "claw-s3" not in unit(user).read_text()

    def test_the_router_is_a_unit_of_its_own(self, user: User) -> None:
        """A new program restarts it and the daemon; a new setting of the daemon restarts the daemon alone."""
        first = user.installer(ingress="127.0.0.1:8080").install(user.source())
        assert first.restarted == (PODMAN, S3, ROUTER, CLAW)
        changed = user.installer(ingress="127.0.0.1:8080", CLAW_LIMITS="drop").install(user.source())
        assert ROUTER not in changed.restarted
        assert CLAW in changed.restarted
        again = user.installer(ingress="127.0.0.1:8080", CLAW_LIMITS="drop").install(user.source("v2"))
        assert again.restarted == (ROUTER, CLAW)

    def test_without_an_address_the_routers_unit_goes(self, user: User) -> None:
        """It is stopped and removed, as an unneeded S3 server is."""
        user.installer(ingress="127.0.0.1:8080").install(user.source())
        user.installer().install(user.source())
        assert not unit(user, ROUTER).exists()
        assert ROUTER not in user.systemd.active

    def test_edited_units_are_kept(self, user: User) -> None:
        """What somebody wrote stays and is reported; the others are brought up to date."""
        user.installer().install(user.source())
        edited = unit(user).read_text().replace("WatchdogSec=90", "WatchdogSec=9")
        unit(user).write_text(edited)

        done = user.installer(CLAW_LIMITS="drop").install(user.source())

        actions = {file.path.name: file.action for file in done.files}
        assert (actions[CLAW], actions[S3]) == ("keep", "write")
        assert unit(user).read_text() == edited
        assert done.restarted == (S3,)

    def test_a_foreign_command_is_kept(self, user: User) -> None:
        """A program of that name in ~/.local/bin is somebody's own."""
        user.paths.commands.mkdir(parents=True)
        (user.paths.commands / "claw").write_text("#!/bin/sh\n")

        done = user.installer().install(user.source())

        assert {file.path.name: file.action for file in done.files}["claw"] == "keep"
        assert not (user.paths.commands / "claw").is_symlink()

    def test_what_was_interrupted_is_completed(self, user: User) -> None:
        """An environment without its last file is built anew, whatever is in it; the rest follows."""

        def killed(venv: Path) -> None:
            (venv / "half").mkdir(parents=True)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            user.installer().install(user.source(build=killed))
        (user.paths.environments / "v1" / "half").mkdir(parents=True)  # SIGKILL: nobody tidied up
        assert user.systemd.active == set()

        done = user.installer().install(user.source())

        assert not (user.paths.environments / "v1" / "half").exists()
        assert done.restarted == (PODMAN, S3, CLAW)

    def test_planning_writes_nothing(self, user: User) -> None:
        """`--print` needs no session and leaves no trace."""
        user.systemd.session = False
        plan = user.installer().plan()
        assert [file.action for file in plan] == ["write"] * 5
        assert user.files() == {}


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "error", "code"),
        [
            ({"session": False}, NoUserSession, 41),
            ({"lingering": False, "may_linger": False}, NotLingering, 43),
        ],
        ids=["no session", "no lingering"],
    )
    def test_nothing_is_written(self, user: User, change: dict[str, bool], error: type[ClawError], code: int) -> None:
        """Systemd cannot run the units: an error of its own, before the first file."""
        for name, value in change.items():
            setattr(user.systemd, name, value)
        with pytest.raises(error) as caught:
            user.installer().install(user.source())
        assert (caught.value.exit_code, user.files()) == (code, {})
        assert caught.value.hint

    def test_lingering_is_switched_on(self, user: User) -> None:
        """Where that needs no root."""
        user.systemd.lingering = False
        user.installer().install(user.source())
        assert user.systemd.lingering

    def test_another_home_is_refused(self, user: User) -> None:
        """One user has one claw.service; the error names the data directory that it serves."""
        user.installer().install(user.source())
        before = user.files()
        with pytest.raises(Conflict, match=str(user.base / "data")):
            user.installer("other").install(user.source("v2"))
        assert user.files() == before

    def test_a_daemon_by_hand_is_refused(self, user: User) -> None:
        """It holds the data directory, so that the unit could not start; the error names its process."""
        user.holder = "4711"
        with pytest.raises(DaemonRunning) as caught:
            user.installer().install(user.source())
        assert "kill 4711" in caught.value.hint
        assert user.files() == {}

    def test_the_units_own_daemon_is_not_in_the_way(self, user: User) -> None:
        """It holds the same lock."""
        user.installer().install(user.source())
        user.holder = "4711"
        assert user.installer().install(user.source("v2")).restarted == (CLAW,)

    def test_an_unprintable_path_is_refused(self, user: User) -> None:
        """A line feed in a path would be a directive."""
        with pytest.raises(InstallFailed, match="units cannot be written"):
            user.installer(CLAW_HOME="/a\nb").plan()

    def test_a_full_disk_leaves_no_half_environment(self, user: User) -> None:
        """What pip had written is removed, so that the disk is not full of it; what ran runs."""
        user.installer().install(user.source())

        def full(venv: Path) -> None:
            venv.mkdir()
            raise InstallFailed("claw's environment was not built", why="No space left on device")

        with pytest.raises(InstallFailed):
            user.installer().install(user.source("v2", full))
        assert [venv.name for venv in user.paths.environments.iterdir()] == ["v1"]
        assert CLAW in user.systemd.active
        assert user.paths.link.readlink().name == "v1"

    def test_a_port_in_use_is_refused(self, user: User) -> None:
        """The daemon could not listen where its settings say: the code is the one of the daemon itself."""
        user.port = "127.0.0.1 port 8080"
        with pytest.raises(PortTaken, match="8080") as caught:
            user.installer().install(user.source())
        assert (caught.value.exit_code, user.files()) == (25, {})

    def test_the_units_own_port_is_not_in_the_way(self, user: User) -> None:
        """Its daemon listens there already."""
        user.installer().install(user.source())
        user.port = "127.0.0.1 port 8080"
        assert user.installer().install(user.source("v2")).restarted == (CLAW,)

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
    @pytest.mark.parametrize("nth", range(1, 8))
    def test_a_full_disk_at_any_file_leaves_nothing(
        self, user: User, monkeypatch: pytest.MonkeyPatch, nth: int, code: int
    ) -> None:
        """Whichever file or link of a first installation has no room: none is left but the environment, for the next
        attempt, which needs no more than room."""
        full_at(monkeypatch, nth, code)
        with pytest.raises(DiskFull) as caught:
            user.installer().install(user.source())
        assert caught.value.exit_code == 26
        assert [path for path in user.files() if "venvs/v1/" not in path] == []
        assert (user.systemd.active, user.systemd.enabled) == (set(), set())

        monkeypatch.undo()
        assert user.installer("other").install(user.source()).restarted == (PODMAN, S3, CLAW)

    @pytest.mark.parametrize("nth", range(1, 5))
    def test_a_full_disk_at_any_file_leaves_what_was_installed(
        self, user: User, monkeypatch: pytest.MonkeyPatch, nth: int
    ) -> None:
        """An upgrade without room changes no unit and no link, and the old program runs."""
        user.installer().install(user.source())
        before = user.files()
        full_at(monkeypatch, nth, errno.ENOSPC)
        with pytest.raises(DiskFull):
            user.installer(CLAW_LIMITS="drop").install(user.source("v2"))
        assert {path: text for path, text in user.files().items() if "venvs/v2/" not in path} == before
        assert user.systemd.active == {PODMAN, S3, CLAW}

    def test_too_little_room_is_refused_before_the_build(self, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
        """An environment takes minutes to build; nothing is begun that cannot end."""
        monkeypatch.setattr(install, "ROOM", 400 << 20)
        usage = shutil.disk_usage(user.base)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=install.ROOM - 1))
        with pytest.raises(DiskFull, match="may take 419 MB"):
            user.installer().install(user.source())
        assert (user.files(), user.built, user.paths.data.exists()) == ({}, [], False)

    def test_a_place_that_cannot_be_written_is_no_room_either(self, user: User) -> None:
        """A file where a directory should be: the error names the path."""
        user.paths.data.parent.write_text("a file")
        with pytest.raises(InstallFailed, match="share/claw"):
            user.installer().install(user.source())


def full_at(monkeypatch: pytest.MonkeyPatch, nth: int, code: int) -> None:
    """Let the disk be full from the nth file or link on; what is removed or was there gives no room."""
    count = itertools.count(1)
    real_write, real_link = install_files.write_atomic, Path.symlink_to

    def room() -> None:
        if next(count) >= nth:
            raise OSError(code, os.strerror(code))

    def write(path: Path, data: bytes, *, mode: int) -> None:
        if path.name not in (install._WHOLE, install._RAN):
            room()
        real_write(path, data, mode=mode)

    def link(path: Path, target: Path) -> None:
        room()
        real_link(path, target)

    monkeypatch.setattr(install_files, "write_atomic", write)
    monkeypatch.setattr(Path, "symlink_to", link)


class TestFailedStart:
    def test_the_previous_program_runs_again(self, user: User) -> None:
        """The new version does not become ready: link and units are as before, and the daemon runs."""
        user.installer().install(user.source())
        before = unit(user).read_text()

        def only_v1(name: str) -> None:
            if name == CLAW and user.paths.link.readlink().name == "v2":
                refusing(name)

        user.systemd.started = only_v1
        with pytest.raises(InstallFailed, match="previous one runs again") as caught:
            user.installer(CLAW_LIMITS="drop").install(user.source("v2"))

        assert "it ended with 16" in caught.value.why
        assert (user.paths.link.readlink().name, unit(user).read_text()) == ("v1", before)
        assert user.systemd.active == {PODMAN, S3, CLAW}

    def test_a_first_installation_is_stopped(self, user: User) -> None:
        """Nothing restarts in the background for ever; the next attempt begins with the files that are there."""
        user.systemd.started = refusing
        with pytest.raises(UnitFailed):
            user.installer().install(user.source())
        assert (user.systemd.active, user.systemd.enabled) == (set(), set())

        with pytest.raises(UnitFailed):  # no previous program "runs again"
            user.installer().install(user.source())
        assert (user.systemd.active, user.systemd.enabled) == (set(), set())

        user.systemd.started = lambda unit: None
        assert user.installer().install(user.source()).restarted == (PODMAN, S3, CLAW)
        assert len(user.built) == 1


class TestUninstall:
    def test_data_stays(self, user: User) -> None:
        """Units, environments, links and the record are gone; everything else is as it was."""
        (user.base / "data").mkdir()
        (user.base / "data/ledger.sqlite").write_text("rows")
        (user.paths.data / "s3").mkdir(parents=True)
        (user.paths.data / "s3/volume").write_text("states")
        before = user.files()
        user.installer().install(user.source())

        done = user.installer().uninstall()

        assert user.files() == before
        assert (user.systemd.active, user.systemd.enabled) == (set(), set())
        assert {file.action for file in done.files} == {"remove"}
        assert user.installer().installed_home() is None

    def test_edited_units_and_foreign_commands_stay(self, user: User) -> None:
        """And are reported; they are stopped and disabled all the same."""
        user.installer().install(user.source())
        unit(user).write_text("[Service]\nExecStart=/bin/true\n")
        (user.paths.commands / "claw").unlink()
        (user.paths.commands / "claw").write_text("#!/bin/sh\n")

        done = user.installer().uninstall()

        assert {file.path.name: file.action for file in done.files} == {
            PODMAN: "remove",
            S3: "remove",
            CLAW: "keep",
            "claw-runtime": "remove",
        }
        assert unit(user).exists()
        assert (user.paths.commands / "claw").exists()
        assert CLAW not in user.systemd.active

    def test_twice_is_fine(self, user: User) -> None:
        """The second time there is nothing to do."""
        user.installer().install(user.source())
        user.installer().uninstall()
        assert user.installer().uninstall().files == ()

    def test_the_daemon_is_stopped_first(self, user: User) -> None:
        """Before the services that it uses."""
        user.installer().install(user.source())
        user.systemd.asked = []
        user.installer().uninstall()
        assert [line for line in user.systemd.asked if line.startswith("stop")] == [
            f"stop {CLAW}",
            f"stop {ROUTER}",
            f"stop {S3}",
            f"stop {PODMAN}",
        ]


def test_preparing_builds_and_changes_nothing_else(user: User) -> None:
    """An upgrade builds the new environment while the old program runs."""
    user.installer().install(user.source())
    before, user.systemd.asked = user.paths.link.readlink(), []

    venv = user.installer().prepare(user.source("v2"))

    assert (venv.name, user.paths.link.readlink(), user.systemd.asked) == ("v2", before, ["version"])
    assert not units.is_edited(unit(user).read_text())
