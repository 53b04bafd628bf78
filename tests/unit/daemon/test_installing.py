"""What is installed for which settings, and from which source."""

import fcntl
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path

import pytest
from claw_runtime.daemon import environments, installing
from claw_runtime.daemon.installing import Installation
from claw_runtime.engine import host
from claw_runtime.errors import (
    DiskFull,
    EngineUnavailable,
    EngineUnsupported,
    HostUnsupported,
    InstallFailed,
    InvalidSpec,
    PortTaken,
)
from claw_runtime.router.presence import claimed
from fakes.systemd import FakeSystemd


def installation(tmp_path: Path, home: Path | None = None, config: Path | None = None, **environ: str) -> Installation:
    """An installation of somebody with this environment."""
    return installing.installation(
        home,
        config,
        systemd=FakeSystemd(),
        environ={"HOME": str(tmp_path / "me"), "XDG_RUNTIME_DIR": "/run/user/1000", **environ},
        system_file=tmp_path / "none",
    )


def text(current: Installation, name: str = "claw.service") -> str:
    """A unit as it would be written."""
    return next(file.text for file in current.installer.plan() if file.path.name == name)


def settings_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "me/.config/claw/runtime.toml"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    path.chmod(0o600)


class TestInstallation:
    def test_directories_are_written_out(self, tmp_path: Path) -> None:
        """The unit serves the data directory and the run directory of the shell that installs."""
        current = installation(tmp_path, tmp_path / "data")
        assert f"Environment=CLAW_HOME={tmp_path}/data\n" in text(current)
        assert "Environment=CLAW_RUN=/run/user/1000/claw\n" in text(current)
        assert "Environment=CLAW_SERVICES=units\n" in text(current)
        assert f"ExecStart={tmp_path}/me/.local/share/claw/venv/bin/claw-runtime up\n" in text(current)

    def test_a_settings_file_is_named(self, tmp_path: Path) -> None:
        """`--config` of the installation is the daemon's."""
        (tmp_path / "a.toml").write_text('region = "eu"\n')
        current = installation(tmp_path, config=tmp_path / "a.toml")
        assert f"Environment=CLAW_CONFIG={tmp_path}/a.toml\n" in text(current)
        assert current.settings.region == "eu"

    def test_keys_of_this_shell_go_nowhere(self, tmp_path: Path) -> None:
        """Neither into a unit nor silently: each variable that the daemon will not see is named."""
        current = installation(
            tmp_path, CLAW_BUCKET="s3://b", CLAW_S3_ACCESS_KEY="canary-a", AWS_SECRET_ACCESS_KEY="canary-b"
        )
        assert "canary" not in "".join(file.text for file in current.installer.plan())
        assert current.ignored == ("AWS_SECRET_ACCESS_KEY", "CLAW_BUCKET", "CLAW_S3_ACCESS_KEY")
        assert current.settings.bucket is None

    def test_the_routers_address_is_in_its_unit(self, tmp_path: Path) -> None:
        """As the daemon's settings have it; the router reads no settings, which may hold keys."""
        settings_file(tmp_path, 'ingress = "[::1]:8080"\n')
        current = installation(tmp_path)
        assert "claw_runtime.daemon.routers [::1]:8080 /run/user/1000/claw\n" in text(current, "claw-router.service")

    def test_without_a_bucket_the_s3_server_is_installed(self, tmp_path: Path) -> None:
        """It is the daemon's own store."""
        assert "claw-s3.service" in text(installation(tmp_path))

    @pytest.mark.parametrize("place", ["runtime.toml", "claw.env"])
    def test_with_a_bucket_it_is_not(self, tmp_path: Path, place: str) -> None:
        """Wherever the daemon will find the bucket."""
        if place == "runtime.toml":
            settings_file(tmp_path, 'bucket = "file:///srv/claw"\n')
        else:
            (tmp_path / "me/.config/claw").mkdir(parents=True)
            (tmp_path / "me/.config/claw/claw.env").write_text('# store\n\nCLAW_BUCKET="file:///srv/claw"\n')
        current = installation(tmp_path)
        assert current.settings.bucket == "file:///srv/claw"
        assert "claw-s3" not in text(current)

    def test_the_holder_of_the_lock_is_named(self, tmp_path: Path) -> None:
        """A daemon that runs by hand, by its process id; a lock file that nobody holds names nobody."""
        current = installation(tmp_path)
        assert installing.holder(current.settings) == ""
        lock = current.settings.layout.lock
        lock.parent.mkdir(parents=True)
        lock.write_text("4711")
        assert installing.holder(current.settings) == ""
        with lock.open("a") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            assert installing.holder(current.settings) == "4711"


