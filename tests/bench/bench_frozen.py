"""The time until a tenant has its own frozen container back: a claim over the daemon's socket, as clients make it.

Its release committed the state, paused the container and kept it for the tenant. The claim checks in the object store
that no other host has continued, thaws the container, and asks the workload whether it is ready. The peer is `podman
unpause` of a container of the same image under the same terms, and one answer of its port: no store, no ledger.
"""

import statistics
import subprocess
import time
import urllib.error
import urllib.request

from bench.bench_slot import IMAGE
from bench.figures import Figure, load, now, take_turns
from bench.podman_run import PodmanRun, log_driver
from bench.stage import Stage, daemon, staged
from claw_runtime.api.client import Client
from claw_runtime.engine.podman import PodmanEngine
from claw_runtime.spec import loader, plan
from fakes.live_podman import small_image

SMALL = """
id: small
image: {image}
ports: [{{container: 8080}}]
healthcheck: {{path: /healthz, ready_timeout: 60s}}
volumes: {{state: {{target: /state}}, logs: {{target: /logs}}}}
pool: {{min_size: 0, max_size: 2, affinity_timeout: 1h, warmth: {{frozen: 1}}}}
"""
GATEWAY = """
id: gateway
image: {image}
pool: {{min_size: 0, max_size: 2, affinity_timeout: 1h, warmth: {{frozen: 1}}}}
"""
PEER = "podman unpause"
TENANT = "alice"
MOST = 0.02  # seconds, of 95 in 100 claims
PATIENCE = 60.0  # seconds for the peer's first answer


def measure(runs: int = 60) -> list[Figure]:
    """`claim_frozen` (95 of 100) and `claim_frozen_p50`: the tests' small program."""
    return _measure("claim_frozen", SMALL.format(image=small_image()), "/healthz", runs)


def measure_gateway(runs: int = 20) -> list[Figure]:
    """`claim_frozen_gateway`: the real one, whose state is walked and committed before each freeze."""
    return _measure("claim_frozen_gateway", GATEWAY.format(image=IMAGE), "/healthz", runs)


def _measure(name: str, workload: str, path: str, runs: int) -> list[Figure]:
    before = load()
    with staged(workload) as stage, daemon(stage) as api:
        claimed = api.post(f"/api/v1/tenants/{TENANT}/claim", {})
        peer, port = _peer(stage, path)
        peer.match(claimed["containerId"])
        api.post(f"/api/v1/tenants/{TENANT}/release", {})
        phases: list[dict[str, float]] = []
        ours, theirs = take_turns(name, runs, lambda: _claim(api, phases), lambda: _unpause(peer, port, path))
        _podman("unpause", peer)
        peer.remove()
    after = load()
    return [
        Figure(
            name=f"{name}{suffix}",
            peer=PEER,
            ours=ours,
            theirs=theirs,
            most=most,
            quantile=share,
            load=(before, after),
            at=now(),
            parts=_parts(ours, phases[-len(ours) :]),
        )
        for suffix, share, most in (("", 0.95, MOST), ("_p50", 0.5, None))
    ]


def _claim(api: Client, phases: list[dict[str, float]]) -> float:
    begin = time.perf_counter()
    claim = api.post(f"/api/v1/tenants/{TENANT}/claim", {})
    seconds = time.perf_counter() - begin
    assert claim["source"] == "frozen", claim
    phases.append(claim["phases"])
    api.post(f"/api/v1/tenants/{TENANT}/release", {})
    return seconds


def _peer(stage: Stage, path: str) -> tuple[PodmanRun, int]:
    """A container under our terms that has answered, paused; the port it publishes."""
    with PodmanEngine(stage.home / "info.sock", cgroup_parent=stage.settings.cgroup_parent) as engine:
        document = loader.load(stage.workload)
        label = engine.image(document.workload.image).labels.get("io.claw.contract")
        peer = PodmanRun(stage, plan.make(document, label), engine.info(), log_driver())
        peer.start(peer.directories())
        found = engine.inspect(peer.name)
    assert found is not None
    port = found.host_port or 0
    deadline = time.monotonic() + PATIENCE
    while not _answers(port, path):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the peer's container did not answer in {PATIENCE:g} s")
        time.sleep(0.05)
    _podman("pause", peer)
    return peer, port


def _unpause(peer: PodmanRun, port: int, path: str) -> float:
    begin = time.perf_counter()
    _podman("unpause", peer)
    while not _answers(port, path):
        time.sleep(0.001)
    seconds = time.perf_counter() - begin
    _podman("pause", peer)
    return seconds


def _podman(verb: str, peer: PodmanRun) -> None:
    subprocess.run(["podman", verb, peer.name], check=True, stdout=subprocess.DEVNULL)


def _answers(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _parts(claims: list[float], phases: list[dict[str, float]]) -> dict[str, float]:
    """Medians of the phases that the answers tell, and of the rest: the ledger, HTTP on both sides."""
    parts = {name: statistics.median(spent[name] for spent in phases) / 1e3 for name in phases[0]}
    whole = zip(claims, phases, strict=True)
    return parts | {"ledger and HTTP": statistics.median(claim - sum(spent.values()) / 1e3 for claim, spent in whole)}
