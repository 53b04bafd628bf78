"""What 500 hostile clients of one tenant cost the others: the slowest hundredth of another tenant's requests.

The API is real, over TCP, with services and ledger over an engine and an object store in memory. The clients are
processes of their own, with a token each for its tenant. The hostile ones send every kind of request and, every other
time, close the connection without reading. Their process has the lowest priority: a tenant's programs have the CPU
weight of their container, not the daemon's. The quiet run has the same requests of the other tenant and no hostile
ones.
"""

import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figure, load, now, progress, quantile, time_is_up
from bench.stage import memory
from claw_runtime.tenancy import TenantId
from fakes.faces import listening
from fakes.world import WORKLOAD, World

CLIENTS, REQUESTS, PROBED = 500, 400, 100
GOAL, PROBE_GOAL = 2.0, 0.1
HOSTILE = """
import asyncio, random, sys
host, port, token, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
paths = ["status", "verify", "files", "logs?follow=true", "export", "snapshots", "stored", "files/a"]
async def client(number):
    rng = random.Random(number)
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, port)
            path = "/api/v1/tenants/alice/" + rng.choice(paths)
            writer.write(f"GET {path} HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n"
                         f"Authorization: Bearer {token}\\r\\n\\r\\n".encode())
            await writer.drain()
            if rng.random() < 0.5:
                await asyncio.wait_for(reader.read(), 10)
            writer.close()
        except (OSError, TimeoutError):
            await asyncio.sleep(0.05)
async def main():
    tasks = [asyncio.ensure_future(client(number)) for number in range(count)]
    await asyncio.sleep(2)
    print("begun", flush=True)
    await asyncio.gather(*tasks)
asyncio.run(main())
"""
OTHER = """
import http.client, json, sys, time
# Four requests over a kept connection, then four over a new one each.
host, port, token, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
asked = [("GET", "status", None), ("GET", "files", None), ("POST", "claim", "{}"), ("POST", "sync", "{}")]
took = []
one = http.client.HTTPConnection(host, port, timeout=60)
for number in range(count):
    method, path, body = asked[number % len(asked)]
    if number // 4 % 2:
        one.close()
    begin = time.perf_counter()
    one.request(method, f"/api/v1/tenants/bob/{path}", body,
                {"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
    answer = one.getresponse()
    answer.read()
    assert answer.status == 200, answer.status
    took.append(time.perf_counter() - begin)
json.dump(took, sys.stdout)
"""
PROBES = """
import json, socket, sys, time
path, count = sys.argv[1], int(sys.argv[2])
took = []
for number in range(count):
    begin = time.perf_counter()
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(path)
        asked = ("/livez", "/api/v1/tenants/alice/status")[number % 2]
        one.sendall(f"GET {asked} HTTP/1.1\\r\\nHost: claw\\r\\nConnection: close\\r\\n\\r\\n".encode())
        answer = b""
        while piece := one.recv(1 << 16):
            answer += piece
    took.append(time.perf_counter() - begin)
    assert answer.startswith(b"HTTP/1.1 200 "), answer[:100]
json.dump(took, sys.stdout)
"""


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds of each request of the other tenant, quiet and beside the hostile clients, and of each probe then."""

    quiet: list[float]
    hostile: list[float]
    probes: list[float]


def measure(runs: int = 3) -> list[Figure]:
    """`hostile_p99`: seconds of the slowest hundredth of another tenant's requests, with and without hostile ones.
    `hostile_probe_s`: of the host's own `/livez` and status of the hostile tenant meanwhile."""
    before = load()
    rounds = list[Round]()
    for number in range(runs):
        progress(f"hostile_p99: run {number + 1} of {runs}")
        rounds.append(_round())
        if time_is_up():
            break
    after, at = load(), now()
    return [
        Figure(
            name="hostile_p99",
            peer="the same without them",
            ours=[quantile(one.hostile, 0.99) for one in rounds],
            theirs=[quantile(one.quiet, 0.99) for one in rounds],
            goal=GOAL,
            load=(before, after),
            at=at,
            note=f"p99 of {REQUESTS} requests of one tenant beside {CLIENTS} hostile clients of another, over TCP",
        ),
        Figure(
            name="hostile_probe_s",
            ours=[quantile(one.probes, 0.99) for one in rounds],
            most=PROBE_GOAL,
            load=(before, after),
            at=at,
            note=f"p99 of {PROBED} requests for /livez and a status over the socket beside {CLIENTS} hostile clients",
        ),
    ]


def _round(clients: int = CLIENTS, requests: int = REQUESTS, probed: int = 0) -> Round:
    """One turn, with a daemon of its own."""
    with tempfile.TemporaryDirectory(prefix="claw-bench-", dir=memory()) as home:
        world = World(Path(home), workload=WORKLOAD.replace("max_size: 3", "max_size: 20"))
        try:
            with listening(world) as (runtime, url):
                tokens = {}
                for tenant in ("alice", "bob"):
                    world.tenants.claim(TenantId(tenant), "small")
                    world.write(tenant, {"a": "text", "b": "x" * 100_000})
                    world.tenants.sync(TenantId(tenant))
                    tokens[tenant] = runtime.tokens.create(tenant, "tenant", tenant=tenant)[1].reveal()
                place = url.removeprefix("http://").split(":")
                gc.freeze()  # as `up` does
                quiet = _timed(OTHER, *place, tokens["bob"], requests)
                with _hostile(place, tokens["alice"], clients):
                    hostile = _timed(OTHER, *place, tokens["bob"], requests)
                    probes = _timed(PROBES, world.layout.api_socket, probed or PROBED)
                return Round(quiet, hostile, probes)
        finally:
            world.close()


def _timed(script: str, *arguments: object) -> list[float]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, timeout=300)
    took: list[float] = json.loads(done.stdout)
    return took


@contextmanager
def _hostile(place: list[str], token: str, clients: int) -> Iterator[None]:
    command = ["nice", "-n", "19", sys.executable, "-c", HOSTILE, *place, token, str(clients)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            yield
        finally:
            process.kill()
