"""Deaths on real Podman: of the daemon at a sample of its points, of Podman's service, of containers, of all."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from claw_runtime.daemon import home as daemon_home
from claw_runtime.errors import ClawError, Fenced, TenantLocked
from claw_runtime.tenancy import LABEL_OWNER
from fakes import live_podman
from kill import beside
from kill.image import MARKER
from kill.killing_daemon import KillingDaemon
from kill.on_podman import Bench, Outside
from kill.points import Shot
from kill.stories import ALICE, BOB, NEW, NONE, OLD, POOL, STORIES, Story

pytestmark = [pytest.mark.podman, pytest.mark.timed]

SAMPLE = {
    "claim from a warm slot": ["after ledger.take_slot 1", "after store.put:HEAD 1", "after engine.start 1"],
    "claim at the start gate": ["before gate.open 1", "after gate.open 1"],
    "frozen and back": ["after engine.pause 1", "after store.put:HEAD 1", "before engine.unpause 1"],
    "parked and back": ["after trees.move:state>parked 1", "before engine.remove 1"],
    "pool scaled and recycled": ["after reconciler:engine.create 1", "before reconciler:ledger.slot_ready 1"],
}


def story(name: str) -> Story:
    return next(one for one in STORIES if one.name == name)


def shot(text: str) -> Shot:
    when, name, nth = text.split()
    return Shot(name=name, nth=int(nth), when=when)  # type: ignore[arg-type]


@contextmanager
def opened(place: Path, told: Story) -> Iterator[Bench]:
    """A bench that leaves nothing behind."""
    if told.name.startswith("frozen"):
        live_podman.need_freezing()
    bench = Bench(place, told)
    bench.open()
    try:
        yield bench
    finally:
        left = bench.close()
    assert left == []


@pytest.mark.parametrize("name", SAMPLE)
def test_a_daemon_that_is_killed_loses_nothing(place: Path, name: str) -> None:
    """`claw-runtime up` is killed at some of its points: each time the next one finishes or undoes at once."""
    with opened(place, story(name)) as bench:
        for text in SAMPLE[name]:
            outcome = bench.tell(shot(text))

            assert (text, outcome.reached, outcome.broken) == (text, True, ())
            assert outcome.seconds < 10


@pytest.mark.parametrize("where", ["before engine.start 1", "after engine.start 1", "before store.put:HEAD 1"])
def test_podmans_service_is_killed_in_a_claim(place: Path, where: str) -> None:
    """The claim goes on with a new service, or fails as a whole; either way the next one has the tenant, whole."""
    with opened(place, story("claim from a warm slot")) as bench:
        host = Outside(bench.daemon, 1)
        story("claim from a warm slot").before(host)
        bench.daemon.arm(shot(where), victim="service")
        with suppress(ClawError):
            host.claim(ALICE)
        bench.daemon.disarm()

        host.claim(ALICE)

        assert bench.settled(host) == []
        assert bench.lost(host, ALICE) == []


def test_podmans_service_is_killed_between(place: Path) -> None:
    """Tenants never notice; the next claim starts a new service, and the daemon is the same."""
    with opened(place, story("claim from a warm slot")) as bench:
        host, pid = Outside(bench.daemon, 1), bench.daemon.pid
        [service] = [one.pid for one in beside.processes(place) if (one.role, one.parent) == ("podman", pid)]
        os.kill(service, signal.SIGKILL)

        host.claim(ALICE)
        host.write(ALICE, OLD)

        assert bench.daemon.pid == pid
        assert bench.settled(host) == []
        assert bench.lost(host, BOB) == []


def test_a_container_that_is_killed_is_settled_in_one_pass(place: Path) -> None:
    """Nobody asks, and the words are in the store within two seconds; the next claim has them."""
    with opened(place, story("claim from a warm slot")) as bench:
        host = Outside(bench.daemon, 1)
        host.claim(ALICE)
        host.write(ALICE, {**OLD, **NEW})
        began = time.monotonic()

        host.crash(ALICE)

        assert time.monotonic() - began < 5
        host.claim(ALICE)
        assert bench.lost(host, ALICE) == []


def test_a_reboot_ends_every_container(place: Path) -> None:
    """All containers, and the directory that a reboot empties, are gone: what ran and what was frozen is all there."""
    with opened(place, story("frozen and back")) as bench:
        host, other = Outside(bench.daemon, 1), Outside(bench.daemon, 2)
        for one in (host, other):
            one.claim(ALICE)
            one.write(ALICE, {**OLD, **NEW})
        other.release(ALICE)
        assert other.state(ALICE) == "frozen"
        bench.daemon.kill()
        owner = daemon_home.runtime_id(bench.daemon.layout)
        ids = subprocess.run(
            ["podman", "ps", "-aq", "--filter", f"label={LABEL_OWNER}={owner}"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        subprocess.run(["podman", "rm", "-f", "-t", "0", *ids], check=True, capture_output=True)
        shutil.rmtree(bench.daemon.layout.run)

        bench.daemon.start()

        for one, tenant in ((host, ALICE), (other, ALICE), (host, BOB)):
            one.ended(tenant)
        for one in (host, other):
            one.claim(ALICE)
            assert bench.lost(one, ALICE) == []
        host.claim(BOB)
        assert bench.lost(host, BOB) == []
        assert bench.settled(host) == []


def test_many_claims_at_once_are_one(place: Path) -> None:
    """32 callers claim the same tenant: all get the same container, and there is no other."""
    with opened(place, story("claim from a warm slot")) as bench:
        answers: list[str] = []

        def claim() -> None:
            answer = bench.daemon.client.post("/api/v1/tenants/alice-1/claim", {"poolId": POOL})
            answers.append(answer["containerId"])

        together([claim] * 32)

        assert (len(answers), len(set(answers))) == (32, 1)
        assert bench.daemon.client.get(f"/api/v1/pools/{POOL}")["claimed"] == 2


def test_a_second_daemon_is_refused(place: Path) -> None:
    """It ends with the exit code that says so, and the first one never notices."""
    with opened(place, story("claim from a warm slot")) as bench:
        second = KillingDaemon(place, place / "small.yaml")

        code = second.run()

        assert code == 31
        assert bench.daemon.client.get(f"/api/v1/tenants/{BOB}")["state"] == "active"


@contextmanager
def two_runtimes(place: Path) -> Iterator[tuple[KillingDaemon, KillingDaemon]]:
    """Two data directories on one bucket."""
    with ExitStack() as stack:
        pair = []
        for name in ("a", "b"):
            (place / name).mkdir()
            told = Story(name=name, pool=NONE, before=lambda _: None, told=lambda _: None)
            daemon = KillingDaemon(place / name, told.put(place / name), place / "bucket")
            daemon.start()
            stack.callback(end, daemon)
            pair.append(daemon)
        yield pair[0], pair[1]


def end(daemon: KillingDaemon) -> None:
    """Drop every tenant, and stop."""
    for tenant in daemon.client.get("/api/v1/tenants"):
        if tenant["state"] != "cold":
            daemon.client.post(f"/api/v1/tenants/{tenant['tenantId']}/release", {"sync": False, "affinity": False})
    daemon.stop()


def together(works: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_two_runtimes_have_one_winner(place: Path) -> None:
    """Both claim a tenant at the same moment: one has it, the other is told who; also when the winner is dead."""
    with two_runtimes(place) as pair:
        answers: list[object] = []

        def claim(daemon: KillingDaemon) -> None:
            try:
                answers.append(daemon.client.post("/api/v1/tenants/carol/claim", {"poolId": POOL})["containerId"])
            except ClawError as error:
                answers.append(type(error))

        together([lambda: claim(pair[0]), lambda: claim(pair[1])])

        assert answers.count(TenantLocked) == 1
        winner = next(one for one in pair if one.client.get("/api/v1/tenants/carol/status")["state"] == "active")
        loser = pair[1 - pair.index(winner)]
        winner.kill()
        with pytest.raises(TenantLocked):
            loser.client.post("/api/v1/tenants/carol/claim", {"poolId": POOL})
        winner.start()
        assert winner.client.get("/api/v1/tenants/carol/status")["state"] == "active"


def test_the_loser_of_a_tenant_is_fenced(place: Path) -> None:
    """A tenant is taken over while its first host's daemon is dead: that host comes back, cannot commit any more, and
    keeps what it has; the new host's words stand."""
    with two_runtimes(place) as (first, second):
        one, two = Outside(first, 1), Outside(second, 1)
        one.claim(ALICE)
        one.write(ALICE, OLD)
        one.sync(ALICE)
        one.write(ALICE, {"colour": "of the first"})
        first.kill()
        second.client.post(f"/api/v1/tenants/{one.named(ALICE)}/claim", {"poolId": POOL, "takeOver": True})
        two.write(ALICE, {"colour": "of the second"})
        first.start()

        with pytest.raises(Fenced):
            one.release(ALICE)
        two.release(ALICE)

        kept = first.layout.kept_tree(one.named(ALICE))  # type: ignore[arg-type]
        assert (kept / "colour").read_text() == "of the first"
        two.claim(ALICE)
        with Bench.looking(second) as looked:
            words = {MARKER: two.named(ALICE), "colour": "of the second", "memory/words": "old"}
            assert looked.lost(two.named(ALICE), words) == []
