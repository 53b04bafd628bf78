"""Claim and release over a fake engine and a memory store; every failure and crash point by itself."""

import errno
import itertools
import json
import os
import threading
from operator import attrgetter
from pathlib import Path
from types import ModuleType

import pytest
from claw_runtime.errors import (
    ClawError,
    DiskFull,
    EngineFailed,
    Fenced,
    NotClaimed,
    NotReady,
    PoolExhausted,
    RestoreFailed,
    StoreUnavailable,
    TenantLocked,
    UnknownPool,
    UploadFailed,
)
from claw_runtime.pools import slots as slots_module
from claw_runtime.ports import ObjectStore
from claw_runtime.tenancy import Keys, TenantId
from claw_runtime.tenants import trees as trees_module
from fakes.world import IMAGE, WORKLOAD, World

ALICE, BOB = TenantId("alice"), TenantId("bob")
pytestmark = pytest.mark.world(filled=True)


class Cut:
    """A store whose calls fail while `reason` is set; `only` limits that to some methods."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.url = store.url
        self.reason: ClawError | None = None
        self.only = ("get", "get_range", "put", "delete", "list")

    def __getattr__(self, name: str) -> object:
        if self.reason and name in self.only:
            raise self.reason
        return getattr(self._store, name)


@pytest.fixture
def cut(world: World) -> Cut:
    """The world's store, from now on with a switch."""
    world.store = Cut(world.store)  # type: ignore[assignment]
    world.restart()
    return world.store  # type: ignore[return-value]


def down() -> StoreUnavailable:
    return StoreUnavailable("the store is down", why="test")


def remembered(world: World, tenant: TenantId = ALICE) -> None:
    """Give the tenant a first generation with one file."""
    world.tenants.claim(tenant, "small")
    world.write(tenant, {"memory/colour.txt": "blue"})
    world.tenants.release(tenant)
    world.pools.keep()


class TestClaim:
    def test_new_tenant_gets_a_warm_slot_and_an_empty_state(self, world: World) -> None:
        """A tenant without state gets a slot made ahead and generation 0."""
        claim = world.tenants.claim(ALICE, "small")

        assert (claim.source, claim.generation, claim.already) == ("created", 0, False)
        assert list(world.state(ALICE).iterdir()) == []

    def test_image_is_named_by_its_digest(self, world: World) -> None:
        """The answer and the generation say which image ran, also after its name went to another."""
        ran = world.engine.image(IMAGE).digest
        claim = world.tenants.claim(ALICE, "small")
        world.write(ALICE, {"a": "b"})
        world.engine.add_image("other")
        world.engine.add_image(IMAGE)

        again = world.tenants.claim(ALICE, "small")
        world.tenants.release(ALICE)

        assert (claim.image, again.image, world.repository.generations.manifest(ALICE).image) == (ran, ran, ran)

    def test_state_returns_in_another_container(self, world: World) -> None:
        """What a tenant wrote before a release is there after the next claim, in a container of its own."""
        first = world.tenants.claim(ALICE, "small")
        world.write(ALICE, {"memory/colour.txt": "blue"})
        world.tenants.release(ALICE)

        second = world.tenants.claim(ALICE, "small")

        assert second.generation == 1
        assert second.container != first.container
        assert (world.state(ALICE) / "memory/colour.txt").read_text() == "blue"

    def test_tenants_see_only_their_own(self, world: World) -> None:
        """Another tenant's claim brings nothing of the first one's."""
        remembered(world)

        world.tenants.claim(BOB, "small")

        assert list(world.state(BOB).iterdir()) == []

    def test_second_claim_keeps_the_container(self, world: World) -> None:
        """A claim of a claimed tenant answers with the same container and says so."""
        first = world.tenants.claim(ALICE, "small")

        again = world.tenants.claim(ALICE, "small")

        assert (again.container, again.already, again.source) == (first.container, True, "active")

    def test_concurrent_claims_give_one_container(self, world: World) -> None:
        """Sixteen claims of one tenant at once end with one container."""
        answers: list[str] = []
        threads = [
            threading.Thread(target=lambda: answers.append(world.tenants.claim(ALICE, "small").container))
            for _ in range(16)
        ]

        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(answers) == 16
        assert len(set(answers)) == 1

    def test_unknown_pool_is_refused(self, world: World) -> None:
        """A pool without a workload is named, together with those that exist."""
        with pytest.raises(UnknownPool, match="there is no pool 'large'") as caught:
            world.tenants.claim(ALICE, "large")

        assert "small" in caught.value.why

    def test_full_pool_is_refused_and_leaves_nothing(self, world: World) -> None:
        """At max_size a claim is refused, and the tenant stays cold."""
        for tenant in ("a", "b", "c"):
            world.tenants.claim(TenantId(tenant), "small")

        with pytest.raises(PoolExhausted):
            world.tenants.claim(ALICE, "small")

        assert world.row_state(ALICE) == "cold"
        assert world.leftovers() == []

    def test_empty_pool_makes_a_slot_on_the_spot(self, tmp_path: Path) -> None:
        """Without a ready slot a claim makes one, and says `cold`."""
        world = World(tmp_path)

        assert world.tenants.claim(ALICE, "small").source == "cold"
        world.close()

    def test_phases_are_reported(self, world: World) -> None:
        """The answer names each phase, in the order of the way."""
        assert list(world.tenants.claim(ALICE, "small").phases) == [
            "slot",
            "lease",
            "restore",
            "values",
            "start",
            "ready",
        ]

    def test_dead_container_is_settled_first(self, world: World) -> None:
        """When the container ended by itself, the next claim commits its tree and starts from that."""
        first = world.tenants.claim(ALICE, "small")
        world.write(ALICE, {"last": "words"})
        world.engine.crash(first.container)

        second = world.tenants.claim(ALICE, "small")

        assert second.generation == 1
        assert (world.state(ALICE) / "last").read_text() == "words"
        assert second.container != first.container