def tree(at: Path) -> Path:
    """A source tree in small."""
    for part in ("entrypoint", "runtime"):
        (at / part / "pkg").mkdir(parents=True)
        (at / part / "pyproject.toml").write_text("[project]\n")
        (at / part / "pkg/a.py").write_text("x = 1\n")
    (at / "constraints.txt").write_text("click==1\n")
    return at


class TestEnvironments:
    def digest(self, place: Path | None, installed: Path = Path("/none")) -> str:
        return environments.found(place, installed).digest

    def test_what_runs_is_the_default(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`make install` installs the tree that it runs in; an installed program installs itself again."""
        assert self.digest(None) == self.digest(Path(__file__).parents[3])
        module = tmp_path / "venvs/abc/lib/python3/site-packages/claw_runtime/__init__.py"
        monkeypatch.setattr(environments.claw_runtime, "__file__", str(module))
        found = environments.found(None, tmp_path / "venvs")
        assert found.digest == "abc"
        with pytest.raises(InstallFailed, match="not there"):
            found.build(tmp_path / "venvs/abc")

    def test_the_digest_is_of_all_that_goes_in(self, tmp_path: Path) -> None:
        """A changed source or constraint is another environment; what tools leave behind is not."""
        place = tree(tmp_path)
        first = self.digest(place)
        (place / "runtime/pkg/__pycache__").mkdir()
        (place / "runtime/pkg/__pycache__/a.pyc").write_text("bytes")
        (place / "runtime/build").mkdir()
        (place / "runtime/build/left").write_text("x")
        assert self.digest(place) == first
        others = {first}
        (place / "runtime/pkg/a.py").write_text("x = 2\n")
        others.add(self.digest(place))
        (place / "constraints.txt").write_text("click==2\n")
        others.add(self.digest(place))
        assert len(others) == 3

    def test_a_directory_of_wheels_is_a_source(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Both distributions must be in it; what else they need may be."""
        (tmp_path / "claw_runtime-1-py3-none-any.whl").write_text("a")
        with pytest.raises(InvalidSpec, match="no claw to install"):
            self.digest(tmp_path)
        (tmp_path / "claw_entrypoint-1-py3-none-any.whl").write_text("b")
        asked: list[list[str]] = []
        monkeypatch.setattr(environments, "_run", asked.append)
        environments.found(tmp_path, Path("/none")).build(tmp_path / "venv")
        assert asked[1][-3:] == [f"--find-links={tmp_path}", "claw-entrypoint", "claw-runtime[s3]"]

    def test_the_tree_is_not_touched(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """pip builds in a copy, with the constraints; then the program must start."""
        place = tree(tmp_path / "tree")
        asked: list[list[str]] = []
        monkeypatch.setattr(environments, "_run", asked.append)
        before = sorted(tmp_path.rglob("*"))

        environments.found(place, Path("/none")).build(tmp_path / "venv")

        assert sorted(tmp_path.rglob("*")) == before
        make, install, check = asked
        assert make[1:] == ["-m", "venv", str(tmp_path / "venv")]
        assert f"--constraint={place}/constraints.txt" in install
        assert install[-1].endswith("/runtime[s3]")
        assert not install[-1].startswith(str(place))
        assert check == [f"{tmp_path}/venv/bin/claw-runtime", "--version"]

    @pytest.mark.spawns
    @pytest.mark.parametrize(
        ("said", "error"), [("ERROR: No matching distribution", InstallFailed), ("No space left on device", DiskFull)]
    )
    def test_pips_last_words_are_the_reason(self, said: str, error: type[Exception]) -> None:
        """A full disk has its own code, as everywhere."""
        with pytest.raises(error) as caught:
            environments._run([sys.executable, "-c", f"import sys; print(); sys.exit({said!r})"])
        assert caught.value.why == said  # type: ignore[attr-defined]

    @pytest.mark.spawns
    def test_a_missing_program_is_the_reason(self, tmp_path: Path) -> None:
        """As python3 without its venv."""
        with pytest.raises(InstallFailed):
            environments._run([str(tmp_path / "none")])

    def test_a_copy_without_room_is_a_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The directory for temporary files has none: the error names it, and is not an internal one."""

        def full(source: Path, copy: Path, **_: object) -> None:
            raise shutil.Error([(str(source), str(copy), "[Errno 28] No space left on device: 'x'")])

        monkeypatch.setattr(shutil, "copytree", full)
        with pytest.raises(DiskFull) as caught:
            environments.found(tree(tmp_path), Path("/none")).build(tmp_path / "venv")
        assert tempfile.gettempdir() in caught.value.why


class TestHost:
    """What an installation needs of the host, before it writes anything."""

    @pytest.fixture(autouse=True)
    def cgroups(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A hierarchy of cgroup v2, and no program on PATH."""
        (tmp_path / "cgroup.controllers").touch()
        monkeypatch.setattr(host, "_CGROUPS", tmp_path)
        monkeypatch.setenv("PATH", os.fspath(tmp_path))
        return tmp_path

    def podman(self, place: Path, script: str) -> None:
        """A program that answers as Podman."""
        (place / "podman").write_text(f"#!/bin/sh\n{script}\n")
        (place / "podman").chmod(0o755)

    def test_podman_is_needed_first(self) -> None:
        """Nothing is built on a host without it."""
        with pytest.raises(EngineUnavailable, match="not installed"):
            environments.need_host()

    @pytest.mark.spawns
    @pytest.mark.parametrize("version", ["4.3.1", "5.4.2", "5.8.0-rc1"])
    def test_a_podman_that_works_passes(self, cgroups: Path, version: str) -> None:
        """By its own word; the same program is refused once it fails."""
        self.podman(cgroups, f"echo podman version {version}")
        environments.need_host()
        self.podman(cgroups, f"echo podman version {version}; exit 1")
        with pytest.raises(EngineUnavailable):
            environments.need_host()

    @pytest.mark.spawns
    @pytest.mark.parametrize(("version", "word"), [("3.0.1", "too old"), ("4.2.9", "too old"), ("6.0.0", "too new")])
    def test_another_version_is_refused(self, cgroups: Path, version: str, word: str) -> None:
        """With a code of its own, and the versions that work."""
        self.podman(cgroups, f"echo podman version {version}")
        with pytest.raises(EngineUnsupported, match=word) as caught:
            environments.need_host()
        assert (caught.value.exit_code, "4.3" in caught.value.hint) == (45, True)

    @pytest.mark.spawns
    def test_a_podman_that_fails_says_why(self, cgroups: Path) -> None:
        """In its own last words."""
        self.podman(cgroups, "echo cannot set up namespace >&2; exit 125")
        with pytest.raises(EngineUnavailable, match="cannot set up namespace"):
            environments.need_host()

    def test_cgroup_v1_is_refused(self, cgroups: Path) -> None:
        """Also a tree that has both: the file is missing at its top. The hint has the kernel's parameter."""
        (cgroups / "cgroup.controllers").unlink()
        with pytest.raises(HostUnsupported) as caught:
            environments.need_host()
        assert (caught.value.exit_code, "unified_cgroup_hierarchy" in caught.value.hint) == (46, True)


class TestPort:
    """The address on which the daemon would listen."""

    def test_a_port_in_use_is_named(self, tmp_path: Path) -> None:
        """With the file of variables in which another may be set."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            address = other.getsockname()
            with pytest.raises(PortTaken) as caught:
                installing.need_port(address, tmp_path / "claw.env")
        assert (caught.value.facts["port"], str(tmp_path) in caught.value.hint) == (address[1], True)

    def test_a_free_one_is_fine(self, tmp_path: Path) -> None:
        """So are no address, and any port. The look leaves the port free."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            free = other.getsockname()
        for address in (free, None, ("127.0.0.1", 0)):
            installing.need_port(address, tmp_path / "claw.env")
        with socket.create_server(free) as again:
            assert again.getsockname() == free

    def test_the_routers_port_may_be_its_own(self, tmp_path: Path) -> None:
        """Another process's is named; that of the router of this run directory is taken over."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            address = f"127.0.0.1:{other.getsockname()[1]}"
            settings_file(tmp_path, f'ingress = "{address}"\nrun = "{tmp_path}/run"\n')
            with pytest.raises(PortTaken, match="the router cannot listen"):
                installation(tmp_path).installer.check()
            (tmp_path / "run").mkdir()
            with claimed(tmp_path / "run/router.lock") as describe:
                describe(address, "1")
                installation(tmp_path).installer.check()

    def test_the_setting_is_the_daemons(self, tmp_path: Path) -> None:
        """The installer looks at the address in the file that the daemon reads."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            settings_file(tmp_path, f'listen = "127.0.0.1:{other.getsockname()[1]}"\n')
            with pytest.raises(PortTaken):
                installation(tmp_path).installer.check()
