"""Status, history and log report what a commit leaves out and commits that fail, without repeating themselves."""

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from claw_runtime.api.tenants import describe
from claw_runtime.errors import ClawError, Fenced, StoreUnavailable, UploadFailed
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.operations.maintenance import Maintenance
from claw_runtime.safefs.tree import VANISHED, Skipped
from claw_runtime.state.repository import Repository
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants.commits import NAMES, QUIET, SECRETS, CommitRecord
from fakes.faces import Api, runtime_of
from fakes.stores import Fault, FaultyStore
from fakes.world import WORKLOAD, World

ALICE = TenantId("alice")
OFTEN = f"{WORKLOAD}sync: {{policy: {{interval: 5s}}}}\n"
pytestmark = pytest.mark.world(workload=OFTEN, store=lambda: FaultyStore(MemoryStore()))


@pytest.fixture
def world(world: World) -> World:
    """Alice runs, and has a word."""
    world.tenants.claim(ALICE, "small")
    world.write("alice", {"word": "1"})
    return world


@pytest.fixture
def store(world: World) -> FaultyStore:
    assert isinstance(world.store, FaultyStore)
    return world.store


def shown(world: World) -> dict[str, Any]:
    """`syncStatus` of alice, as the API answers it."""
    found: dict[str, Any] = Api(runtime_of(world)).get("/api/v1/tenants/alice").json()["syncStatus"]
    return found


def events(world: World, *kinds: str) -> list[str]:
    return [event.kind for event in world.events.newest(1000, tenant="alice") if event.kind in kinds]


def fifo(world: World, *names: str) -> None:
    for name in names:
        os.mkfifo(world.state("alice") / name)


