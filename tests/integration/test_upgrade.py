"""Upgrades on real Podman: a good image takes over, a bad one leaves nothing but the tenant as it was."""

import json
import re
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from claw_runtime.engine import images
from fakes import live_podman
from fakes.daemon import Answer, Daemon

pytestmark = [pytest.mark.podman]

SCRIBBLE = "echo scribbled > /state/words; echo cannot read my own database >&2;"
VARIANTS = {
    "good": ["/bin/entry"],
    "dies": ["/bin/sh", "-c", f"{SCRIBBLE} sleep 0.3; exit 3"],
    # It answers on its port, and never says ready; a grandchild holds the port as well.
    "hangs": [
        "/bin/sh",
        "-c",
        f"{SCRIBBLE} trap '' TERM; mkdir -p /tmp/w; httpd -p 8080 -h /tmp/w; sleep 600 & sleep 600",
    ],
    "slow": ["/bin/sh", "-c", f"{SCRIBBLE} sleep 600"],
}


@pytest.fixture(scope="module")
def variants(session_home: Path) -> Iterator[dict[str, str]]:
    """Images by name that differ from the small one in their label and entrypoint; removed afterwards."""
    made = {}
    with tempfile.NamedTemporaryFile(suffix=".tar") as tar:
        tar.write(live_podman.root_file_system())
        tar.flush()
        for name, argv in VARIANTS.items():
            made[name] = f"localhost/claw-upgrade-{name}:{tar.name.rsplit('/', 1)[1][:-4].lower().strip('_')}"
            changes = [f"ENTRYPOINT {json.dumps(argv)}", "ENV PATH=/bin", f"LABEL io.claw.test=upgrade-{name}"]
            images.import_rootfs(Path(tar.name), made[name], lambda line: None, changes=changes)
    yield made
    subprocess.run(["podman", "rmi", "-f", *made.values()], check=True, capture_output=True)


@pytest.fixture
def daemon(session_home: Path, small_image: str) -> Iterator[Daemon]:
    """A daemon of the test's own over a directory as its store."""
    with live_podman.directory_in(session_home) as home:
        workload = home / "small.yaml"
        workload.write_text(
            f"id: small\nimage: {small_image}\nports: [{{container: 8080}}]\n"
            "healthcheck: {path: /healthz, ready_timeout: 4s}\n"
            "volumes: {state: {target: /state}, logs: {target: /logs}}\n"
            "pool: {min_size: 1, max_size: 6, affinity_timeout: 0}\n"
        )
        (home / "store").mkdir()
        daemon = Daemon(home / "d", [workload], {"CLAW_BUCKET": f"file://{home}/store"})
        daemon.start(ready=1)
        yield daemon
        daemon.close()


def up(daemon: Daemon, *tenants: str) -> None:
    for tenant in tenants:
        daemon.ok("claim", tenant)
        daemon.ok("exec", tenant, "--", "sh", "-c", f"echo {tenant} > /state/words")


def words(daemon: Daemon, tenant: str) -> str:
    """What the tenant's program serves of its state."""
    endpoint = daemon.ok("status", tenant, "-o", "json").json["endpoints"]["http"]
    with urllib.request.urlopen(f"{endpoint}/words", timeout=5) as answer:
        return str(answer.read().decode().strip())


def image_of(daemon: Daemon, tenant: str) -> str:
    container = daemon.ok("status", tenant, "-o", "json").json["containerId"]
    told = subprocess.run(
        ["podman", "container", "inspect", "-f", "{{.Image}}", container], check=True, capture_output=True, text=True
    )
    return told.stdout.strip()


def image_id(reference: str) -> str:
    told = subprocess.run(
        ["podman", "image", "inspect", "-f", "{{.Id}}", reference], check=True, capture_output=True, text=True
    )
    return told.stdout.strip()


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def check_back(daemon: Daemon, answer: Answer, small_image: str, tenant: str, others: tuple[str, ...] = ()) -> None:
    """The tenant is up with image and state from before, no port of the attempt is held, nobody else was touched."""
    assert answer.code == 39, answer.err
    assert f"stopped at tenant '{tenant}'" in answer.err
    assert "cannot read my own database" in answer.err
    for one in (tenant, *others):
        assert image_of(daemon, one) == image_id(small_image)
        assert words(daemon, one) == one
    assert "still held" not in answer.err + answer.out
    assert "scribbled" not in daemon.ok("sync", "cat", tenant, "words").out
    rows = daemon.ok("pool", "list", "-o", "json").json
    assert rows[0]["image"] == small_image
    live = len(others) + 1 + rows[0]["ready"] + rows[0]["filling"]
    assert len(live_podman.left_containers(daemon.home)) <= live + 1


