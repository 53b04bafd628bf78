"""The time that a tenant without state waits for the first act of its program, and the time of its release.

The image is the tests' small one. Its program's first act is a file in /state, and the kernel reports it to the host.
The peer is `podman run -d` of that image under the same terms, from its start to the same act.
"""

import os
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

from bench.figures import Figure, load, now, take_turns
from bench.first_sign import seconds_until
from bench.podman_run import PodmanRun, log_driver
from bench.stage import Stage, daemon, only_slot, opened, refill, staged, waiting
from claw_runtime.api.client import Client
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.engine.podman import PodmanEngine
from claw_runtime.ports import EngineInfo
from claw_runtime.spec import loader, plan
from claw_runtime.tenancy import TenantId
from fakes.small_image import small_image

POOL = "small"
WORKLOAD = """
id: small
image: {image}
ports: [{{container: 8080}}]
healthcheck: {{path: /healthz, ready_timeout: 60s}}
volumes: {{state: {{target: /state}}, logs: {{target: /logs}}}}
pool: {{min_size: 1, max_size: 4}}
"""
SIGN = "starts"  # the file that the small image's program writes first
PEER = "podman run -d"
REST = 0.5  # seconds; a container's removal goes on in the background for about 0.2


def measure(runs: int = 15) -> list[Figure]:
    """`claim_warm`: the API's handler, `Tenants.claim`, called in this process."""
    before = load()
    with staged(WORKLOAD.format(image=small_image())) as stage, opened(stage) as current:
        tenants = (TenantId(f"tenant-{number}") for number in count())
        peer = PodmanRun(stage, current.pools.workload(POOL), current.engine.info(), log_driver())
        refill(current)
        ours, theirs = take_turns(
            "claim_warm", runs, lambda: _claim(current, next(tenants), peer), lambda: _run(peer), rest=REST
        )
    return [Figure(name="claim_warm", peer=PEER, goal=0.2, ours=ours, theirs=theirs, load=(before, load()), at=now())]


def measure_cli(runs: int = 15) -> list[Figure]:
    """`claim_warm_cli`: the command `claw-runtime claim`, its interpreter's start included, of a real daemon."""
    before = load()
    with staged(WORKLOAD.format(image=small_image())) as stage, daemon(stage) as api:
        tenants = (f"tenant-{number}" for number in count())
        peer = PodmanRun(stage, plan.make(loader.load(stage.workload)), _info(stage), log_driver())
        ours, theirs = take_turns(
            "claim_warm_cli", runs, lambda: _claim_cli(stage, api, next(tenants), peer), lambda: _run(peer), rest=REST
        )
    return [
        Figure(name="claim_warm_cli", peer=PEER, goal=None, ours=ours, theirs=theirs, load=(before, load()), at=now())
    ]


def measure_release(runs: int = 15) -> list[Figure]:
    """`release_ms`: `Tenants.release` of a tenant that wrote 64 KiB: stop, commit to the store, destroy the slot."""
    before = load()
    with staged(WORKLOAD.format(image=small_image())) as stage, opened(stage) as current:
        tenants = (TenantId(f"tenant-{number}") for number in count())
        peer = PodmanRun(stage, current.pools.workload(POOL), current.engine.info(), log_driver())
        refill(current)
        ours, theirs = take_turns(
            "release_ms", runs, lambda: _release(current, next(tenants)), lambda: _end(peer), rest=REST
        )
    return [
        Figure(
            name="release_ms",
            peer="podman stop, podman rm",
            goal=None,
            ours=ours,
            theirs=theirs,
            load=(before, load()),
            at=now(),
            unit="ms",
            note="the peer saves nothing",
        )
    ]


def _release(current: Runtime, tenant: TenantId) -> float:
    slot = waiting(current, POOL)
    current.tenants.claim(tenant, POOL)
    (current.settings.layout.slot(slot.id).state / "notes").write_bytes(os.urandom(64 << 10))
    start = time.perf_counter()
    current.tenants.release(tenant, affinity=False)
    spent = time.perf_counter() - start
    refill(current)
    return spent * 1e3


def _end(peer: PodmanRun) -> float:
    dirs = peer.directories()
    seconds_until(dirs.state, SIGN, lambda: peer.start(dirs))
    start = time.perf_counter()
    peer.end()
    return (time.perf_counter() - start) * 1e3


def _claim(current: Runtime, tenant: TenantId, peer: PodmanRun) -> float:
    slot = waiting(current, POOL)
    state = current.settings.layout.slot(slot.id).state
    seconds = seconds_until(state, SIGN, lambda: current.tenants.claim(tenant, POOL))
    peer.match(slot.container or "")
    current.tenants.release(tenant, sync=False)
    refill(current)
    return seconds


def _run(peer: PodmanRun) -> float:
    dirs = peer.directories()
    seconds = seconds_until(dirs.state, SIGN, lambda: peer.start(dirs))
    peer.remove()
    return seconds


def _claim_cli(stage: Stage, api: Client, tenant: str, peer: PodmanRun) -> float:
    state = only_slot(stage, api) / "state"
    command = [str(Path(sys.executable).with_name("claw-runtime"))]
    environment = stage.environment()
    seconds = seconds_until(
        state,
        SIGN,
        lambda: subprocess.run(
            [*command, "claim", tenant], env=environment, check=True, capture_output=True, start_new_session=True
        ),
    )
    peer.match(api.get(f"/api/v1/tenants/{tenant}/status")["containerId"])
    api.post(f"/api/v1/tenants/{tenant}/release", {"sync": False})
    only_slot(stage, api)  # filled again, so that nothing works beside the peer
    return seconds


def _info(stage: Stage) -> EngineInfo:
    with PodmanEngine(stage.home / "info.sock") as engine:
        return engine.info()