class TestLeftOut:
    def test_a_name_that_a_commit_skips_is_in_the_status(self, world: World) -> None:
        """With its reason; after it is gone the status is empty again."""
        fifo(world, "pipe")
        world.tenants.sync_unless_busy(ALICE)
        assert (shown(world)["leftOut"], shown(world)["leftOutNames"]) == (1, ["pipe: not a file, directory or link"])
        assert (shown(world)["state"], shown(world)["error"], shown(world)["unsavedSince"]) == ("idle", None, None)

        (world.state("alice") / "pipe").unlink()
        world.tenants.sync_unless_busy(ALICE)
        assert (shown(world)["leftOut"], shown(world)["leftOutNames"]) == (0, [])

    def test_only_the_first_names_are_kept(self, world: World) -> None:
        """A tenant can make a million of them, of any length, and they must not be a terminal's commands."""
        fifo(world, *(f"{number:03}-\x1b[2J{'x' * 200}" for number in range(30)))
        world.tenants.sync_unless_busy(ALICE)

        record = world.commits.of(ALICE)
        assert (record.left_out, len(record.names)) == (30, NAMES)
        assert all(len(name) <= 300 and name.isprintable() for name in record.names)

    def test_it_is_known_after_the_release(self, world: World) -> None:
        """What the last commit left out is shown for a cold tenant too."""
        fifo(world, "pipe")
        world.tenants.release(ALICE)

        assert (world.row_state("alice"), shown(world)["leftOut"]) == ("cold", 1)
        assert events(world, "left-out") == ["left-out"]

    def test_a_name_that_went_during_the_commit_is_not_left_out(self, world: World) -> None:
        """It is no part of the state any more: programs make and remove files all the time."""
        row, _ = world.tenants.find(ALICE)
        world.commits.committed(row, [Skipped(path="tmp", reason=VANISHED)])

        assert world.commits.of(ALICE) == CommitRecord()
        assert events(world, "left-out") == []

    def test_attributes_that_are_too_large_stay_reported(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also by commits in which the file has not changed: the store still lacks them."""
        monkeypatch.setattr("claw_runtime.state.commit.archiver.MAX_XATTRS", -1)
        for _ in range(3):
            world.tenants.sync_unless_busy(ALICE)
            assert [name for name in world.commits.of(ALICE).names if name.startswith("word: its extended")]

    def test_the_history_gets_changes_only(self, world: World) -> None:
        """A hundred commits with the same names are one event, and it tells which."""
        fifo(world, "pipe")
        for number in range(100):
            world.write("alice", {"word": str(number)})
            world.tenants.sync_unless_busy(ALICE)
            world.clock.advance(5)
        [event] = [one for one in world.events.newest(1000) if one.kind == "left-out"]

        assert event.detail == {"count": 1, "names": ["pipe: not a file, directory or link"]}
        assert events(world, "synced") == []

    def test_a_set_that_changes_all_the_time_is_no_flood(self, world: World) -> None:
        """An event in ten minutes at most, and the last one tells the set that stays."""
        pipe = world.state("alice") / "pipe"
        for number in range(240):
            if number % 2:
                pipe.unlink()
            else:
                os.mkfifo(pipe)
            world.tenants.sync_unless_busy(ALICE)
            world.clock.advance(5)
        assert 1 <= len(events(world, "left-out")) <= 3
        world.clock.advance(QUIET)
        world.tenants.sync_unless_busy(ALICE)

        assert world.commits.of(ALICE).left_out == 0
        assert [one.detail["count"] for one in world.events.newest(1000) if one.kind == "left-out"][-1] == 0

    def test_a_sync_by_hand_says_it(self, world: World) -> None:
        """Its answer has the names, at most a hundred and the number of the others."""
        fifo(world, *(f"{number:03}" for number in range(150)))
        answer = Api(runtime_of(world)).post("/api/v1/tenants/alice/sync", json={"direction": "upload"}).json()

        assert answer["reported"][0] == "000: not a file, directory or link"
        assert (len(answer["reported"]), answer["reported"][-1]) == (101, "and 50 more")
        assert events(world, "synced") == ["synced"]


class TestFailing:
    def test_a_store_that_is_away_shows(self, world: World, store: FaultyStore) -> None:
        """Since when nothing was saved, and why; the commit that succeeds ends it, and the history has both ends."""
        maintenance = Maintenance(world.tenants, world.ledger, world.clock, world.pools.interval)
        world.tenants.sync_unless_busy(ALICE)
        saved = shown(world)["lastSync"]
        store.tell(Fault(operation="get", action="unavailable", times=10**6))
        for number in range(45):
            world.write("alice", {"word": str(number)})
            maintenance.commit()
            world.clock.advance(1)
        found = shown(world)
        assert (found["state"], found["unsavedSince"], found["leaseLost"]) == ("error", saved, False)
        assert "the store does not answer" in found["error"]
        stored = Api(runtime_of(world)).get("/api/v1/pools/small/metrics").json()
        assert (stored["failingCommits"], stored["leasesLost"], stored["oldestCommitSeconds"]) == (1, 0, 45)

        store.tell()
        for _ in range(60):
            maintenance.commit()
            world.clock.advance(1)
        assert (shown(world)["state"], shown(world)["error"], shown(world)["unsavedSince"]) == ("idle", None, None)
        assert events(world, "commit-failing", "commit-resumed", "lease-lost") == ["commit-failing", "commit-resumed"]

    def test_a_lost_lease_is_shown_as_such(self, world: World, tmp_path: Path) -> None:
        """Another runtime took the tenant: its own container runs on, and none of its words is stored."""
        world.tenants.sync_unless_busy(ALICE)
        there = Repository(world.store, "host-b", world.clock, tmp_path / "there")
        there.leases.acquire(ALICE, take_over=True)
        world.write("alice", {"word": "2"})
        for _ in range(3):
            with pytest.raises(Fenced):
                world.tenants.sync_unless_busy(ALICE)

        found = shown(world)
        assert (found["state"], found["leaseLost"]) == ("error", True)
        assert "another runtime took over tenant alice" in found["error"]
        assert events(world, "lease-lost", "commit-failing") == ["lease-lost"]
        assert world.commits.figures(world.ledger.tenants()).leases_lost == 1

    def test_a_commit_that_does_not_end_shows(self, world: World, store: FaultyStore) -> None:
        """A store that hangs raises no error for a long time; after two intervals and a minute the status says so."""
        world.tenants.sync_unless_busy(ALICE)
        saved = shown(world)["lastSync"]
        world.clock.advance(70)
        assert (shown(world)["state"], shown(world)["error"]) == ("idle", None)
        world.clock.advance(1)

        assert (shown(world)["state"], shown(world)["unsavedSince"]) == ("error", saved)
        assert shown(world)["error"].startswith("its commit has not come to an end")
        assert world.commits.figures(world.ledger.tenants()).failing == 1
        world.tenants.sync_unless_busy(ALICE)
        assert (shown(world)["state"], shown(world)["unsavedSince"]) == ("idle", None)

    @pytest.mark.world(workload=WORKLOAD, store=lambda: FaultyStore(MemoryStore()))
    def test_without_an_interval_no_commit_is_late(self, world: World) -> None:
        """A tenant that is committed at its release only is not reported before it."""
        world.clock.advance(10**6)
        assert (shown(world)["state"], shown(world)["error"]) == ("idle", None)

    def test_a_defect_shows_too(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """What nobody foresaw is no reason for silence."""

        def broken(*_: object) -> None:
            raise ZeroDivisionError("division by zero")

        monkeypatch.setattr(world.repository.committer, "commit", broken)
        with pytest.raises(ZeroDivisionError):
            world.tenants.sync_unless_busy(ALICE)

        assert (shown(world)["state"], shown(world)["error"]) == ("error", "division by zero")

    def test_a_new_claim_begins_anew(self, world: World, store: FaultyStore) -> None:
        """What failed before the release is over: a tree that is kept has its own reason, and a claim has none."""
        store.tell(Fault(operation="put", action="unavailable", times=10**6))
        for act in (world.tenants.sync, world.tenants.release):
            with pytest.raises(UploadFailed):
                act(ALICE)
        assert (shown(world)["unsavedSince"], "upload-failed" in shown(world)["error"]) == (None, True)
        store.tell()
        world.tenants.claim(ALICE, "small")

        assert (shown(world)["state"], shown(world)["error"]) == ("idle", None)

    def test_failures_that_come_and_go_are_no_flood(self, world: World, store: FaultyStore) -> None:
        """Every other commit fails for an hour: at most a few events of each kind."""
        for number in range(720):
            store.tell(*[Fault(operation="get", action="unavailable")] * (number % 2))
            world.write("alice", {"word": str(number)})
            with suppress(ClawError):
                world.tenants.sync_unless_busy(ALICE)
            world.clock.advance(5)

        assert len(events(world, "commit-failing")) <= 7
        assert len(events(world, "commit-resumed")) <= 7

    def test_a_tenant_that_never_failed_has_nothing_to_show(self, world: World) -> None:
        """The fields are there, and empty, also before the first commit."""
        row, slot = world.tenants.find(ALICE)
        found = describe(row, slot)["syncStatus"]
        assert (found["unsavedSince"], found["leaseLost"], found["leftOut"], found["leftOutNames"]) == (
            None,
            False,
            0,
            [],
        )


def test_a_socket_is_left_out(world: World) -> None:
    """Sockets that programs leave in their state are the usual case."""
    with socket.socket(socket.AF_UNIX) as made, suppress(StoreUnavailable):
        directory = os.open(world.state("alice"), os.O_RDONLY)
        made.bind(f"/proc/self/fd/{directory}/sock")
        os.close(directory)
        world.tenants.sync_unless_busy(ALICE)

    assert world.commits.of(ALICE).names == ("sock: not a file, directory or link",)


@pytest.mark.spawns
def test_every_trouble_of_one_tree_shows(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """In status, metrics, events and log: a socket, and a database that SQLite cannot copy. A directory that its tenant
    has closed is stored."""
    tree = world.state("alice")
    (tree / "app.db").write_bytes(b"SQLite format 3\0" + b"no database" * 1000)
    world.write("alice", {"closed/inner": "2"})
    (tree / "closed").chmod(0)
    with socket.socket(socket.AF_UNIX) as made:
        directory = os.open(tree, os.O_RDONLY)
        made.bind(f"/proc/self/fd/{directory}/sock")
        os.close(directory)
        world.tenants.sync_unless_busy(ALICE)

    found = shown(world)
    assert found["leftOut"] == 2
    database, sock = sorted(found["leftOutNames"])
    assert database.startswith("app.db: stored as a plain file with its sidecars, not as a database: ")
    assert sock == "sock: not a file, directory or link"
    assert Api(runtime_of(world)).get("/api/v1/pools/small/metrics").json()["leftOut"] == 2
    (event,) = [one for one in world.events.newest(100, tenant="alice") if one.kind == "left-out"]
    assert sorted(event.detail["names"]) == [database, sock]
    assert "names are left out of commits" in capsys.readouterr().out
    assert world.saved("alice")["closed/inner"] == "2"


class TestSecrets:
    ALICE = TenantId("alice")

    def test_many_files_are_no_flood(self, world: World) -> None:
        """A program may write its key into a new file at every interval: the memory does not grow, nor the history."""
        for number in range(3 * SECRETS):
            world.commits.stored_secrets(self.ALICE, [(f"{number}.json", "KEY")])
        assert len(events(world, "secret-stored")) == SECRETS + 1
        assert len(world.commits._secrets[self.ALICE]) == SECRETS

        world.clock.sleep(QUIET)
        world.commits.stored_secrets(self.ALICE, [("new.json", "KEY"), ("newer.json", "KEY")])
        assert len(events(world, "secret-stored")) == SECRETS + 2

    def test_a_file_that_is_written_all_the_time_is_remembered(self, world: World) -> None:
        """It is an event once, although others displace those that are written no more."""
        for number in range(2 * SECRETS):
            world.commits.stored_secrets(self.ALICE, [("same.json", "KEY"), (f"{number}.json", "KEY")])
        told = [one for one in world.events.newest(1000) if one.kind == "secret-stored"]
        assert [one.detail["file"] for one in told].count("'same.json'") == 1
