"""The units as text: what they run, how they end, what a strange path becomes, and what systemd itself says of them."""

import re
import shutil
from pathlib import Path

import pytest
from claw_runtime.deploy import units
from claw_runtime.deploy.units import Program
from fakes.units import complaints, exposure, written

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def program(base: Path = Path("/home/me"), *, s3: bool = True, ingress: str = "") -> Program:
    """An installation of somebody."""
    return Program(
        venv=base / ".local/share/claw/venv",
        socket=Path("/run/user/1000/claw/podman.sock"),
        environment={"CLAW_SERVICES": "units", "CLAW_HOME": str(base / "data")},
        variables=base / ".config/claw/claw.env",
        s3=s3,
        run=Path("/run/user/1000/claw"),
        ingress=ingress,
    )


def setting(text: str, name: str) -> list[str]:
    """The values of one directive."""
    return re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)


def test_each_unit_runs_its_program() -> None:
    """Three programs out of one environment."""
    texts = units.rendered(program())
    assert {name: setting(text, "ExecStart") for name, text in texts.items()} == {
        "claw-podman.service": [
            "/home/me/.local/share/claw/venv/bin/python -I -m claw_runtime.engine.unit /run/user/1000/claw/podman.sock"
        ],
        "claw-s3.service": ["/home/me/.local/share/claw/venv/bin/claw-runtime s3 up"],
        "claw.service": ["/home/me/.local/share/claw/venv/bin/claw-runtime up"],
    }


def test_without_a_store_of_its_own_there_is_no_s3_unit() -> None:
    """And the daemon's unit does not name it."""
    texts = units.rendered(program(s3=False))
    assert list(texts) == ["claw-podman.service", "claw.service"]
    assert "claw-s3" not in texts["claw.service"]


def test_the_router_has_a_unit_where_an_address_is_set() -> None:
    """The daemon wants it, and neither's restart restarts the other. It has no variable, so no key of the store."""
    texts = units.rendered(program(ingress="127.0.0.1:8080"))
    text = texts["claw-router.service"]
    python = "/home/me/.local/share/claw/venv/bin/python"
    assert setting(text, "ExecStart") == [
        f"{python} -I -m claw_runtime.daemon.routers 127.0.0.1:8080 /run/user/1000/claw"
    ]
    assert "Environment" not in text
    assert "claw-router.service" in setting(texts["claw.service"], "Wants")
    for other in (text, texts["claw.service"]):
        assert not re.search(r"^(Requires|BindsTo|PartOf|After)=.*claw(-router)?\.service$", other, re.MULTILINE)
    assert "claw-router" not in units.rendered(program())["claw.service"]


def test_the_router_is_watched_and_its_socket_outlives_it() -> None:
    """Ready when it answers; its stop timeout is above what requests under way may take."""
    from claw_runtime.daemon import notifying
    from claw_runtime.router import process

    text = units.rendered(program(ingress="127.0.0.1:8080"))["claw-router.service"]
    assert setting(text, "Type") == ["notify"]
    assert setting(text, "FileDescriptorStoreMax") == ["1"]
    assert int(setting(text, "WatchdogSec")[0]) > 2 * (notifying.PAUSE + notifying.ANSWER)
    assert int(setting(text, "TimeoutStopSec")[0]) > 2 * process.DRAIN


def test_a_restart_of_podmans_service_ends_that_alone() -> None:
    """What forwards tenants' ports is in its control group; the daemon's own can be ended whole."""
    texts = units.rendered(program())
    assert setting(texts["claw-podman.service"], "KillMode") == ["process"]
    assert setting(texts["claw.service"], "KillMode") == ["mixed"]
    assert setting(texts["claw.service"], "Requires") == []  # a restart of Podman's service must not restart the daemon


def test_nothing_keeps_podman_from_mapping_users() -> None:
    """In a user manager, each of these directives implies NoNewPrivileges, and newuidmap is setuid."""
    texts = units.rendered(program())
    for name in ("claw-podman.service", "claw.service"):
        assert not re.search(
            r"^(NoNewPrivileges|SystemCall\w+|Restrict[A-Z]\w+|Lock\w+|MemoryDeny\w+|Protect\w+|Private\w+)=",
            texts[name],
            re.MULTILINE,
        )