class TestFailedClaim:
    def test_unreachable_store_starts_nothing(self, world: World, cut: Cut) -> None:
        """Without the store there is no claim, no running container, and nothing left over."""
        cut.reason = down()

        with pytest.raises(StoreUnavailable):
            world.tenants.claim(ALICE, "small")

        assert "start" not in world.engine.calls
        assert world.row_state(ALICE) == "cold"
        assert world.leftovers() == []

    def test_corrupt_state_starts_nothing_and_stays(self, world: World) -> None:
        """A pack that is not what its digest says ends the claim; the store keeps what it had."""
        remembered(world)
        keys = [info.key for info in world.store.list(Keys(ALICE).prefix + "packs/")]
        before = world.engine.calls.count("start")
        for key in keys:
            data, _ = world.store.get(key)
            world.store.put(key, bytes([data[0] ^ 1]) + data[1:])

        with pytest.raises(RestoreFailed):
            world.tenants.claim(ALICE, "small")

        assert world.engine.calls.count("start") == before
        assert world.leftovers() == []

    def test_full_disk_starts_nothing(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """No room for the restore is its own error, and the tenant stays cold."""
        remembered(world)
        before = world.engine.calls.count("start")

        def full(*_: object) -> None:
            raise DiskFull("no room")

        monkeypatch.setattr(world.repository.restorer, "restore", full)
        with pytest.raises(DiskFull):
            world.tenants.claim(ALICE, "small")

        assert world.engine.calls.count("start") == before
        assert (world.row_state(ALICE), world.leftovers()) == ("cold", [])

    def test_a_disk_that_fills_up_later_is_reported_as_such(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever step finds no room, the error is the same and nothing is left."""

        full = OSError(errno.ENOSPC, "No space left on device")
        monkeypatch.setattr(world.claimer._trees, "logs_into_slot", _raise(full))
        with pytest.raises(DiskFull, match="no room to claim"):
            world.tenants.claim(ALICE, "small")

        assert "start" not in world.engine.calls
        assert (world.row_state(ALICE), world.leftovers()) == ("cold", [])

    def test_tenant_of_another_runtime_is_locked(self, world: World, tmp_path: Path) -> None:
        """A tenant that another host holds is refused, and taken only when told."""
        other = World(tmp_path / "other", store=world.store, owner="host-b")
        other.tenants.claim(ALICE, "small")

        with pytest.raises(TenantLocked):
            world.tenants.claim(ALICE, "small")

        assert world.tenants.claim(ALICE, "small", take_over=True).already is False
        other.close()

    def test_workload_that_never_answers_is_stopped(self, world: World) -> None:
        """A workload that is not ready in its time ends the claim; its slot is gone."""
        world.prober.always = (503, b'{"failing": ["database"]}')

        with pytest.raises(NotReady, match="not ready after 5") as caught:
            world.tenants.claim(ALICE, "small")

        assert "503" in caught.value.why
        assert (world.row_state(ALICE), world.leftovers()) == ("cold", [])

    def test_what_a_failed_start_wrote_is_committed(self, world: World) -> None:
        """The workload ran, so what it wrote before it failed becomes a generation: nothing is lost."""
        remembered(world)
        world.prober.always = None
        world.engine.started = lambda spec: (spec.binds[0].source / "diary").write_text("it hurts")

        with pytest.raises(NotReady):
            world.tenants.claim(ALICE, "small")

        assert world.saved(ALICE) == {"memory/colour.txt": "blue", "diary": "it hurts"}

    def test_workload_that_ends_tells_its_last_words(self, world: World) -> None:
        """The error carries exit code and log of a workload that ended at once."""

        def end(spec: object) -> None:
            name = spec.name  # type: ignore[attr-defined]
            world.engine.say(name, b"no such model\n")
            world.engine.crash(name, 78)

        world.engine.started = end
        world.prober.always = None

        with pytest.raises(NotReady) as caught:
            world.tenants.claim(ALICE, "small")

        assert "exit code 78" in caught.value.why
        assert "no such model" in caught.value.why


class TestValues:
    CONTRACT = Path(__file__).parents[3] / "images/openclaw-nix/contract.json"

    def test_values_reach_the_slot_as_a_private_file(self, tmp_path: Path) -> None:
        """Allowlisted values and the generated token are in a 0600 file, and in no container environment."""
        text = (
            "id: small\nimage: localhost/small:dev\n"
            f"contract: {self.CONTRACT}\nenvironment: {{CLAW_MODEL_ID: 'm-${{tenantId}}', TZ: UTC}}\n"
        )
        world = World(tmp_path, workload=text)

        claim = world.tenants.claim(ALICE, "small")

        slot = world.ledger.slots()[0].id
        file = world.layout.slot(slot).values / "values.json"
        values = json.loads(file.read_text())["values"]
        assert file.stat().st_mode & 0o777 == 0o600
        assert values["CLAW_MODEL_ID"] == "m-alice"
        assert claim.token_file is not None
        assert values["OPENCLAW_GATEWAY_TOKEN"] == claim.token_file.read_text()
        assert world.engine.spec(claim.container).environment == {"TZ": "UTC"}
        world.close()

    def test_token_stays_the_same(self, tmp_path: Path) -> None:
        """A tenant's generated token survives release and claim."""
        world = World(tmp_path, workload=f"id: small\nimage: localhost/small:dev\ncontract: {self.CONTRACT}\n")
        files = [world.tenants.claim(ALICE, "small").token_file]
        tokens = [files[0].read_text()]  # type: ignore[union-attr]
        world.write(ALICE, {"a": "b"})
        world.tenants.release(ALICE)

        tokens.append(world.tenants.claim(ALICE, "small").token_file.read_text())  # type: ignore[union-attr]

        assert tokens[0] == tokens[1]
        world.close()


class TestRelease:
    def test_release_seals_a_generation_and_clears_the_host(self, world: World) -> None:
        """After a release the store has the tree and this host has nothing of it."""
        world.tenants.claim(ALICE, "small")
        world.write(ALICE, {"memory/colour.txt": "blue"})

        release = world.tenants.release(ALICE)

        assert release.generation is not None
        assert release.generation.number == 1
        assert world.saved(ALICE) == {"memory/colour.txt": "blue"}
        assert world.kept(ALICE) == {}
        assert world.leftovers() == []

    def test_old_logs_are_removed(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A tenant's logs have a bound on this host: with each release, its oldest files go."""
        monkeypatch.setattr(trees_module, "LOG_BYTES", 2 * 4096)
        for at, name in enumerate(("first", "second", "third")):
            world.tenants.claim(ALICE, "small")
            slot = world.ledger.tenant(ALICE).slot  # type: ignore[union-attr]
            path = world.layout.slot(slot or "").logs / name
            path.write_bytes(b"x" * 4096)
            os.utime(path, (at, at))
            world.tenants.release(ALICE)
        assert {path.name for path in world.layout.logs(ALICE).iterdir()} == {"second", "third"}

    def test_logs_stay_with_their_tenant(self, world: World) -> None:
        """What a workload logs is kept on this host and is there again at the next claim."""
        world.tenants.claim(ALICE, "small")
        slot = world.ledger.tenant(ALICE).slot  # type: ignore[union-attr]
        (world.layout.slot(slot or "").logs / "app.log").write_text("hello\n")
        world.write(ALICE, {"a": "b"})
        world.tenants.release(ALICE)

        world.tenants.claim(ALICE, "small")

        slot = world.ledger.tenant(ALICE).slot  # type: ignore[union-attr]
        assert (world.layout.slot(slot or "").logs / "app.log").read_text() == "hello\n"

    def test_log_names_that_meet_are_both_kept(self, world: World) -> None:
        """A log whose name is taken among the saved ones goes beside them, and the release goes on."""
        world.tenants.claim(ALICE, "small")
        slot = world.ledger.tenant(ALICE).slot  # type: ignore[union-attr]
        (world.layout.slot(slot or "").logs / "app.log").write_text("new")
        world.layout.logs(ALICE).mkdir(parents=True)
        (world.layout.logs(ALICE) / "app.log").write_text("old")

        world.tenants.release(ALICE)

        texts = {path.read_text() for path in world.layout.logs(ALICE).rglob("*.log")}
        assert (texts, world.row_state(ALICE)) == ({"new", "old"}, "cold")

    @pytest.mark.parametrize("prepare", [False, True])
    def test_release_of_an_unclaimed_tenant_is_an_error(self, world: World, prepare: bool) -> None:
        """A tenant that holds nothing cannot be released, whether it was ever claimed or not."""
        if prepare:
            remembered(world)

        with pytest.raises(NotClaimed):
            world.tenants.release(ALICE)

    def test_without_sync_changes_are_dropped(self, world: World) -> None:
        """`--no-sync` goes back to the last generation, and gives the lease back."""
        remembered(world)
        world.tenants.claim(ALICE, "small")
        world.write(ALICE, {"memory/colour.txt": "red"})

        release = world.tenants.release(ALICE, sync=False)

        assert release.generation is None
        assert world.saved(ALICE) == {"memory/colour.txt": "blue"}
        head = world.repository.generations.head(ALICE)
        assert head is not None
        assert head.owner is None

    def test_failed_upload_keeps_the_tree(self, world: World, cut: Cut) -> None:
        """When the store is down the tree stays on this host, the error says where, and the slot is gone."""
        world.tenants.claim(ALICE, "small")
        world.write(ALICE, {"memory/colour.txt": "blue"})
        cut.reason = down()

        with pytest.raises(UploadFailed, match="nothing is lost") as caught:
            world.tenants.release(ALICE)

        assert str(world.layout.kept_tree(ALICE)) in caught.value.hint
        assert world.kept(ALICE) == {"memory/colour.txt": "blue"}
        assert (world.row_state(ALICE), world.leftovers()) == ("kept", [])

    def test_kept_tree_is_committed_later(self, world: World, cut: Cut) -> None:
        """The daemon tries a kept tree again until the store takes it."""
        self.test_failed_upload_keeps_the_tree(world, cut)
        world.recovery.retry()
        assert world.row_state(ALICE) == "kept"
        cut.reason = None

        world.recovery.retry()

        assert (world.row_state(ALICE), world.kept(ALICE)) == ("cold", {})
        assert world.saved(ALICE) == {"memory/colour.txt": "blue"}

    def test_kept_tree_is_used_by_the_next_claim(self, world: World, cut: Cut) -> None:
        """A claim of a kept tenant goes on with the kept tree, not with the older generation."""
        remembered(world)
        world.tenants.claim(ALICE, "small")
        world.write(ALICE, {"memory/colour.txt": "green"})
        cut.reason, cut.only = down(), ("put",)
        with pytest.raises(UploadFailed):
            world.tenants.release(ALICE)
        cut.reason = None

        claim = world.tenants.claim(ALICE, "small")

        assert claim.generation == 1
        assert (world.state(ALICE) / "memory/colour.txt").read_text() == "green"

    def test_kept_tree_survives_a_failed_claim(self, world: World, cut: Cut) -> None:
        """A claim that fails after it moved the kept tree into a slot moves it back."""
        self.test_failed_upload_keeps_the_tree(world, cut)
        cut.reason = None
        world.pools.keep()
        (world.layout.secrets(ALICE)).parent.mkdir(parents=True, exist_ok=True)
        world.claimer._hand_over = _raise(EngineFailed("no"))  # type: ignore[method-assign]

        with pytest.raises(EngineFailed):
            world.tenants.claim(ALICE, "small")

        assert world.kept(ALICE) == {"memory/colour.txt": "blue"}
        assert (world.row_state(ALICE), world.leftovers()) == ("kept", [])

    def test_kept_tree_that_was_moved_away_is_forgotten(self, world: World, cut: Cut, tmp_path: Path) -> None:
        """When the operator moves a kept tree away, the next claim starts from the store."""
        remembered(world)
        world.tenants.claim(ALICE, "small")
        world.write(ALICE, {"memory/colour.txt": "green"})
        cut.reason = down()
        with pytest.raises(UploadFailed):
            world.tenants.release(ALICE)
        cut.reason = None
        world.layout.kept_tree(ALICE).rename(tmp_path / "moved")

        world.tenants.claim(ALICE, "small")

        assert (world.state(ALICE) / "memory/colour.txt").read_text() == "blue"

    def test_overtaken_runtime_is_fenced_and_keeps_its_tree(self, world: World, tmp_path: Path) -> None:
        """After another host took the tenant, this one's commit is refused and its tree kept; HEAD is untouched."""
        remembered(world)
        world.tenants.claim(ALICE, "small")
        world.write(ALICE, {"memory/colour.txt": "stale"})
        other = World(tmp_path / "other", store=world.store, owner="host-b")
        other.tenants.claim(ALICE, "small", take_over=True)
        other.write(ALICE, {"memory/colour.txt": "fresh"})
        other.tenants.release(ALICE)

        with pytest.raises(Fenced):
            world.tenants.release(ALICE)

        assert other.saved(ALICE) == {"memory/colour.txt": "fresh"}
        assert world.kept(ALICE) == {"memory/colour.txt": "stale"}
        world.recovery.retry()
        assert other.saved(ALICE) == {"memory/colour.txt": "fresh"}
        other.close()


def _raise(error: Exception) -> object:
    def fail(*_: object) -> None:
        raise error

    return fail


class Killed(BaseException):
    """SIGKILL: nothing of ours may catch it."""


CLAIM_STEPS = [
    ("ledger", "begin_claim"), ("ledger", "take_slot"), ("repository.leases", "acquire"),
    ("repository.restorer", "restore"), ("claimer", "_hand_over"), ("claimer", "_announce_start"), ("engine", "start"),
    ("prober", "get"),
]  # fmt: skip
RELEASE_STEPS = [
    ("ledger", "become"), ("engine", "stop"), ("repository.committer", "commit"), ("releaser", "clear"),
    ("pools", "destroy"), ("engine", "remove"), ("ledger", "drop_slot"),
]  # fmt: skip


def kill(world: World, monkeypatch: pytest.MonkeyPatch, where: str, method: str, *, after: bool) -> None:
    """Let the daemon die just before or just after a call."""
    target = attrgetter(where)(world)
    real = getattr(target, method)

    def dying(*args: object, **options: object) -> object:
        if after:
            real(*args, **options)
        raise Killed(f"{where}.{method}")

    monkeypatch.setattr(target, method, dying)


FILES = {"a": "1", "b": "2", "c": "3"}


def several(world: World) -> None:
    """A claimed tenant whose first generation has three files."""
    world.tenants.claim(ALICE, "small")
    world.write(ALICE, FILES)
    world.tenants.release(ALICE)
    world.pools.keep()
    world.tenants.claim(ALICE, "small")


def die_halfway(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, *, skip: int = 0) -> None:
    """Let a call of `move_entries` or `remove_tree` do a part of its work and then be killed."""
    real = getattr(module, name)
    calls = itertools.count()

    def dying(path: Path, *rest: Path, **options: object) -> None:
        if next(calls) < skip:
            real(path, *rest, **options)
            return
        victim = min(found for found in path.rglob("*") if found.is_file())
        if rest:
            victim.rename(rest[0] / victim.name)
        else:
            victim.unlink()
        raise Killed(name)

    monkeypatch.setattr(module, name, dying)


class TestCrash:
    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    @pytest.mark.parametrize(("where", "method"), CLAIM_STEPS)
    def test_killed_claim_is_finished_or_undone(
        self, world: World, monkeypatch: pytest.MonkeyPatch, where: str, method: str, after: bool
    ) -> None:
        """After a SIGKILL at any step of a claim the next daemon leaves no leftovers, and the tenant has its memory."""
        remembered(world)
        with monkeypatch.context() as patch:
            kill(world, patch, where, method, after=after)
            with pytest.raises(Killed):
                world.tenants.claim(ALICE, "small")

        world.restart()
        world.recover()

        assert world.row_state(ALICE) in ("cold", "active")
        assert world.leftovers() == []
        world.tenants.claim(ALICE, "small")
        assert (world.state(ALICE) / "memory/colour.txt").read_text() == "blue"

    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    @pytest.mark.parametrize(("where", "method"), RELEASE_STEPS)
    def test_killed_release_loses_nothing(
        self, world: World, monkeypatch: pytest.MonkeyPatch, where: str, method: str, after: bool
    ) -> None:
        """After a SIGKILL at any step of a release the newest words are there at the next claim."""
        remembered(world)
        world.tenants.claim(ALICE, "small")
        world.write(ALICE, {"memory/colour.txt": "green"})
        with monkeypatch.context() as patch:
            kill(world, patch, where, method, after=after)
            with pytest.raises(Killed):
                world.tenants.release(ALICE)

        world.restart()
        world.recover()

        assert world.leftovers() == []
        world.tenants.claim(ALICE, "small")
        assert (world.state(ALICE) / "memory/colour.txt").read_text() == "green"

    @pytest.mark.parametrize("changed", [False, True])
    def test_half_removed_tree_is_never_committed(
        self, world: World, monkeypatch: pytest.MonkeyPatch, changed: bool
    ) -> None:
        """A SIGKILL while the committed tree is being removed does not make a generation of what is left of it."""
        several(world)
        if changed:
            world.write(ALICE, {"a": "new"})
        before = {**FILES, "a": "new"} if changed else FILES
        die_halfway(monkeypatch, slots_module, "remove_tree")
        with pytest.raises(Killed):
            world.tenants.release(ALICE)

        monkeypatch.undo()
        world.restart()
        world.recover()

        assert world.saved(ALICE) == before
        assert (world.row_state(ALICE), world.leftovers()) == ("cold", [])

    def test_half_dropped_tree_is_never_committed(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nor does one while `--no-sync` drops the tree."""
        several(world)
        die_halfway(monkeypatch, slots_module, "remove_tree")
        with pytest.raises(Killed):
            world.tenants.release(ALICE, sync=False)

        monkeypatch.undo()
        world.restart()
        world.recover()

        assert world.saved(ALICE) == FILES
        assert (world.row_state(ALICE), world.leftovers()) == ("cold", [])

    def test_tree_is_whole_after_a_kill_on_its_way_to_be_kept(
        self, world: World, cut: Cut, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A SIGKILL while a tree moves out of its slot leaves it in two places; the next daemon joins them."""
        several(world)
        world.write(ALICE, {"a": "new"})
        cut.reason = down()
        die_halfway(monkeypatch, trees_module, "move_entries", skip=1)  # the first call moves logs
        with pytest.raises(Killed):
            world.tenants.release(ALICE)

        monkeypatch.undo()
        cut.reason = None
        world.restart()
        world.recover()

        assert world.saved(ALICE) == {**FILES, "a": "new"}
        assert (world.row_state(ALICE), world.leftovers()) == ("cold", [])

    def test_kept_tree_is_whole_after_a_kill_on_its_way_into_a_slot(
        self, world: World, cut: Cut, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A SIGKILL while a kept tree moves into a slot moves it back at the next start."""
        several(world)
        world.write(ALICE, {"a": "new"})
        cut.reason = down()
        with pytest.raises(UploadFailed):
            world.tenants.release(ALICE)
        cut.reason = None
        die_halfway(monkeypatch, trees_module, "move_entries")
        with pytest.raises(Killed):
            world.tenants.claim(ALICE, "small")

        monkeypatch.undo()
        world.restart()
        world.recover()

        assert world.kept(ALICE) == {**FILES, "a": "new"}
        assert (world.row_state(ALICE), world.leftovers()) == ("kept", [])

    def test_running_tenants_are_adopted(self, world: World) -> None:
        """A restarted daemon goes on with a running container, and its release commits under a new lease."""
        remembered(world)
        claim = world.tenants.claim(ALICE, "small")
        world.write(ALICE, {"memory/colour.txt": "green"})

        world.restart()
        world.recover()

        assert world.tenants.claim(ALICE, "small").container == claim.container
        release = world.tenants.release(ALICE)
        assert release.generation is not None
        assert release.generation.number == 2
        assert world.saved(ALICE) == {"memory/colour.txt": "green"}

    def test_reboot_commits_what_was_running(self, world: World) -> None:
        """When all containers are gone, the tree of a claimed tenant is committed and its slot removed."""
        world.tenants.claim(ALICE, "small")
        world.write(ALICE, {"memory/colour.txt": "green"})
        for container in world.engine.list(world.pools.owner_labels):
            world.engine.remove(container.id)

        world.restart()
        world.recover()

        assert (world.row_state(ALICE), world.leftovers()) == ("cold", [])
        assert world.saved(ALICE) == {"memory/colour.txt": "green"}

    def test_lost_answer_of_the_last_commit_is_no_conflict(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A commit that landed just before the kill is recognised as ours, not fenced."""
        world.tenants.claim(ALICE, "small")
        world.write(ALICE, {"memory/colour.txt": "green"})
        with monkeypatch.context() as patch:
            kill(world, patch, "repository.committer", "commit", after=True)
            with pytest.raises(Killed):
                world.tenants.release(ALICE)

        world.restart()
        world.recover()

        assert (world.row_state(ALICE), world.kept(ALICE)) == ("cold", {})
        head = world.repository.generations.head(ALICE)
        assert head is not None
        assert (head.generation, head.owner) == (1, None)


class TestReadyPolicy:
    @pytest.mark.parametrize(
        ("status", "body", "ready"),
        [
            (200, b"", True),
            (503, b'{"failing": ["optional"]}', True),
            (503, b'{"failing": ["optional", "database"]}', False),
            (503, b'{"failing": []}', False),
            (503, b'{"failing": "optional"}', False),
            (503, b"not json", False),
            (404, b"", False),
        ],
    )
    def test_only_named_parts_may_fail(self, world: World, status: int, body: bytes, ready: bool) -> None:
        """A 503 counts as ready only when all that fails is what the workload lets fail."""
        world.prober.always = (status, body)

        if ready:
            assert world.tenants.claim(ALICE, "small").already is False
        else:
            with pytest.raises(NotReady):
                world.tenants.claim(ALICE, "small")


def test_workload_text_is_what_the_tests_say() -> None:
    """The shared workload keeps two slots warm of at most three, which the tests above count on."""
    assert "min_size: 2, max_size: 3" in WORKLOAD
