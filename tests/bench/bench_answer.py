"""The time until a tenant with a memory has an answer: from the claim to the real gateway's right answer.

The tenant told its assistant a colour in an earlier container. In each turn it returns, its state comes from the
object store, and it asks for the colour. The peer is the same gateway under `podman run -d` with the same terms. Its
copy of the state is in place before its clock starts. A stub plays only the paid model. It runs in the container's
own network, and the same `podman exec` starts it on both sides as soon as the container runs.
"""

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from bench.conversation import ASK, TELL, ask, bring_model, model_in, token_of, workload
from bench.figures import Figure, load, now, take_turns
from bench.podman_run import PodmanRun, log_driver
from bench.stage import Stage, opened, refill, staged, waiting
from claw_runtime.clock import SystemClock
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.engine.probe import HttpProber
from claw_runtime.ports import SlotRow
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants.readiness import wait_ready

POOL = "openclaw"
TENANT = TenantId("alice")
PEER = "podman run -d"
REST = 1.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds from the beginning."""

    ready: float
    answer: float


def measure(runs: int = 5) -> list[Figure]:
    """`claim_to_ready` and `claim_to_answer`."""
    before = load()
    with staged(workload(POOL, "{min_size: 1, max_size: 4, affinity_timeout: 0}")) as stage, opened(stage) as current:
        memory = _remember(stage, current)
        peer = PodmanRun(stage, current.pools.workload(POOL), current.engine.info(), log_driver())
        ours, theirs = take_turns(
            "claim_to_answer", runs, lambda: _claim(current, peer), lambda: _run(current, peer, memory), rest=REST
        )
    after = load()
    return [
        Figure(
            name=f"claim_to_{phase}",
            peer=PEER,
            goal=goal,
            ours=[getattr(times, phase) for times in ours],
            theirs=[getattr(times, phase) for times in theirs],
            load=(before, after),
            at=now(),
        )
        for phase, goal in (("ready", None), ("answer", 1.0))
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What the peer starts over. `values` is the content of the values file, `token` the gateway's own."""

    state: Path
    values: bytes
    token: str


def _remember(stage: Stage, current: Runtime) -> Memory:
    """The earlier life: generation 1 in the store, and a copy of it for the peer."""
    bring_model(stage)
    refill(current)
    slot = waiting(current, POOL)
    with model_in(current, pool=POOL):
        claim = current.tenants.claim(TENANT, POOL)
        token = token_of(claim)
        ask(claim.port, token, TELL)
    values = (current.settings.layout.slot(slot.id).values / "values.json").read_bytes()
    assert json.loads(values)["values"]["OPENCLAW_GATEWAY_TOKEN"] == token
    current.tenants.release(TENANT)
    refill(current)
    lease = current.repository.leases.acquire(TENANT)
    state = stage.home / "memory"
    state.mkdir()
    current.repository.restorer.restore(lease, state)
    current.repository.leases.give_back(lease.tenant)
    return Memory(state=state, values=values, token=token)


def _claim(current: Runtime, peer: PodmanRun) -> Times:
    slot = waiting(current, POOL)
    with model_in(current, pool=POOL):
        begin = time.perf_counter()
        claim = current.tenants.claim(TENANT, POOL)
        ready = time.perf_counter() - begin
        ask(claim.port, token_of(claim), ASK)
        answer = time.perf_counter() - begin
    peer.match(slot.container or "")
    current.tenants.release(TENANT, sync=False)  # the next turn begins with the same generation
    refill(current)
    return Times(ready=ready, answer=answer)


def _run(current: Runtime, peer: PodmanRun, memory: Memory) -> Times:
    dirs = peer.directories()
    shutil.copytree(memory.state, dirs.state, symlinks=True, dirs_exist_ok=True)
    (dirs.values / "values.json").write_bytes(memory.values)
    os.sync()  # the copy is not to be written while the gateway starts
    with model_in(current, name=peer.name):
        begin = time.perf_counter()
        peer.start(dirs)
        port = _wait_ready(current, peer.name, memory.token)
        ready = time.perf_counter() - begin
        ask(port, memory.token, ASK)
        answer = time.perf_counter() - begin
    peer.remove()
    shutil.rmtree(dirs.state.parent)
    return Times(ready=ready, answer=answer)


def _wait_ready(current: Runtime, container: str, token: str) -> int | None:
    """Wait as a claim does; the published port."""
    found = current.engine.inspect(container)
    port = found.host_port if found else None
    hint = f"podman logs {container}"
    slot = SlotRow(id="", pool=POOL, state="claimed", container=container, port=port, template="", made_at=0)
    wait_ready(
        current.pools.workload(POOL),
        slot,
        current.engine,
        HttpProber(),
        SystemClock(),
        bearer=token,
        ended=lambda: None,
        hint=hint,
    )
    return port
