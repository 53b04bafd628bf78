"""What a large release costs its neighbours: how much a loss of the host would cost a running tenant meanwhile.

A program writes rows into a SQLite database of a running tenant, which the real daemon commits every two seconds. Then
another tenant, with a state of gigabytes, is released. For each generation that is made meanwhile, the time of its last
row is compared with the time at which the next one existed, as `bench_loss` does.
"""

import os
import shutil
import threading
import time
from pathlib import Path

from bench.bench_frozen import SMALL
from bench.bench_loss import TENANT, losses_of, writing
from bench.figures import Figure, load, now, progress
from bench.stage import Stage, daemon, staged
from claw_runtime.api.client import Client
from fakes.live_podman import small_image

NEIGHBOUR = "bob"
INTERVAL = 2.0
MOST = 4.0
SIZE = 3_000_000_000
"""Bytes of the released state. A host whose disk does not have four times as many gets a smaller one."""
PIECE = 64 << 20
BEFORE, AFTER = 3, 2
"""Intervals without the release, so that each generation before and after it is seen, too."""


def measure(_runs: int = 1) -> list[Figure]:
    """`rpo_neighbour_s`: of all intervals, the longest but one in a hundred."""
    before = load()
    progress("rpo_neighbour_s")
    large = SMALL.format(image=small_image()).replace("id: small", "id: large")  # which only its release commits
    sync = f"sync: {{policy: {{interval: {INTERVAL:g}s}}, retention: {{keep_last: 1000}}}}\n"
    small = SMALL.format(image=small_image()) + sync
    with staged(small, large) as stage, daemon(stage) as api:
        size = min(SIZE, shutil.disk_usage(stage.home).free // 4)
        alice, bob = _claimed(stage, api, TENANT, "small"), _claimed(stage, api, NEIGHBOUR, "large")
        _fill(bob / "model.bin", size)
        with writing(alice / "words.sqlite"):
            release = threading.Thread(target=_release, args=(stage,))
            seen = _watched(api, release)
        losses = list(losses_of(stage, seen))
    progress("")
    return [
        Figure(
            name="rpo_neighbour_s",
            ours=losses,
            quantile=0.99,
            most=MOST,
            load=(before, load()),
            at=now(),
            note=f"commits every {INTERVAL:g} s, while another tenant releases {size / 1e9:.1f} GB; of {len(losses)}",
        )
    ]


def _claimed(stage: Stage, api: Client, tenant: str, pool: str) -> Path:
    """Claim a tenant; its directory of state."""
    there = set(stage.settings.layout.slots.glob("*/state"))
    api.post(f"/api/v1/tenants/{tenant}/claim", {"poolId": pool})
    [state] = set(stage.settings.layout.slots.glob("*/state")) - there
    return state


def _fill(path: Path, size: int) -> None:
    """A file that does not compress."""
    with path.open("wb") as file:
        for start in range(0, size, PIECE):
            file.write(os.urandom(min(PIECE, size - start)))


def _release(stage: Stage) -> None:
    client = Client(stage.settings.layout.api_socket)
    try:
        client.post(f"/api/v1/tenants/{NEIGHBOUR}/release", {})
    finally:
        client.close()


def _watched(api: Client, release: threading.Thread) -> dict[int, float]:
    """When each generation was in the store, by the monotonic clock: before, during and after the release."""
    seen, began, over = dict[int, float](), time.monotonic(), 0.0
    while not over or time.monotonic() < over + AFTER * 2 * INTERVAL:
        number = api.get(f"/api/v1/tenants/{TENANT}/stored")["generation"]
        if number is not None:
            seen.setdefault(number, time.monotonic())
        if release.ident is None and time.monotonic() > began + BEFORE * INTERVAL:
            release.start()
        elif release.ident is not None and not release.is_alive():
            over = over or time.monotonic()
        time.sleep(0.02)
    return seen