@pytest.mark.parametrize("variant", ["dies", "hangs"])
def test_a_bad_image_leaves_the_tenant_as_it_was(
    daemon: Daemon, variants: dict[str, str], small_image: str, variant: str
) -> None:
    """An image that scribbles into the state and dies, or never gets ready: the canary is up again with its words, its
    port answers for nobody else, and the rest was never touched. A second try ends the same way."""
    up(daemon, "alice", "bob")
    before = daemon.ok("status", "bob", "-o", "json").json["port"]

    answer = daemon.cli("upgrade", "small", "--image", variants[variant], "--canary", "bob", "--soak", "1")
    check_back(daemon, answer, small_image, "bob", ("alice",))
    again = daemon.cli("upgrade", "small", "--resume")
    check_back(daemon, again, small_image, "bob", ("alice",))

    taken = {one["port"] for one in daemon.ok("status", "-o", "json").json}
    assert before in taken or is_free(before)
    [move] = [one for one in daemon.ok("upgrade", "small", "-o", "json").json["tenants"] if one["tenantId"] == "bob"]
    print(f"away with an image that {variant}: {move['outageMs']:.0f} ms")
    daemon.ok("upgrade", "small", "--abort")


def test_a_good_image_takes_over(daemon: Daemon, variants: dict[str, str]) -> None:
    """All tenants run it with their words, the pool makes its slots of it after a restart too, no registry is asked."""
    up(daemon, "alice", "bob", "carol", "dave")
    plan = daemon.ok("upgrade", "small", "--image", variants["good"], "--dry-run", "-o", "json").json
    assert [len(wave) for wave in plan["waves"]] == [1, 1, 2]

    answer = daemon.ok("upgrade", "small", "--image", variants["good"], "--soak", "0.5")

    outages = [int(text) for text in re.findall(r"was away for (\d+) ms$", answer.out, re.MULTILINE)]
    print(f"away: {outages} ms")
    assert len(outages) == 4
    for tenant in ("alice", "bob", "carol", "dave"):
        assert image_of(daemon, tenant) == image_id(variants["good"])
        assert words(daemon, tenant) == tenant
    daemon.stop()
    daemon.start(ready=1)
    assert daemon.ok("pool", "list", "-o", "json").json[0]["image"] == variants["good"]
    assert daemon.cli("upgrade", "small", "--image", "localhost/claw-upgrade-none:1").code == 20


def test_a_kill_in_the_middle_leaves_nobody_down(daemon: Daemon, variants: dict[str, str], small_image: str) -> None:
    """The daemon dies by SIGKILL while the new image comes up: the next one brings the tenant up with image and state
    from before, by itself; the upgrade waits, says so, and goes on when it is told to."""
    up(daemon, "alice")
    daemon.ok("upgrade", "small", "--image", variants["slow"], "--detach")
    until(lambda: _moves(daemon) == {"alice": "trying"} and _scribbled(daemon))
    daemon.kill()
    daemon.start()

    until(lambda: daemon.ok("status", "alice", "-o", "json").json["state"] == "active")
    assert image_of(daemon, "alice") == image_id(small_image)
    assert words(daemon, "alice") == "alice"
    until(lambda: _moves(daemon) == {"alice": "waiting"})
    told = daemon.ok("upgrade", "small", "-o", "json").json
    assert (told["state"], "--resume" in told["hint"]) == ("paused", True)
    assert "--resume" in daemon.ok("pool", "list").err
    answer = daemon.cli("upgrade", "small", "--resume")
    check_back(daemon, answer, small_image, "alice")


def test_a_tenant_away_has_a_way_back(daemon: Daemon, variants: dict[str, str], small_image: str) -> None:
    """A claim that meets a bad image comes up with the one from before, and says so."""
    up(daemon, "alice")
    daemon.ok("release", "alice")
    daemon.ok("upgrade", "small", "--image", variants["dies"])

    claim = daemon.ok("claim", "alice", "-o", "json").json

    assert "exit code 3" in claim["fellBack"]
    assert (image_of(daemon, "alice"), words(daemon, "alice")) == (image_id(small_image), "alice")


def _moves(daemon: Daemon) -> dict[str, str]:
    answer = daemon.cli("upgrade", "small", "-o", "json")
    return {move["tenantId"]: move["state"] for move in answer.json["tenants"]}


def _scribbled(daemon: Daemon) -> bool:
    return any(path.read_text() == "scribbled\n" for path in daemon.home.glob("slots/*/state/words"))


def until(seen: object, seconds: float = 30) -> None:
    """Wait until it is so."""
    assert callable(seen)
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline, "it did not become so in time"
        time.sleep(0.1)
