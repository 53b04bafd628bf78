"""The ledger on a real file: durable at once, whole or not at all, and honest about what it cannot read."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import astuple
from importlib import resources
from pathlib import Path

import pytest
from claw_runtime.db.events import SqliteEvents
from claw_runtime.db.ledger import SqliteLedger
from claw_runtime.db.memory import SqliteMemory
from claw_runtime.db.tokens import SqliteTokens
from claw_runtime.errors import ClawError, DiskFull
from claw_runtime.ports import KnownHead, SlotRow
from claw_runtime.tenancy import TenantId

ALICE, BOB = TenantId("alice"), TenantId("bob")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[SqliteLedger]:
    opened = SqliteLedger(path)
    yield opened
    opened.close()


def ready(ledger: SqliteLedger, slot: str, *, pool: str = "p", template: str = "r", made_at: float = 1.0) -> None:
    """Add a slot that waits."""
    ledger.add_slot(slot, pool, template, made_at)
    ledger.slot_ready(slot, f"container-{slot}", 4711)


class TestSlots:
    def test_a_slot_is_announced_before_it_exists(self, ledger: SqliteLedger) -> None:
        """A new slot is filling, without container and port, until the engine has answered."""
        ledger.add_slot("s1", "p", "r", 1.0)
        assert ledger.slot("s1") == SlotRow(
            id="s1", pool="p", state="filling", template="r", container=None, port=None, made_at=1.0
        )
        ledger.slot_ready("s1", "c1", None)
        assert ledger.slot("s1") == SlotRow(
            id="s1", pool="p", state="ready", template="r", container="c1", port=None, made_at=1.0
        )

    def test_slots_are_listed_oldest_first_by_pool(self, ledger: SqliteLedger) -> None:
        """The order is that of making, and a pool sees its own."""
        for slot, pool, made_at in (("a", "p", 3.0), ("b", "q", 2.0), ("c", "p", 1.0)):
            ledger.add_slot(slot, pool, "r", made_at)

        assert [slot.id for slot in ledger.slots()] == ["c", "b", "a"]
        assert [slot.id for slot in ledger.slots("p")] == ["c", "a"]
        assert ledger.slots("none") == []
        assert ledger.slot("none") is None

    def test_the_oldest_fitting_slot_is_taken(self, ledger: SqliteLedger) -> None:
        """Another pool's, another template's, an unready and a claimed slot are never given."""
        ledger.begin_claim(ALICE, "p", 1.0)
        ledger.begin_claim(BOB, "p", 1.0)
        ready(ledger, "other-pool", pool="q", made_at=0.0)
        ready(ledger, "other-template", template="old", made_at=0.0)
        ledger.add_slot("unready", "p", "r", 0.0)
        ready(ledger, "young", made_at=2.0)
        ready(ledger, "old", made_at=1.0)

        first, second, third = (ledger.take_slot("p", "r", tenant) for tenant in (ALICE, BOB, BOB))

        assert (first and first.id, second and second.id, third) == ("old", "young", None)
        assert first is not None
        assert first.state == "claimed"
        tenant = ledger.tenant(ALICE)
        assert tenant is not None
        assert (tenant.slot, tenant.step) == ("old", "slot")

    @pytest.mark.parametrize("connections", [1, 2])
    def test_two_takers_one_winner(self, path: Path, connections: int) -> None:
        """Of two threads that take the last slot at once, with one connection or two, exactly one gets it."""
        ledgers = [SqliteLedger(path) for _ in range(connections)]
        for round_ in range(10):
            tenants = [TenantId(f"a{round_}"), TenantId(f"b{round_}")]
            for tenant in tenants:
                ledgers[0].begin_claim(tenant, "p", 1.0)
            ready(ledgers[0], f"s{round_}")
            start, taken = threading.Barrier(2), []

            def take(number: int, tenant: TenantId, start: threading.Barrier = start, taken: list = taken) -> None:  # type: ignore[type-arg]
                start.wait()
                taken.append(ledgers[number % connections].take_slot("p", "r", tenant))

            threads = [threading.Thread(target=take, args=pair) for pair in enumerate(tenants)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

            assert sorted(slot.id for slot in taken if slot) == [f"s{round_}"]
            holders = [row.id for row in ledgers[0].tenants() if row.slot == f"s{round_}"]
            assert len(holders) == 1
        for opened in ledgers:
            opened.close()

    def test_a_retired_slot_is_never_taken(self, ledger: SqliteLedger) -> None:
        """Who retires a waiting slot has it alone; a claimed one, or one that is gone, cannot be retired."""
        ledger.begin_claim(ALICE, "p", 1.0)
        ready(ledger, "waits")

        assert ledger.retire_slot("waits")
        assert not ledger.retire_slot("waits")
        assert ledger.take_slot("p", "r", ALICE) is None
        ready(ledger, "taken")
        ledger.take_slot("p", "r", ALICE)
        assert not ledger.retire_slot("taken")
        assert not ledger.retire_slot("none")

    def test_a_dropped_slot_leaves_its_tenant(self, ledger: SqliteLedger) -> None:
        """Forgetting a slot forgets who had it, and can be repeated."""
        ledger.begin_claim(ALICE, "p", 1.0)
        ready(ledger, "s1")
        ledger.take_slot("p", "r", ALICE)

        ledger.drop_slot("s1")
        ledger.drop_slot("s1")

        tenant = ledger.tenant(ALICE)
        assert tenant is not None
        assert (ledger.slot("s1"), tenant.slot) == (None, None)


class TestTenants:
    def test_a_claim_begins_with_a_clean_row(self, ledger: SqliteLedger) -> None:
        """Nothing that the last claim noted reaches into the next one, but what the tree grew from and whose it is."""
        ledger.begin_claim(ALICE, "p", 1.0)
        ledger.note(ALICE, step="tree", source="restored", base=7, epoch=3, error="odd")
        ledger.become(ALICE, "cold", 2.0)

        ledger.begin_claim(ALICE, "q", 3.0)

        row = ledger.tenant(ALICE)
        assert row is not None
        assert (row.state, row.pool, row.step, row.source, row.error, row.since) == (
            "claiming",
            "q",
            "begin",
            "",
            "",
            3.0,
        )
        assert (row.base, row.epoch) == (7, 3)

    def test_why_a_tree_is_kept_outlives_the_beginning_of_a_claim(self, ledger: SqliteLedger) -> None:
        """A claim that fails puts the tree back, and the reason with it; a claim that succeeds ends it."""
        ledger.begin_claim(ALICE, "p", 1.0)
        ledger.become(ALICE, "kept", 2.0, step="commit", error="fenced: gone on")
        kept = ledger.tenant(ALICE)

        ledger.begin_claim(ALICE, "p", 3.0)
        begun = ledger.tenant(ALICE)
        ledger.become(ALICE, "active", 4.0)
        active = ledger.tenant(ALICE)

        assert kept
        assert begun
        assert active
        assert (kept.step, begun.error, active.error) == ("commit", "fenced: gone on", "")

    def test_a_state_keeps_its_reason(self, ledger: SqliteLedger) -> None:
        """A change of state carries its error and its time, and clears the step."""
        ledger.begin_claim(ALICE, "p", 1.0)
        ledger.note(ALICE, step="commit")

        ledger.become(ALICE, "kept", 9.0, error="no store")

        row = ledger.tenant(ALICE)
        assert row is not None
        assert (row.state, row.step, row.error, row.since) == ("kept", "", "no store", 9.0)

    def test_tenants_are_listed_by_id(self, ledger: SqliteLedger) -> None:
        """Unknown tenants are None, known ones come in the order of their ids."""
        for tenant in (BOB, ALICE):
            ledger.begin_claim(tenant, "p", 1.0)

        assert [row.id for row in ledger.tenants()] == [ALICE, BOB]
        assert ledger.tenant(TenantId("carol")) is None

    def test_only_known_columns_are_noted(self, ledger: SqliteLedger) -> None:
        """A name that would become SQL text is checked first."""
        with pytest.raises(AssertionError):
            ledger.note(ALICE, **{"state = 'cold' --": "x"})

    def test_a_look_waits_for_no_change(self, ledger: SqliteLedger) -> None:
        """While a change waits for a slow disk, other threads read what was before it; its own thread reads its own."""
        ledger.begin_claim(BOB, "p", 1.0)
        seen: list[bool] = []

        with ledger.database.change() as db:
            db.execute("UPDATE tenant SET error = 'new' WHERE id = ?", (BOB,))
            looking = threading.Thread(target=lambda: seen.append(ledger.tenant(BOB).error == ""))  # type: ignore[union-attr]
            looking.start()
            looking.join(10)
            assert seen == [True]
            assert ledger.tenant(BOB).error == "new"  # type: ignore[union-attr]
        assert ledger.tenant(BOB).error == "new"  # type: ignore[union-attr]

    def test_a_full_disk_is_told_and_passes(self, ledger: SqliteLedger) -> None:
        """A change that finds no room is `DiskFull`, leaves nothing half done, and the next one works."""
        pages = ledger.database.connection.execute("PRAGMA page_count").fetchone()[0]
        ledger.database.connection.execute(f"PRAGMA max_page_count = {pages}")

        with pytest.raises(DiskFull):
            ledger.begin_claim(ALICE, "p" * 100_000, 1.0)

        ledger.database.connection.execute("PRAGMA max_page_count = 100000")
        ledger.begin_claim(BOB, "p", 1.0)

        assert ledger.tenant(BOB) is not None

    def test_a_commit_that_fails_is_rolled_back(self, ledger: SqliteLedger) -> None:
        """A transaction that could not be ended does not keep all later ones from beginning."""
        real = ledger.database.connection

        class Failing:
            def __getattr__(self, name: str) -> object:
                return getattr(real, name)

            def execute(self, sql: str, *values: object) -> object:
                if sql == "COMMIT":
                    raise sqlite3.OperationalError("disk I/O error")
                return real.execute(sql, *values)

        ledger.database.connection = Failing()  # type: ignore[assignment]
        with pytest.raises(sqlite3.OperationalError):
            ledger.begin_claim(ALICE, "p", 1.0)
        ledger.database.connection = real

        ledger.begin_claim(BOB, "p", 1.0)

        assert [row.id for row in ledger.tenants()] == [BOB]

    def test_a_refused_change_changes_nothing(self, ledger: SqliteLedger) -> None:
        """A value that the schema refuses is rolled back, and the ledger works on."""
        ledger.begin_claim(ALICE, "p", 1.0)
        before = ledger.tenant(ALICE)

        with pytest.raises(sqlite3.IntegrityError):
            ledger.become(ALICE, "asleep", 2.0)  # type: ignore[arg-type]

        assert ledger.tenant(ALICE) == before
        ledger.become(ALICE, "active", 3.0)


class TestFile:
    def test_it_is_durable_and_readable_beside(self, ledger: SqliteLedger, path: Path) -> None:
        """WAL, so that readers never wait; FULL, so that a step is on the disk before it is done."""
        with sqlite3.connect(path) as other:
            assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert other.execute("PRAGMA user_version").fetchone() == (len(scripts()),)
        other.close()
        assert ledger.database.connection.execute("PRAGMA synchronous").fetchone()[0] == 2
        assert ledger.database.connection.execute("PRAGMA foreign_keys").fetchone()[0] == 1

    @pytest.mark.spawns
    def test_a_killed_process_leaves_what_it_was_told_is_done(self, path: Path) -> None:
        """After SIGKILL every finished change is there, and nothing of the one that was under way."""
        script = (
            "import os, signal, sys\n"
            "from pathlib import Path\n"
            "from claw_runtime.db.ledger import SqliteLedger\n"
            "ledger = SqliteLedger(Path(sys.argv[1]))\n"
            "ledger.begin_claim('alice', 'p', 1.0)\n"
            "ledger.note('alice', step='start', base=4)\n"
            "with ledger.database.change() as db:\n"
            "    db.execute(\"UPDATE tenant SET state = 'active'\")\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        ended = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, check=False)

        reopened = SqliteLedger(path)

        assert ended.returncode == -signal.SIGKILL
        row = reopened.tenant(ALICE)
        assert row is not None
        assert (row.state, row.step, row.base) == ("claiming", "start", 4)
        reopened.close()

    def test_reopening_changes_nothing(self, path: Path) -> None:
        """A second start finds the schema made and the rows as they were."""
        first = SqliteLedger(path)
        ready(first, "s1")
        before = first.slots()
        first.close()

        second = SqliteLedger(path)

        assert second.slots() == before
        second.close()

    def test_an_empty_file_gets_the_schema(self, path: Path) -> None:
        """A file of version 0, as an interrupted first start leaves it, is brought up to date."""
        path.parent.mkdir()
        with sqlite3.connect(path) as db:
            assert db.execute("PRAGMA user_version").fetchone() == (0,)
        db.close()

        opened = SqliteLedger(path)

        assert (opened.slots(), opened.tenants()) == ([], [])
        opened.close()

    def test_what_an_older_ledger_knows_of_heads_is_remembered(self, path: Path) -> None:
        """The generation and epoch of each tenant's row are at most those of its HEAD; no digest is known."""
        path.parent.mkdir(parents=True)
        scripts = sorted(resources.files("claw_runtime.db").glob("*.sql"))[:6]  # type: ignore[attr-defined]
        with closing(sqlite3.connect(path, isolation_level=None)) as old:
            for script in scripts:
                old.executescript(script.read_text())
            row = "INSERT INTO tenant (id, state, base, epoch, since) VALUES (?, 'cold', ?, ?, 1.0)"
            old.executemany(row, [("alice", 5, 9), ("bob", 0, 0)])
            old.execute("PRAGMA user_version = 6")

        with closing(SqliteLedger(path)) as ledger:
            memory = SqliteMemory(ledger.database)
            assert memory.head(ALICE) == KnownHead(generation=5, sha256="", epoch=9)
            assert memory.head(BOB) is None
            assert memory.store() == ""
            assert [row.base_sha256 for row in ledger.tenants()] == ["", ""]

    def test_tokens_of_before_stay(self, path: Path) -> None:
        """The table is made anew for another scope: whoever has a token can still use it."""
        path.parent.mkdir(parents=True)
        scripts = sorted(resources.files("claw_runtime.db").glob("*.sql"))[:10]  # type: ignore[attr-defined]
        rows = [
            ("1", "ops", "aa", "admin", None, 1.0, None, 2.0),
            ("2", "bot", "bb", "tenant", "alice", 1.0, 9.0, None),
        ]
        with closing(sqlite3.connect(path, isolation_level=None)) as old:
            for script in scripts:
                old.executescript(script.read_text())
            old.executemany("INSERT INTO token VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            old.execute("PRAGMA user_version = 10")

        with closing(SqliteLedger(path)) as ledger:
            assert [astuple(row) for row in SqliteTokens(ledger.database).all()] == sorted(rows, key=lambda row: row[1])

    def test_the_former_words_of_the_tiers_are_renamed(self, path: Path) -> None:
        """A ledger of before keeps its slots, their tenants, what operators set and what happened, in today's words; a
        tenant that was parked is still parked."""
        path.parent.mkdir(parents=True)
        scripts = sorted(resources.files("claw_runtime.db").glob("*.sql"))[:5]  # type: ignore[attr-defined]
        with closing(sqlite3.connect(path, isolation_level=None)) as old:
            for script in scripts:
                old.executescript(script.read_text())
            words = ("slot", "parked", "waiting", "prewarmed")
            row = "INSERT INTO slot (id, pool, state, recipe, made_at, tier) VALUES (?, 'p', 'claimed', 'r', 1.0, ?)"
            old.executemany(row, [(f"s-{word}", word) for word in words])
            old.execute("INSERT INTO tenant (id, state, slot, since) VALUES ('alice', 'active', 's-parked', 1.0)")
            old.execute("INSERT INTO tenant (id, state, since) VALUES ('bob', 'parked', 1.0)")
            warmth = {"slot": 2, "parked": 1, "frozen": 3}
            old.execute("INSERT INTO pool (id, warmth) VALUES ('p', ?), ('q', NULL)", (json.dumps(warmth),))
            for kind, detail in (
                ("claimed", {"source": "slot", "generation": 7}),
                ("claimed", {"source": "frozen"}),
                ("released", {"rest": "parked"}),
                ("pool-scaled", {"min_size": None, "warmth": {"waiting": 1}}),
                ("pool-scaled", {"min_size": 1, "warmth": None}),
            ):
                old.execute("INSERT INTO activity (at, kind, detail) VALUES (1.0, ?, ?)", (kind, json.dumps(detail)))
            old.execute("PRAGMA user_version = 5")

        with closing(SqliteLedger(path)) as ledger:
            now = ("created", "entrypoint", "interpreter", "prewarmed")
            assert {row.id: row.tier for row in ledger.slots()} == {
                f"s-{w}": t for w, t in zip(words, now, strict=True)
            }
            assert [(row.id, row.state, row.slot) for row in ledger.tenants()] == [
                ("alice", "active", "s-parked"),
                ("bob", "parked", None),
            ]
            assert ledger.pool("p").warmth == {"created": 2, "entrypoint": 1, "frozen": 3}
            assert ledger.pool("q").warmth is None
            assert [event.detail for event in SqliteEvents(ledger.database).newest(9)] == [
                {"source": "created", "generation": 7},
                {"source": "frozen"},
                {"rest": "parked"},
                {"min_size": None, "warmth": {"interpreter": 1}},
                {"min_size": 1, "warmth": None},
            ]
            ledger.add_slot("new", "p", "r", 2.0, "interpreter")
            assert ledger.slots()[-1].tier == "interpreter"
            assert ledger.database.rows("PRAGMA foreign_key_check") == []
            with pytest.raises(sqlite3.IntegrityError):
                ledger.add_slot("old", "p", "r", 2.0, "parked")  # type: ignore[arg-type]

    def test_a_newer_version_is_refused(self, path: Path) -> None:
        """An older program does not touch a ledger that it does not understand, and says what both know."""
        SqliteLedger(path).close()
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA user_version = 99")
        db.close()
        before = path.read_bytes()

        with pytest.raises(ClawError) as caught:
            SqliteLedger(path)

        assert "version is 99" in caught.value.why
        assert str(path) in caught.value.brief
        assert path.read_bytes() == before

    @pytest.mark.parametrize("content", [b"this is no database, but long enough to look like one" * 50, None])
    def test_what_is_no_database_is_refused(self, path: Path, content: bytes | None) -> None:
        """Garbage and a directory in its place are an error with a way out, and stay as they are."""
        path.parent.mkdir()
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content)

        with pytest.raises(ClawError) as caught:
            SqliteLedger(path)

        assert "rename the file" in caught.value.hint
        assert path.is_dir() or path.read_bytes() == content


def scripts() -> list[str]:
    """The numbered schema changes."""
    import claw_runtime.db

    folder = Path(os.path.dirname(str(claw_runtime.db.__file__)))
    return sorted(found.name for found in folder.glob("*.sql"))


def test_schema_changes_are_numbered_without_a_gap() -> None:
    """The number in a script's name is the version that it makes."""
    assert [int(name.split("_")[0]) for name in scripts()] == list(range(1, len(scripts()) + 1))
