"""Trouble of one tenant, or of one kind, that must not become everybody's: pools that are gone, logs that cannot be
read, errors that nobody foresaw."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from claw_runtime import logs
from claw_runtime.errors import ClawError, EngineFailed, EngineUnavailable, StoreUnavailable, UploadFailed
from claw_runtime.fsutil import write_new
from claw_runtime.ports import ContainerSpec, Image
from claw_runtime.spec import loader
from claw_runtime.tenancy import LABEL_CONTRACT, LABEL_OWNER, LABEL_SLOT, TenantId
from fakes.waiters import contract
from fakes.world import IMAGE, WORKLOAD, World

ALICE, BOB, CAROL = TenantId("alice"), TenantId("bob"), TenantId("carol")
POOL = "pool: {min_size: 2, max_size: 3, affinity_timeout: 0}"
FROZEN = WORKLOAD.replace(POOL, "pool: {max_size: 3, affinity_timeout: 60s, warmth: {created: 1, frozen: 2, tree: 2}}")
OTHER = WORKLOAD.replace("id: small", "id: large")
pytestmark = pytest.mark.world(workload=FROZEN)


def refuse(error: Exception) -> Any:
    def refusing(*_: object, **__: object) -> None:
        raise error

    return refusing


def claimed(world: World, *tenants: TenantId) -> None:
    for tenant in tenants:
        world.tenants.claim(tenant, "small")
        world.write(tenant, {"colour": "blue"})


def without_its_pool(world: World) -> None:
    """A new daemon that finds no workload file of the pool."""
    world.text = OTHER
    world.restart()


class TestPoolThatIsGone:
    """The workload file is removed by hand, and the daemon is started again."""

    def test_a_running_tenant_can_be_released(self, world: World) -> None:
        """Its state is committed, and nothing of it stays."""
        claimed(world, ALICE)
        without_its_pool(world)
        world.recover()
        assert world.row_state(ALICE) == "active"

        world.tenants.release(ALICE)

        assert world.saved(ALICE) == {"colour": "blue"}
        assert (world.row_state(ALICE), world.leftovers()) == ("cold", [])

    def test_a_tenant_that_ended_is_committed(self, world: World) -> None:
        """A container that has ended is no reason to keep its tenant's words from the store."""
        claimed(world, ALICE)
        world.engine.crash(world.tenants.find(ALICE)[1].container)  # type: ignore[union-attr, arg-type]
        without_its_pool(world)

        world.recover()

        assert world.saved(ALICE) == {"colour": "blue"}
        assert world.row_state(ALICE) == "cold"

    def test_after_a_reboot_too(self, world: World) -> None:
        """When no container is left to tell its image, the tenant's row does."""
        claimed(world, ALICE)
        world.engine.lose()
        without_its_pool(world)

        world.recover()

        assert world.saved(ALICE) == {"colour": "blue"}
        assert world.row_state(ALICE) == "cold"

    def test_a_frozen_tenant_is_ended(self, world: World) -> None:
        """Nobody can claim it any more: it is stopped and committed."""
        claimed(world, ALICE)
        world.tenants.release(ALICE)
        without_its_pool(world)
        world.recover()

        world.recovery.expire()

        assert world.row_state(ALICE) == "cold"
        assert world.leftovers() == []

    def test_a_kept_tree_reaches_the_store(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the store did not take is tried again all the same."""
        claimed(world, ALICE)
        with monkeypatch.context() as patch:
            patch.setattr(world.store, "put", refuse(StoreUnavailable("down")))
            with pytest.raises(UploadFailed):
                world.tenants.release(ALICE)
        without_its_pool(world)

        world.recovery.retry()

        assert world.row_state(ALICE) == "cold"
        assert world.saved(ALICE) == {"colour": "blue"}

    def test_what_is_not_wanted_can_be_dropped(self, world: World) -> None:
        """`release --no-sync` ends it as well."""
        claimed(world, ALICE)
        without_its_pool(world)
        world.recover()

        world.tenants.release(ALICE, sync=False)

        assert (world.row_state(ALICE), world.leftovers()) == ("cold", [])


def test_a_file_that_its_image_no_longer_suits_keeps_nobody(world: World) -> None:
    """A tenant still runs on an old image that does not offer what the file asks of the new one: it can be released."""
    claimed(world, ALICE)
    world.engine.add_image(IMAGE, labels={LABEL_CONTRACT: contract()})
    text = FROZEN.replace("frozen: 2", "prewarmed: 1")
    world.pools.put(loader.parse(text, Path("small.yaml")))

    world.tenants.release(ALICE)

    assert world.saved(ALICE) == {"colour": "blue"}


class TestOneOfMany:
    @pytest.mark.parametrize(
        "error", [EngineFailed("its log is damaged"), RuntimeError("nobody foresaw it"), sqlite3.OperationalError("no")]
    )
    @pytest.mark.parametrize("method", ["logs", "stop"])
    def test_an_ended_tenant_does_not_keep_others_from_their_end(
        self, world: World, monkeypatch: pytest.MonkeyPatch, method: str, error: Exception
    ) -> None:
        """Whatever fails for one whose container has ended, those after it are committed at the same look."""
        claimed(world, ALICE, BOB)
        of_alice = world.tenants.find(ALICE)[1].container  # type: ignore[union-attr]
        for tenant in (ALICE, BOB):
            world.engine.crash(world.tenants.find(tenant)[1].container)  # type: ignore[union-attr, arg-type]
        real = getattr(world.engine, method)

        def failing(container: str, *args: object, **options: object) -> object:
            if container == of_alice:
                raise error
            return real(container, *args, **options)

        monkeypatch.setattr(world.engine, method, failing)

        world.recovery.supervise()

        assert world.row_state(BOB) == "cold"
        assert world.saved(BOB) == {"colour": "blue"}

    @pytest.mark.parametrize("error", [EngineUnavailable("away"), RuntimeError("nobody foresaw it")])
    @pytest.mark.parametrize("method", ["inspect", "logs"])
    def test_a_daemon_starts_whatever_one_tenant_is(self, world: World, method: str, error: Exception) -> None:
        """Recovery goes on to the next tenant when one of them cannot even be looked at."""
        claimed(world, ALICE, BOB)
        for tenant in (ALICE, BOB):
            world.engine.crash(world.tenants.find(tenant)[1].container)  # type: ignore[union-attr, arg-type]
        world.restart()
        world.engine.fail(method, error)

        world.recovery.recover()

        assert world.row_state(BOB) == "cold"
        world.recovery.supervise()
        world.recovery.retry()
        assert world.row_state(ALICE) == "cold"
        assert world.saved(ALICE) == {"colour": "blue"}

    def test_a_rest_that_cannot_end_does_not_keep_others(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A frozen tenant whose end fails in a way that nobody foresaw is left for the next look, others are ended."""
        claimed(world, ALICE, BOB)
        for tenant in (ALICE, BOB):
            world.tenants.release(tenant)
        world.clock.advance(61)
        real, of_alice = world.engine.stop, world.tenants.find(ALICE)[1].container  # type: ignore[union-attr]

        def failing(container: str, timeout: int) -> int | None:
            if container == of_alice:
                raise RuntimeError("odd")
            return real(container, timeout)

        monkeypatch.setattr(world.engine, "stop", failing)

        world.recovery.expire()

        assert world.row_state(BOB) == "cold"


class TestOrphans:
    def test_containers_without_a_slot_all_go(self, world: World) -> None:
        """Containers that carry our name and no slot, or the same one, are removed, however many they are."""
        for number in range(3):
            labels = {LABEL_OWNER: world.owner} | ({LABEL_SLOT: "twice"} if number else {})
            world.engine.create(ContainerSpec(name=f"stray-{number}", image=IMAGE, labels=labels))

        world.pools.recover()

        assert world.engine.list(world.pools.owner_labels) == []


def test_a_number_after_a_crash_is_that_of_the_store(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that made no generation, and whose end a crash cut off, is not told as one more than there is."""
    claimed(world, ALICE)
    world.tenants.release(ALICE, affinity=False)
    world.tenants.claim(ALICE, "small")
    with monkeypatch.context() as patch:
        patch.setattr(world.releaser, "_leave", refuse(ClawError("killed")))
        with pytest.raises(ClawError):
            world.tenants.release(ALICE, affinity=False)
    world.restart()

    world.recover()

    row, _ = world.tenants.find(ALICE)
    assert (row.state, row.base) == ("cold", 1)


class Killed(BaseException):
    """SIGKILL: nothing of ours may catch it."""


def killed_at_a_note(world: World, monkeypatch: pytest.MonkeyPatch, **columns: object) -> pytest.MonkeyPatch:
    """The daemon is killed just before the ledger notes these columns."""
    real = world.ledger.note

    def noting(tenant: TenantId, **noted: Any) -> None:
        if columns.items() <= noted.items():
            raise Killed
        real(tenant, **noted)

    monkeypatch.setattr(world.ledger, "note", noting)
    return monkeypatch


def test_two_kills_take_no_commit_for_another_hosts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed when a sync had landed and was not noted, and again with a new lease in hand: nothing is fenced."""
    claimed(world, ALICE)
    with monkeypatch.context() as patch:
        killed_at_a_note(world, patch, step="", base=1)
        with pytest.raises(Killed):
            world.tenants.sync(ALICE)
    world.restart()
    world.recover()
    world.write(ALICE, {"colour": "green"})
    with monkeypatch.context() as patch:
        killed_at_a_note(world, patch, step="lease")
        with pytest.raises(Killed):
            world.tenants.release(ALICE)
    world.restart()

    world.recover()

    assert world.row_state(ALICE) == "cold"
    assert world.saved(ALICE) == {"colour": "green"}


def test_a_secret_that_cannot_be_read_keeps_nobody(world: World) -> None:
    """A release needs no secret: one that was spoilt since the claim does not keep the state from the store."""
    world.engine.add_image(IMAGE, labels={LABEL_CONTRACT: contract()})
    claimed(world, ALICE)
    spoilt = world.layout.secrets(ALICE) / "OPENROUTER_API_KEY"
    spoilt.mkdir(parents=True)

    world.tenants.release(ALICE, affinity=False)

    assert world.saved(ALICE) == {"colour": "blue"}


def test_a_workload_that_changes_in_a_look_is_not_hidden_by_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is put while the reconciler asks for the image of the old one is what the next claim runs."""
    world.pools.keep()
    new = loader.parse(FROZEN.replace("container: 8080", "container: 9090"), Path("small.yaml"))
    real = world.engine.image

    def asked(reference: str) -> Image:
        found = real(reference)
        monkeypatch.setattr(world.engine, "image", real)
        world.pools.put(new)
        return found

    monkeypatch.setattr(world.engine, "image", asked)
    world.pools._templates.now("small")

    world.tenants.claim(ALICE, "small")

    assert world.engine.spec(world.tenants.find(ALICE)[1].container).port == 9090  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("restarted", [True, False])
def test_last_words_are_told_without_secrets(world: World, monkeypatch: pytest.MonkeyPatch, restarted: bool) -> None:
    """What a program printed before it ended is told in its status, but not the secrets in it: not after a restart
    either, when nobody has read them yet."""
    world.engine.add_image(IMAGE, labels={LABEL_CONTRACT: contract()})
    secret = world.layout.secrets(ALICE) / "OPENROUTER_API_KEY"
    secret.parent.mkdir(mode=0o700, parents=True)
    write_new(secret, b"plain-as-day-1234")
    claimed(world, ALICE)
    container = world.tenants.find(ALICE)[1].container  # type: ignore[union-attr]
    world.engine.say(container, b"I cannot use plain-as-day-1234 any more\n")  # type: ignore[arg-type]
    world.engine.crash(container)  # type: ignore[arg-type]
    monkeypatch.setattr(logs, "_known", {})

    if restarted:
        world.restart()
        world.recover()
    else:
        world.recovery.supervise()

    row, _ = world.tenants.find(ALICE)
    assert "I cannot use [redacted] any more" in row.error
    assert "plain-as-day" not in str(world.events.newest())
