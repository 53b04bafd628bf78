"""An installed claw on an ordinary host: whatever of it is restarted or killed, no request to a tenant is lost."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import load
from lab import claw, hosts
from lab.hosts import Host

DRIVER = """
import subprocess, sys, time
sys.path.insert(0, "/lab")
from load import Load
with Load(sys.argv[1]) as load:
    time.sleep(1)
    done = subprocess.run(["bash", "-c", sys.argv[2]], stdout=sys.stderr)
    time.sleep(2)
print(done.returncode, len(load.counted.lost), load.counted.asked)
"""
MAIN = "$(systemctl --user show --property=MainPID --value {unit})"
RENEWED = f"""old={MAIN}; {{harm}}
until [ {MAIN} != $old ] && systemctl --user is-active --quiet {{unit}}; do sleep 0.2; done"""
"""Do harm, and wait until another process is the unit's, and is ready."""
HARMS = {
    "restart of the daemon": ("claw", "systemctl --user restart claw"),
    "SIGKILL of the daemon": ("claw", "kill -9 $old"),
    "SIGKILL of its unit": ("claw", "systemctl --user kill --signal=KILL claw"),
    "restart of Podman's service": ("claw-podman", "systemctl --user restart claw-podman"),
    "SIGKILL of Podman's service": ("claw-podman", "kill -9 $old"),
    "Podman's service hangs": ("claw-podman", "kill -STOP $old"),
    "restart of the S3 server": ("claw-s3", "systemctl --user restart claw-s3"),
}


@pytest.fixture(scope="module")
def installed(nspawn_host: Host) -> Iterator[str]:
    """The address of a tenant of an installed claw."""
    host = nspawn_host
    (host.share / "load.py").write_text(Path(load.__file__).read_text("utf-8"))
    (host.share / "driver.py").write_text(DRIVER)
    try:
        claw.install(host)
        yield str(json.loads(host.ok("claw-runtime claim alice -o json"))["endpoints"]["http"])
    finally:
        host.run("claw-runtime release alice --no-sync; claw-runtime uninstall")


@pytest.mark.parametrize("harm", HARMS)
def test_no_request_is_lost(nspawn_host: Host, installed: str, harm: str) -> None:
    """50 requests a second to the published port: each is answered, and the tenant is active afterwards."""
    unit, command = HARMS[harm]
    script = RENEWED.format(unit=unit, harm=command)
    said = nspawn_host.ok(f"python3 /lab/driver.py {installed} '{script}'")
    code, lost, asked = map(int, said.split())
    assert (code, lost) == (0, 0)
    assert asked > 100
    hosts.eventually(lambda: "active" in nspawn_host.run("claw-runtime status alice -o json").out)


def test_systemd_has_no_complaint(nspawn_host: Host, installed: str) -> None:
    """`systemd-analyze --user verify` prints nothing about the installed units."""
    assert installed
    assert nspawn_host.ok("systemd-analyze --user verify ~/.config/systemd/user/claw*.service 2>&1") == ""
