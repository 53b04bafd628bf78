"""Pools on real Podman: tiers, many claims at once, processes that are killed while they wait, and a new daemon."""

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from claw_runtime.clock import SystemClock
from claw_runtime.db.ledger import SqliteLedger
from claw_runtime.engine.podman import PodmanEngine
from claw_runtime.pools import start_gate
from claw_runtime.pools.pools import Allocation, Pools
from claw_runtime.pools.templates import SlotTemplates
from claw_runtime.spec import loader
from claw_runtime.tenancy import LABEL_SLOT, Layout, TenantId
from fakes.waiters import contract

pytestmark = pytest.mark.podman


class Host:
    """Pools over Podman, whose waiting processes are the small image's; `restart` is a new daemon after SIGKILL."""

    def __init__(self, engine: PodmanEngine, layout: Layout, image: str) -> None:
        self.engine, self.layout, self._image = engine, layout, image
        self.ledger = SqliteLedger(layout.ledger)
        promise = json.loads(contract())
        promise["ports"]["gateway"] = 8080
        (layout.home / "contract.json").write_text(json.dumps(promise))
        self.pools = self.serve("max_size: 4, min_size: 0")

    def serve(self, sizes: str, *, image: str = "", more: str = "network: none\n") -> Pools:
        """Pools of one workload, as a daemon begins with them."""
        text = (
            f"id: small\nimage: {image or self._image}\ncontract: contract.json\npool: {{{sizes}}}\n"
            f"healthcheck: {{timeout: 20s}}\n{more}"
        )
        document = loader.parse(text, self.layout.home / "small.yaml")
        self.pools = Pools(
            engine=self.engine,
            ledger=self.ledger,
            layout=self.layout,
            clock=SystemClock(),
            templates=SlotTemplates(
                engine=self.engine,
                ledger=self.ledger,
                layout=self.layout,
                owner=self.layout.home.parent.name,
                documents={"small": document},
                drop_limits=True,
            ),
        )
        return self.pools

    def restart(self, sizes: str) -> Pools:
        self.ledger.close()
        self.ledger = SqliteLedger(self.layout.ledger)
        self.serve(sizes)
        self.pools.recover()
        return self.pools

    def take(self, tenant: str, **options: float) -> Allocation:
        self.ledger.begin_claim(TenantId(tenant), "small", 0.0)
        return self.pools.take("small", TenantId(tenant), **options)  # type: ignore[arg-type]

    def ran(self, taken: Allocation) -> bool:
        """Whether the tenant's program has run in its slot."""
        starts = self.layout.slot(taken.slot.id).state / "starts"
        return starts.exists() and starts.read_text() == "start\n"

    def ready(self) -> Counter[str]:
        return Counter(row.tier for row in self.ledger.slots() if row.state == "ready")


@pytest.fixture
def host(engine: PodmanEngine, layout: Layout, small_image: str) -> Iterator[Host]:
    made = Host(engine, layout, small_image)
    yield made
    made.pools.drain()
    for row in made.ledger.slots():
        made.pools.destroy(row.id)
    made.ledger.close()


def wait_for(what: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.002)


ALL = "max_size: 6, warmth: {created: 1, entrypoint: 1, interpreter: 1, prewarmed: 1}"


class TestTiers:
    def test_each_tier_waits_and_begins(self, host: Host) -> None:
        """Slots of all tiers wait with an empty state, and each runs its tenant's program once it is told to."""
        host.serve(ALL).keep()
        assert host.ready() == {"created": 1, "entrypoint": 1, "interpreter": 1, "prewarmed": 1}
        assert list(host.layout.slots.glob("*/*/*")) == []

        taken = [host.take(f"t{number}") for number in range(5)]
        for one in taken:
            host.pools.start(one.slot)
            wait_for(lambda one=one: host.ran(one))

        assert [one.source for one in taken] == ["prewarmed", "interpreter", "entrypoint", "created", "cold"]

    def test_published_port_answers(self, host: Host) -> None:
        """A slot's port is known before its tenant is, and answers after its gate is opened."""
        import urllib.request

        host.serve("max_size: 2, warmth: {entrypoint: 1}", more="network: private\n").keep()
        taken = host.take("t")

        host.pools.start(taken.slot)
        wait_for(lambda: host.ran(taken))
        time.sleep(0.2)

        with urllib.request.urlopen(f"http://127.0.0.1:{taken.slot.port}/healthz", timeout=5) as answer:
            assert answer.read() == b"ok\n"

    @pytest.mark.timed
    def test_waiting_process_ends_at_once(self, host: Host) -> None:
        """A process at its gate heeds SIGTERM, and a pool that ends leaves nothing of it."""
        host.serve(ALL).keep()
        [row] = [row for row in host.ledger.slots() if row.tier == "entrypoint"]
        start = time.monotonic()

        host.engine.stop(row.container or "", 10)

        ended = host.engine.inspect(row.container or "")
        assert ended is not None
        assert ended.exit_code == 0
        assert time.monotonic() - start < 5
        host.pools.drain()
        assert host.ledger.slots() == []
        assert host.engine.list(host.pools.owner_labels) == []


