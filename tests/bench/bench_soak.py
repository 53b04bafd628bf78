"""What has grown after fifty claims and releases of the same tenants on real Podman.

These are counted before and after, once the daemon is at rest and after some claims that warm it up: processes, mounts,
ports, containers, files of the data directory, and descriptors and memory of the daemon and of its Podman service.
"""

import subprocess
import time
from collections.abc import Mapping, Sequence

from bench.bench_frozen import SMALL
from bench.figures import Figure, load, now, progress
from bench.footprint import below, files, listening, memory, mentioning, mounts, open_files
from bench.stage import Stage, daemon, only_slot, staged
from claw_runtime.api.client import Client
from fakes.live_podman import small_image

CYCLES, WARMING = 50, 12
TENANTS = 5
GROWTH = 4.0
"""MB that the two processes may grow by, and no more: an interpreter's heap is not the same after every call."""

SPARE = 2
"""Descriptors likewise: a thread that comes and goes has a connection of its own."""

SHARED = ("mounts", "listening ports")
"""What is counted of the whole user: other containers of this user count as well."""

REST = 2.0  # seconds
LOOKS = 10


def measure(runs: int = CYCLES) -> list[Figure]:
    """`soak_leaks`: kinds of things of which there is more afterwards."""
    before = load()
    text = SMALL.format(image=small_image()).replace("min_size: 0", "min_size: 1").replace("frozen: 1", "created: 1")
    text = text.replace("affinity_timeout: 1h", "affinity_timeout: 0").replace("min_size: 1, ", "")
    with staged(text) as stage, daemon(stage) as api:
        _cycle(stage, api, WARMING)
        first, others = _counts(stage), _others(stage)
        _cycle(stage, api, runs)
        last = _counts(stage)
        disturbed = others != _others(stage)
    after = load()
    grown = [name for name in first if last[name] - first[name] > _spare(name)]
    note = f"{runs} claims and releases"
    if disturbed:
        note += "; somebody else used Podman meanwhile: mounts and ports are not judged"
        grown = [name for name in grown if name not in SHARED]
    note += f"; more of: {', '.join(grown)}" if grown else ""
    return [
        Figure(
            name="soak_leaks",
            unit="kinds",
            ours=[float(len(grown))],
            most=0,
            load=(before, after),
            at=now(),
            note=note,
            counts={name: (first[name], last[name]) for name in first},
        )
    ]


def _spare(name: str) -> float:
    return GROWTH if name.endswith("MB") else SPARE if "descriptors" in name else 0


def _cycle(stage: Stage, api: Client, times: int) -> None:
    for number in range(times):
        progress(f"soak_leaks: {number + 1} of {times}")
        tenant = f"tenant-{number % TENANTS}"
        api.post(f"/api/v1/tenants/{tenant}/claim", {})
        api.post(f"/api/v1/tenants/{tenant}/release", {})
    only_slot(stage, api)
    time.sleep(REST)
    progress("")


def _ids(label: str = "") -> list[str]:
    command = ["podman", "ps", "-aq", "--no-trunc", *(["--filter", f"label={label}"] if label else [])]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def _others(stage: Stage) -> set[str]:
    """Containers of this user that are none of ours."""
    return set(_ids()) - set(_ids(stage.labels[0]))


def _least(processes: Sequence[int]) -> int:
    """Descriptors; the fewest of some looks, since a container that is looked after meanwhile has a few."""
    seen = []
    for _ in range(LOOKS):
        seen.append(sum(map(open_files, processes)))
        time.sleep(REST / LOOKS)
    return min(seen)


def _counts(stage: Stage) -> Mapping[str, float]:
    home, run = stage.settings.layout.home, stage.settings.layout.run
    containers = _ids(stage.labels[0])
    served, podman = below(stage.daemon_pid()), mentioning([f"unix://{run}"])
    return {
        "processes": len(mentioning([str(home), str(run), *containers])),
        "mounts": mounts(),
        "listening ports": listening(),
        "containers": len(containers),
        "files": files(home) - files(home / "s3") + files(run),
        "daemon's descriptors": _least(served[:1]),
        "Podman service's descriptors": _least(podman[-1:]),
        "daemon, MB": memory(served[:1]),
        "Podman service, MB": memory(podman[-1:]),
    }
