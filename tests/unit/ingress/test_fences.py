"""While a container is ended or replaced, its clients' requests are held; those that wait then wake their tenant."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from claw_runtime.db.upgrades import SqliteUpgrades
from claw_runtime.errors import HookFailed, UploadFailed
from claw_runtime.tenancy import TenantId
from claw_runtime.upgrades.upgrades import Upgrades
from fakes.ingress import Host
from fakes.router import FakeRouter, until
from fakes.world import IMAGE, WORKLOAD

ALICE = TenantId("alice")
NEW = "localhost/small:new"
HOOKED = WORKLOAD + 'hooks: {pre_release: [{command: ["false"]}]}\n'


@pytest.fixture
def router(host: Host) -> FakeRouter:
    host.tenants.claim(ALICE, "small")
    return host.connect()


def states(host: Host) -> list[tuple[str, bool]]:
    """What the engine is asked for, with whether the router then holds alice's requests."""
    seen: list[tuple[str, bool]] = []
    for name in ("stop", "start"):
        real = getattr(host.engine, name)

        def noted(*args: object, _real=real, _name: str = name, **named: object) -> object:
            assert host.router is not None
            seen.append((_name, bool(host.router.route("alice").get("fenced"))))
            return _real(*args, **named)

        setattr(host.engine, name, noted)
    return seen


def test_a_release_stops_nothing_before_the_router_holds(host: Host, router: FakeRouter) -> None:
    """A request that came a moment later would be cut off."""
    seen = states(host)
    host.tenants.release(ALICE)
    assert seen == [("stop", True)]
    host.ingress.changed()
    until(lambda: not router.route("alice")["fenced"])
    assert router.route("alice")["rung"] == "cold"


def test_a_request_that_comes_within_a_release_wakes_the_tenant_after_it(host: Host, router: FakeRouter) -> None:
    """It is not lost, and the release is not disturbed."""
    real = host.engine.stop

    def stop(*args: object, **named: object) -> object:
        router.say({"wake": {"tenant": "alice", "trigger": "http"}})
        until(lambda: host.wakes._wanted)
        assert host.row_state("alice") == "releasing"
        return real(*args, **named)

    host.engine.stop = stop  # type: ignore[method-assign, assignment]
    host.tenants.release(ALICE)
    until(lambda: "woken" in host.heard("alice"))
    assert [word for word in host.heard("alice").split() if word in ("released", "woken")] == ["released", "woken"]


def test_a_release_that_is_refused_opens_again(directory: Path) -> None:
    """The tenant keeps running, and its clients reach it."""
    host = Host(directory, HOOKED)
    host.tenants.claim(ALICE, "small")
    router = host.connect()
    with pytest.raises(HookFailed):
        host.tenants.release(ALICE)
    host.ingress.changed()
    until(lambda: not router.route("alice")["fenced"])
    assert router.route("alice")["address"]
    host.close()


class TestUpgrades:
    @pytest.fixture
    def upgrades(self, host: Host) -> Iterator[Upgrades]:
        host.engine.add_image(NEW)
        made = Upgrades(host.host, tenants=host.tenants, store=SqliteUpgrades(host.ledger.database), prober=host.prober)
        yield made
        made.stop(5)

    def test_its_clients_claim_no_tenant_that_moves(self, host: Host, router: FakeRouter, upgrades: Upgrades) -> None:
        """From the end of the earlier container to the new one's first readiness it is one fence."""
        seen = states(host)
        upgrades.begin("small", NEW, soak=0.0)
        upgrades.run("small")
        assert [fenced for _, fenced in seen[:2]] == [True, True]
        host.ingress.changed()
        until(lambda: router.route("alice")["address"] and not router.route("alice")["fenced"])

    def test_a_tenant_that_goes_back_is_held_too(self, host: Host, router: FakeRouter, upgrades: Upgrades) -> None:
        """It runs again on its earlier image before the first request reaches it."""
        new = host.engine.image(NEW).id
        host.engine.started = lambda spec: setattr(
            host.prober, "always", (503, b"{}") if spec.image == new else (200, b"{}")
        )
        upgrades.begin("small", NEW, soak=0.0)
        upgrades.run("small")
        assert upgrades.progress("small").upgrade.state == "failed"
        host.ingress.changed()
        until(lambda: router.route("alice")["address"] and not router.route("alice")["fenced"])
        row = host.ledger.tenant(ALICE)
        assert row is not None
        assert row.proven == host.engine.image(IMAGE).id


def test_a_release_whose_upload_fails_opens_again(host: Host, router: FakeRouter) -> None:
    """Its tree is kept here: the next request claims it with what it wrote."""
    host.write("alice", {"a": "1"})
    real, host.store.put = host.store.put, _refuse  # type: ignore[method-assign, assignment]
    with pytest.raises(UploadFailed):
        host.tenants.release(ALICE)
    host.store.put = real  # type: ignore[method-assign]
    router.say({"wake": {"tenant": "alice", "trigger": "http"}})
    until(lambda: host.row_state("alice") == "active")
    assert (host.state("alice") / "a").read_text() == "1"


def _refuse(*_args: object, **_named: object) -> None:
    from claw_runtime.errors import StoreUnavailable

    raise StoreUnavailable("the store is away")