class TestMany:
    def test_twenty_claims_at_once(self, host: Host) -> None:
        """Twenty claims at the same moment get twenty containers, warm ones as long as there are any."""
        host.serve("max_size: 20, warmth: {created: 4, entrypoint: 4}, fill_concurrency: 2").keep()
        taken: list[Allocation] = []

        def claim(number: int) -> None:
            one = host.take(f"t{number}")
            host.pools.start(one.slot)
            taken.append(one)

        threads = [threading.Thread(target=claim, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)

        assert Counter(one.source for one in taken) == {"entrypoint": 4, "created": 4, "cold": 12}
        assert len({one.slot.container for one in taken}) == 20
        wait_for(lambda: all(host.ran(one) for one in taken))


class TestTrouble:
    def test_killed_process_is_not_given_and_replaced(self, host: Host) -> None:
        """A waiting process that is killed is never handed to a claim, and the reconciler makes another."""
        host.serve("max_size: 5, warmth: {created: 1, entrypoint: 2}, fill_concurrency: 1").keep()
        first, second = [row for row in host.ledger.slots() if row.tier == "entrypoint"]
        kill(host, first.container or "")

        taken = host.take("t")
        assert (taken.slot.id, host.ledger.slot(first.id)) == (second.id, None)
        host.pools.keep()
        assert host.ready() == {"created": 1, "entrypoint": 2}

        [row, _] = [row for row in host.ledger.slots() if row.tier == "entrypoint" and row.state == "ready"]
        kill(host, row.container or "")
        host.pools.keep()
        assert host.ready() == {"created": 1, "entrypoint": 2}
        assert host.ledger.slot(row.id) is None

    def test_process_that_cannot_wait(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        """A process that ends before it comes to its gate leaves nothing, says why, and is tried again later only."""
        monkeypatch.setattr(start_gate, "make", lambda values: None)
        host.serve("max_size: 2, warmth: {created: 1, entrypoint: 1}")

        host.pools.keep()
        host.pools.keep()

        status = host.pools.show("small")
        assert host.ready() == {"created": 1}
        assert "before it was ready to be claimed" in status.error
        assert len(host.engine.list(host.pools.owner_labels)) == 1
        # conmon sometimes loses the output of a process that ends at once (LOOKS_FOR_WORDS); a later attempt has it.
        wait_for(lambda: host.pools.keep() or "/run/claw/door" in host.pools.show("small").error, 60)
        assert len(host.engine.list(host.pools.owner_labels)) == 1

    def test_missing_image(self, host: Host) -> None:
        """A pool without an image says so, and asks again only after a while."""
        host.serve("max_size: 2", image="localhost/claw-test-none:1").keep()

        assert "claw-test-none" in host.pools.show("small").error


class TestRestart:
    def test_slots_that_wait_are_used_on(self, host: Host) -> None:
        """A new daemon takes over what waits, in every tier, and removes what does not."""
        host.serve(ALL).keep()
        [dead] = [row for row in host.ledger.slots() if row.tier == "interpreter"]
        kill(host, dead.container or "")
        before = {row.id for row in host.ledger.slots()} - {dead.id}

        host.restart(ALL)

        assert {row.id for row in host.ledger.slots()} == before
        assert {path.name for path in host.layout.slots.iterdir()} == before
        taken = host.take("t")
        host.pools.start(taken.slot)
        wait_for(lambda: host.ran(taken))
        assert taken.source == "prewarmed"

    def test_ledger_that_forgot(self, host: Host) -> None:
        """Containers and directories that no row explains are removed."""
        host.serve(ALL).keep()
        for row in host.ledger.slots():
            host.ledger.drop_slot(row.id)

        host.restart(ALL)

        assert host.engine.list(host.pools.owner_labels) == []
        assert list(host.layout.slots.iterdir()) == []
        assert list((host.layout.run / "slots").iterdir()) == []


def kill(host: Host, container: str) -> None:
    """SIGKILL the container's first process, and wait until all of its processes have left the start_gate."""
    seen = host.engine.inspect(container)
    assert seen is not None
    os.kill(seen.pid, signal.SIGKILL)
    values = host.layout.slot(seen.labels[LABEL_SLOT]).values
    wait_for(lambda: not start_gate.waits(values))
