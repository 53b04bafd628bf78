"""Figures of ordinary hosts, which the laboratory boots: a restart of the daemon, a boot, and a claim on Podman 5.

Booting a host needs root: `tests/lab/run bench`. Elsewhere these figures are left out, with the reason.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.figures import Figure, NotHere, load, now, take_turns
from fakes import load as steady
from lab import claw, hosts, image
from lab.hosts import Host

DIST = "trixie"
RATE = 50
"""Requests a second, to all tenants together."""
TENANTS = ("alice", "bob", "carol", "dave", "erin")
ROOMY = image.WORKLOAD.replace("max_size: 4", "max_size: 8")
ALWAYS = f"{ROOMY}policy: {{on_boot: always}}\n"

RESTART = """
import json, subprocess, sys, time
from contextlib import ExitStack
sys.path.insert(0, "/lab")
from load import Load
rate, urls = float(sys.argv[1]), sys.argv[2:]
loads = [Load(url, rate=rate / len(urls)) for url in urls]
with ExitStack() as stack:
    for one in loads:
        stack.enter_context(one)
    time.sleep(1)
    start = time.monotonic()
    subprocess.run(["systemctl", "--user", "restart", "claw"], check=True)
    away = time.monotonic() - start
    time.sleep(2)
lost = [why for one in loads for why in one.counted.lost]
print(json.dumps({"lost": lost, "asked": sum(one.counted.asked for one in loads), "away": away}))
"""
"""On the host: requests to all tenants while the daemon restarts."""

ANSWERED = """
import http.client, json, os, time
from pathlib import Path
from urllib.parse import urlsplit
from claw_runtime.api.client import Client
from claw_runtime.errors import ClawError
def up():
    try:
        client = Client(Path(os.environ["XDG_RUNTIME_DIR"], "claw/api.sock"), timeout=5)
        place = urlsplit(client.get("/api/v1/tenants/alice/status")["endpoints"]["http"])
        asked = http.client.HTTPConnection(place.hostname, place.port, timeout=5)
        asked.request("GET", "/healthz")
        return asked.getresponse().status == 200
    except (ClawError, OSError, KeyError, TypeError, http.client.HTTPException):
        return False
deadline = time.monotonic() + 120
while not up():
    if time.monotonic() > deadline:
        raise SystemExit("alice does not answer")
    time.sleep(0.02)
ticks = int(Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19])
print(time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
"""
"""On the host: seconds from the start of its first process until a tenant answers on its published port."""

CLAIMS = """
import json, sys
sys.path.insert(0, "/opt/claw/tree/tests")
from bench import bench_claim
from bench.figures import allowed
with allowed(60):
    [figure] = bench_claim.measure(int(sys.argv[1]))
print(json.dumps([figure.ours, figure.theirs]))
"""
"""On the host: `claim_warm`, turn by turn."""


def measure_restart(runs: int = 3) -> list[Figure]:
    """`restart_outage_s`: what the lost requests amount to, as seconds of all requests."""
    before = load()
    with _host() as host:
        claw.install(host, ROOMY)
        (host.share / "load.py").write_text(Path(steady.__file__).read_text("utf-8"))
        (host.share / "restart.py").write_text(RESTART)
        urls = [_claimed(host, name) for name in TENANTS]
        command = f"python3 /lab/restart.py {RATE} {' '.join(urls)}"
        [found] = take_turns("restart_outage_s", runs, lambda: json.loads(host.ok(command)), warming=0)
    lost = [len(one["lost"]) for one in found]
    away = sorted(one["away"] for one in found)
    return [
        Figure(
            name="restart_outage_s",
            ours=[number / RATE for number in lost],
            quantile=1.0,
            most=0.0,
            load=(before, load()),
            at=now(),
            note=f"{sum(lost)} of {sum(one['asked'] for one in found)} requests lost, at {RATE} a second to "
            f"{len(TENANTS)} tenants; each restart took {away[0]:.1f}–{away[-1]:.1f} s",
        )
    ]


def measure_boot(runs: int = 3) -> list[Figure]:
    """`boot_to_answer_s`: from the first process of a booting host to the answer of a tenant."""
    before = load()
    with _host() as host:
        claw.install(host, ALWAYS)
        (host.share / "answered.py").write_text(ANSWERED)
        _claimed(host, TENANTS[0])
        [ours] = take_turns("boot_to_answer_s", runs, lambda: _boot(host), warming=0)
    note = "Debian 13 in systemd-nspawn; the whole installation starts, and the tenant's program"
    return [Figure(name="boot_to_answer_s", ours=ours, load=(before, load()), at=now(), note=note)]


def measure_claim(runs: int = 15) -> list[Figure]:
    """`claim_trixie`: `claim_warm` on Debian 13, beside `podman run -d` of Podman 5.4 on the same host."""
    before = load()
    with _host() as host:
        (host.share / "claims.py").write_text(CLAIMS)
        ours, theirs = json.loads(host.ok(f"python /lab/claims.py {runs}", seconds=400).splitlines()[-1])
    peer = "podman run -d, Podman 5.4"
    return [Figure(name="claim_trixie", peer=peer, goal=0.2, ours=ours, theirs=theirs, load=(before, load()), at=now())]


@contextmanager
def _host() -> Iterator[Host]:
    """A fresh host of Debian 13 with the tests' small image.

    Raises:
        NotHere: This machine boots no hosts.
    """
    obstacle = hosts.lab("check").out.strip()
    if obstacle:
        raise NotHere(f"{obstacle}; as root: tests/lab/run bench")
    with hosts.booted("nspawn", DIST) as host:
        image.bring(host)
        yield host


def _claimed(host: Host, tenant: str) -> str:
    """The tenant's address."""
    return str(json.loads(host.ok(f"claw-runtime claim --wait 60s {tenant} -o json"))["endpoints"]["http"])


def _boot(host: Host) -> float:
    host.reboot()
    return float(host.ok("python /lab/answered.py"))