def test_capabilities_are_dropped_in_a_user_namespace_only() -> None:
    """Without the namespace, a user manager of systemd 252 (Debian 12) ends the process with 218/CAPABILITIES."""
    drops = r"^(AmbientCapabilities|CapabilityBoundingSet|PrivateDevices|Protect(Clock|KernelLogs|KernelModules))="
    texts = units.rendered(program(ingress="127.0.0.1:8080"))
    dropping = [name for name, text in texts.items() if re.search(drops, text, re.MULTILINE)]
    assert dropping == ["claw-s3.service", "claw-router.service"]
    assert {one for name in dropping for one in setting(texts[name], "PrivateUsers")} == {"yes"}


def test_the_daemon_is_watched_and_has_time_to_end() -> None:
    """Ready when it says so; ended when it is silent; the stop timeout is above what its end may take."""
    from claw_runtime.daemon import loops, notifying

    text = units.rendered(program())["claw.service"]
    assert setting(text, "Type") == ["notify"]
    assert int(setting(text, "WatchdogSec")[0]) > 2 * (notifying.PAUSE + notifying.ANSWER)
    assert int(setting(text, "TimeoutStopSec")[0]) > 2 * (loops.LAST_UPLOAD + 30)


def test_no_variable_of_the_daemon_reaches_podman() -> None:
    """The settings may hold keys; Podman's unit has none of them."""
    text = units.rendered(program())["claw-podman.service"]
    assert "Environment" not in text


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("a b", '"/h/a b/venv"'),
        ("100%", "/h/100%%/venv"),
        ("$HOME", "/h/$$HOME/venv"),
        ('q"q', '"/h/q\\"q/venv"'),
        ("b\\b", '"/h/b\\\\b/venv"'),
        ("a;b", '"/h/a;b/venv"'),
    ],
)
def test_strange_paths_stay_what_they_are(name: str, there: str) -> None:
    """Blanks, specifiers, variables and quotes mean nothing in a unit."""
    assert units.word(f"/h/{name}/venv") == there


def test_a_line_feed_is_refused() -> None:
    """It would begin a directive."""
    with pytest.raises(ValueError, match="not printable"):
        units.assignment("CLAW_HOME", "/h\nExecStart=/bin/sh")


def test_a_variable_with_a_dollar_is_not_doubled() -> None:
    """`Environment=` expands no variables."""
    assert units.assignment("A", "$5 50% a") == '"A=$5 50%% a"'


def test_an_edit_shows() -> None:
    """Any change of a body, its comment, or a foreign file is an edit; what some version rendered is none."""
    text = units.rendered(program())["claw.service"]
    assert not units.is_edited(text)
    assert not units.is_edited(units.marked("[Service]\nExecStart=/an/older/version\n"))
    assert units.is_edited(text.replace("WatchdogSec=90", "WatchdogSec=900"))
    assert units.is_edited(text + "\n")
    assert units.is_edited(text.partition("\n")[2])
    assert units.is_edited("[Service]\nExecStart=/bin/true\n")


@needs_systemd
@pytest.mark.spawns
@pytest.mark.parametrize("directory", ["me", "a b", "100%"])
def test_systemd_has_no_complaint(tmp_path: Path, directory: str) -> None:
    """`systemd-analyze --user verify` prints nothing, for paths of every kind."""
    base = tmp_path / directory
    paths = written(units.rendered(program(base, ingress="[::1]:8080")), tmp_path)
    for name in ("python", "claw-runtime"):
        file = base / ".local/share/claw/venv/bin" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("#!/bin/sh\n")
        file.chmod(0o755)
    assert complaints(paths) == ""


@needs_systemd
@pytest.mark.spawns
def test_s3_server_and_router_are_closed_in(tmp_path: Path) -> None:
    """They need no capabilities, no setuid programs and few system calls; Podman needs all of them."""
    texts = units.rendered(program(tmp_path, ingress="127.0.0.1:8080"))
    paths = {path.name: path for path in written(texts, tmp_path)}
    scores = {name: exposure(path) for name, path in paths.items()}
    assert scores["claw-s3.service"] < 4.0 < scores["claw-podman.service"]
    assert scores["claw-router.service"] < 4.0
