"""The same gateway under claw and under `openclaw fleet`, which manages many gateways on one host.

Whole commands are measured, from fork to exit, until the gateway answers that it is well. Ours asks a running daemon
with one waiting slot, and waits for readiness, not only for life. Theirs polls once a second in `create`. It does not
wait in `start`, so the benchmark itself then asks the port.
"""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

from bench.bench_cli import TENANTS, serving_tenants
from bench.bench_slot import IMAGE
from bench.figures import Figure, load, now, take_turns
from bench.fleet import Fleet, Unavailable, prepared
from bench.stage import Stage, daemon, only_slot, staged
from claw_runtime.api.client import Client

WORKLOAD = """
id: gateway
image: {image}
pool: {{min_size: 1, max_size: 4, affinity_timeout: 0}}
"""
PROGRAM = str(Path(sys.executable).with_name("claw-runtime"))
REST = 1.0  # seconds
PATIENCE = 120.0  # seconds for one command
_METER = """
import os, sys, time
begin = time.perf_counter()
null = os.open(os.devnull, os.O_RDWR)
actions = [(os.POSIX_SPAWN_DUP2, null, number) for number in (0, 1, 2)]
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=actions)
_, status, used = os.wait4(child, 0)
print(time.perf_counter() - begin, used.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""
LISTS = 3
"""Turns of `list`: a command of seconds."""


def measure(runs: int = 2) -> list[Figure]:
    """`fleet_create`, `fleet_start`, `fleet_list`, `fleet_list_mb`."""
    try:
        with prepared() as fleet:
            return _cells(fleet, runs) + _lists(fleet)
    except Unavailable as reason:
        print(f"bench: fleet_create, fleet_start and fleet_list are skipped: {reason}", file=sys.stderr)
        return []


def _cells(fleet: Fleet, runs: int) -> list[Figure]:
    before = load()
    with staged(WORKLOAD.format(image=IMAGE)) as stage, daemon(stage) as api:
        tenants = (f"tenant-{number}" for number in count())
        only_slot(stage, api)
        found = take_turns(
            "fleet",
            runs,
            lambda: _ours(stage, api, next(tenants)),
            lambda: _theirs(fleet, next(tenants)),
            warming=0,
            rest=REST,
        )
    after = load()
    return [
        Figure(
            name=f"fleet_{what}",
            peer=f"openclaw fleet {what}",
            goal=1.0,
            ours=[times[place] for times in found[0]],
            theirs=[times[place] for times in found[1]],
            load=(before, after),
            at=now(),
        )
        for place, what in enumerate(("create", "start"))
    ]


def _ours(stage: Stage, api: Client, tenant: str) -> tuple[float, float]:
    """Seconds of a new tenant's claim, and of the claim of one that was released with a state."""
    first = _seconds([PROGRAM, "claim", tenant], stage.environment())
    api.post(f"/api/v1/tenants/{tenant}/release", {})
    only_slot(stage, api)
    time.sleep(REST)
    again = _seconds([PROGRAM, "claim", tenant], stage.environment())
    api.post(f"/api/v1/tenants/{tenant}/release", {"sync": False})
    only_slot(stage, api)
    return first, again


def _theirs(fleet: Fleet, tenant: str) -> tuple[float, float]:
    """Seconds of `create`, and of `start` after `stop`."""
    try:
        begin = time.perf_counter()
        fleet.create(tenant)
        created = time.perf_counter() - begin
        port = fleet.port(tenant)
        fleet.run("stop", tenant)
        time.sleep(REST)
        begin = time.perf_counter()
        fleet.start(tenant, port)
        return created, time.perf_counter() - begin
    finally:
        fleet.remove(tenant)


def _lists(fleet: Fleet) -> list[Figure]:
    """`status` of 1,000 tenants beside `fleet list` of one."""
    before = load()
    with serving_tenants(TENANTS) as environment, fleet.cell("lone"):
        ours, theirs = take_turns(
            "fleet_list",
            LISTS,
            lambda: _cost([PROGRAM, "status"], environment),
            lambda: _cost([*fleet.argv, "list"], fleet.environment),
        )
    after = load()
    return [
        Figure(
            name=f"fleet_list{suffix}",
            peer="openclaw fleet list",
            unit=unit,
            goal=1.0,
            ours=[cost[place] for cost in ours],
            theirs=[cost[place] for cost in theirs],
            load=(before, after),
            at=now(),
        )
        for place, (suffix, unit) in enumerate((("", "s"), ("_mb", "MB")))
    ]


def _seconds(argv: Sequence[str], environment: Mapping[str, str]) -> float:
    return _cost(argv, environment)[0]


def _cost(argv: Sequence[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Seconds from fork to exit, and the most memory of any one process of it, in MB."""
    # Through a small process: the kernel counts the memory of whoever forks as the child's own.
    command = [sys.executable, "-I", "-S", "-c", _METER, *argv]
    told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=PATIENCE)
    seconds, kilobytes = told.stdout.split()
    return float(seconds), int(kilobytes) * 1024 / 1e6
