"""The time until a returning tenant's program starts: from the claim to its first instruction.

The real image runs under its real terms, for a tenant with a small state in the object store and nothing on this
host. In a process that starts, the first instruction visible from outside is the loader's. It opens
`/etc/ld.so.preload`, here an empty file of the host, before anything of the program. In a process that waits at a start
gate, the first visible act is the directory that it creates in the tenant's state. The peer is `podman run -d` of that
image under the same terms, to the same act of the loader. Its copy of the state is in place before its clock starts.

After the first instruction, the program is the same on both sides. That time is not measured here: see bench_tiers.
"""

import json
import shutil
import statistics
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from unittest import mock

from bench.figures import FIGURES, Figure, load, now, take_turns
from bench.first_sign import MADE, OPENED, seconds_until
from bench.podman_run import PodmanRun, log_driver
from bench.stage import Stage, opened, refill, remember, staged, waiting
from claw_runtime.daemon import assembly
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.ports import SlotRow
from claw_runtime.tenancy import TenantId

IMAGE = "localhost/openclaw-nix:dev"
WORKLOAD = """
id: {tier}
image: {image}
pool: {{min_size: 1, max_size: 4, affinity_timeout: 0, warmth: {{{tier}: 1}}}}
volumes: {{loader: {{source: "@home@/loader/ld.so.preload", target: /etc/ld.so.preload}}}}
"""
LOADER = "ld.so.preload"
FIRST_MADE = ".openclaw"  # in the state, by the entrypoint; the tenant's own state has none
PEER = "podman run -d"
REST = 0.5  # seconds; a container's removal goes on in the background for about 0.2
FILES, BYTES = 20, 2000
"""The tenant's state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds to the first instruction: from the claim, and from the moment at which only the start is missing."""

    whole: float
    hand_over: float
    phases: dict[str, float]


def measure(runs: int = 15) -> list[Figure]:
    """`claim_slot`, `claim_parked`, and of each the hand-over alone."""
    before = load()
    tiers = ("created", "entrypoint")
    with (
        mock.patch.object(assembly, "HttpProber", Ready),
        staged(*(WORKLOAD.format(tier=tier, image=IMAGE) for tier in tiers)) as stage,
    ):
        (stage.home / "loader").mkdir()
        (stage.home / "loader" / LOADER).touch()
        tree = _tree(stage)
        with opened(stage) as current:
            tenants = (TenantId(f"tenant-{number}") for number in count())
            refill(current)
            peers = PodmanRun(stage, current.pools.workload("created"), current.engine.info(), log_driver())

            def ours(tier: str) -> Callable[[], Times]:
                return lambda: _claim(stage, current, tier, next(tenants), tree, peers)

            created, entrypoint, theirs = take_turns(
                "claim_slot", runs, ours("created"), ours("entrypoint"), lambda: _run(stage, peers, tree), rest=REST
            )
    after = load()
    found = {"created": created, "entrypoint": entrypoint}
    return [
        Figure(
            name=f"claim_{FIGURES[tier]}{suffix}",
            peer=PEER,
            goal=goal,
            ours=[getattr(times, part) for times in found[tier]],
            theirs=[times.whole for times in theirs],
            load=(before, after),
            at=now(),
            parts=_parts(found[tier]) if part == "whole" else {},
        )
        for tier, goal in (("created", 0.03), ("entrypoint", 0.005))
        for part, suffix in (("whole", ""), ("hand_over", "_handover"))
    ]


class Ready:
    """A prober that is content: what comes after the first instruction is not waited for."""

    def get(self, port: int, path: str, timeout: float, bearer: str | None = None) -> tuple[int, bytes]:
        return 200, b"{}"

    def refusing(self, ports: Collection[int]) -> frozenset[int]:
        return frozenset()

    def is_free(self, port: int) -> bool:
        return True


def _tree(stage: Stage) -> Path:
    tree = stage.home / "tree"
    (tree / "workspace").mkdir(parents=True)
    for number in range(FILES):
        (tree / "workspace" / f"note-{number}.md").write_text("x" * BYTES)
    return tree


def _claim(stage: Stage, current: Runtime, tier: str, tenant: TenantId, tree: Path, peer: PodmanRun) -> Times:
    remember(current, tenant, tree)
    slot = waiting(current, tier)
    if tier == "created":
        directory, name, sign = stage.home / "loader", LOADER, OPENED
    else:
        directory, name, sign = current.settings.layout.slot(slot.id).state, FIRST_MADE, MADE
    begun: list[float] = []
    answer: list[dict[str, float]] = []

    def act() -> None:
        begun.append(time.perf_counter())
        answer.append(current.tenants.claim(tenant, tier).phases)

    with _noted(current, begun):
        whole = seconds_until(directory, name, act, sign=sign)
    if tier == "created":
        peer.match(slot.container or "")
    current.engine.remove(slot.container or "")  # else the release waits for a gateway that has only just begun
    current.tenants.release(tenant, sync=False)
    refill(current)
    claimed, started = begun
    return Times(whole=whole, hand_over=whole - (started - claimed), phases=answer[0])


@contextmanager
def _noted(current: Runtime, moments: list[float]) -> Iterator[None]:
    """Note when the pool is told to let the tenant in."""
    start = current.pools.start

    def noted(slot: SlotRow) -> None:
        moments.append(time.perf_counter())
        start(slot)

    with mock.patch.object(current.pools, "start", noted):
        yield


def _run(stage: Stage, peer: PodmanRun, tree: Path) -> Times:
    dirs = peer.directories()
    shutil.copytree(tree, dirs.state, dirs_exist_ok=True)
    (dirs.values / "values.json").write_text(json.dumps({"v": 1, "values": {"OPENCLAW_GATEWAY_TOKEN": "x" * 43}}))
    seconds = seconds_until(stage.home / "loader", LOADER, lambda: peer.start(dirs), sign=OPENED)
    peer.remove()
    shutil.rmtree(dirs.state.parent)
    return Times(whole=seconds, hand_over=seconds, phases={})


def _parts(found: list[Times]) -> dict[str, float]:
    """Seconds of each phase up to the start, and of the hand-over, which is the start as the container sees it."""
    names = [name for name in found[0].phases if name not in ("start", "ready")]
    parts = {name: statistics.median(times.phases[name] for times in found) / 1e3 for name in names}
    hand_over = statistics.median(times.hand_over for times in found)
    rest = statistics.median(times.whole for times in found) - sum(parts.values()) - hand_over
    return parts | {"ledger": max(rest, 0.0), "hand-over": hand_over}
