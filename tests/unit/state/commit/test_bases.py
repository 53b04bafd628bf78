"""Commits write deltas: small ones, that a restore, a collection and a verification all follow to their base."""

import os
from pathlib import Path

import pytest
from claw_runtime.errors import RestoreFailed, VerifyMismatch
from claw_runtime.formats.pack import CHUNK
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.spec.parts import Retention
from claw_runtime.state.commit import bases
from claw_runtime.state.keyring import Keyring
from claw_runtime.state.lease.leases import Lease
from claw_runtime.state.repository import CommitRequest, CommitResult, Repository, UploadRight
from claw_runtime.state.rules.selection import EVERYTHING
from claw_runtime.state.verify import Verifier
from claw_runtime.tenancy import Keys, tenant_id
from fakes.clock import FakeClock
from fakes.format_2 import write_format_2
from fakes.stores import FaultyStore

ALICE = tenant_id("alice")
KEYS = Keys(ALICE)
DAY = 86400.0


class Host:
    """One runtime, its tree of 300 names, and a store whose clock is the test's."""

    def __init__(self, top: Path) -> None:
        self.clock, self.top = FakeClock(), top
        self.memory = MemoryStore(self.clock.now)
        self.store = FaultyStore(self.memory)
        self.tree = top / "tree"
        (self.tree / "d").mkdir(parents=True)
        for number in range(300):
            (self.tree / "d" / f"f{number:03}").write_bytes(b"%d" % number * 50)
        self.restart()
        self.right: UploadRight | None = self.repository.restorer.restore(self.lease(), top / "staging")

    def restart(self, *keys: bytes) -> None:
        """A runtime that has seen nothing."""
        keyring = Keyring(self.store, list(keys))
        self.repository = Repository(self.store, "here", self.clock, self.top / "scratch", keyring)

    def lease(self) -> Lease:
        return self.repository.leases.acquire(ALICE)

    def commit(self, *, retention: Retention | None = None, release: bool = False) -> CommitResult:
        assert self.right is not None
        done = self.repository.committer.commit(
            CommitRequest(
                right=self.right,
                tree=self.tree,
                selection=EVERYTHING,
                image_digest="",
                application="",
                release=release,
                retention=retention,
            )
        )
        self.right = done.right
        self.clock.advance(5)
        return done

    def change(self, *numbers: int) -> None:
        for number in numbers:
            (self.tree / "d" / f"f{number:03}").write_bytes(os.urandom(30))

    def base(self, generation: int | None = None) -> int | None:
        document = self.repository.generations.manifest(ALICE, generation)
        return document.base.document.generation if document.base else None

    def gets(self) -> list[str]:
        return [key for operation, key in self.store.calls if operation == "get" and "/gen/" in key]

    def listed(self) -> list[int]:
        return sorted(int(item.key.removeprefix(KEYS.manifests)[:12]) for item in self.memory.list(KEYS.manifests))

    def restored(self, name: str, generation: int | None = None) -> dict[str, bytes]:
        self.repository.restorer.extract(ALICE, self.top / name, generation)
        return picture(self.top / name)


def picture(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Its names are so many that a release writes a delta, too."""
    monkeypatch.setattr(bases, "RELEASED", bases.SMALL)
    return Host(tmp_path)


def test_a_small_change_sends_a_small_manifest(host: Host) -> None:
    """Of 301 names one changed; the next commit is of the same base, and of the parent's entries too."""
    first = host.commit()
    host.change(1)
    second = host.commit()
    host.change(2)
    third = host.commit()
    assert second.uploaded_bytes < 1500 < first.uploaded_bytes // 8
    assert third.uploaded_bytes < 1700
    assert (host.base(1), host.base(2), host.base(3)) == (None, 1, 1)
    assert host.restored("out") == picture(host.tree)


def test_a_runtime_that_knows_nothing_continues_the_base(host: Host) -> None:
    """The parent is fetched with its base, once each; an unchanged tree makes no generation."""
    host.commit()
    host.change(1)
    host.commit()
    host.restart()
    host.store.calls.clear()
    assert not host.commit().created
    assert len(host.gets()) == 2
    host.change(2)
    assert host.commit().uploaded_bytes < 1700
    assert host.base() == 1


def test_deltas_end_when_they_have_cost_as_much_as_their_base(host: Host) -> None:
    """Every commit changes 10 names: the deltas become longer, and a base follows when they are as long as it."""
    found = []
    for number in range(20):
        host.change(*range(10 * number, 10 * number + 10))
        host.commit()
        found.append(host.base())
    assert found == [None, *[1] * 7, None, *[9] * 7, None, *[17] * 3]
    host.change(*range(300))
    host.commit()
    assert host.base() is None
    assert host.restored("out") == picture(host.tree)


def test_a_few_names_need_no_base(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their manifest is as short as a delta, and a restore reads one object."""
    monkeypatch.setattr(bases, "SMALL", 400)
    host.commit()
    host.change(1)
    host.commit()
    assert host.base() is None


def test_a_release_of_few_names_needs_no_base(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim that follows reads one manifest. The next commit is a delta of it, and more names are one at once."""
    host.commit()
    host.change(1)
    host.commit()
    monkeypatch.setattr(bases, "RELEASED", 400)
    host.change(2)
    host.commit(release=True)
    assert (host.base(2), host.base(3)) == (1, None)
    host.store.calls.clear()
    host.right = host.repository.restorer.restore(host.lease(), host.top / "claimed")
    assert len(host.gets()) == 1
    assert picture(host.top / "claimed") == picture(host.tree)
    host.change(3)
    host.commit()
    assert host.base() == 3
    monkeypatch.setattr(bases, "RELEASED", 300)
    host.change(4)
    host.commit(release=True)
    assert host.base() == 3


def test_three_pages_of_a_large_file_send_three_pages(host: Host) -> None:
    """Its list of places is not sent again, in this commit or a later one."""
    large = host.tree / "large"
    large.write_bytes(b"".join(os.urandom(16) * (CHUNK // 16) for _ in range(2000)))
    host.commit()
    for number in range(3):
        with large.open("r+b") as file:
            file.seek((number * 700 + 5) * CHUNK)
            file.write(os.urandom(4096))
        done = host.commit()
        assert done.uploaded_bytes < 8000
    assert host.base() == 1
    assert host.restored("out")["large"] == large.read_bytes()


def test_a_restore_reads_two_manifests(host: Host) -> None:
    """The newest and its base; and both when the runtime knows what they say."""
    host.commit()
    host.change(1)
    host.commit(release=True)
    for name in ("one", "two"):
        host.store.calls.clear()
        host.repository.restorer.restore(host.lease(), host.top / name)
        assert [int(key.removeprefix(KEYS.manifests)[:12]) for key in host.gets()] == [2, 1]
        assert picture(host.top / name) == picture(host.tree)
        host.repository.leases.give_back(ALICE)


# --- collections ---


def test_a_base_stays_as_long_as_a_kept_generation_needs_it(host: Host) -> None:
    """Of 12 generations three are kept; the base of these stays without its packs, and goes with the last of them."""
    few = Retention(keep_last=3, hourly=0, daily=0)
    for number in range(12):
        host.change(number)
        host.commit(retention=few)
    host.clock.advance(2 * DAY)
    host.commit(release=True, retention=few)
    host.repository.collect_garbage(ALICE)
    assert host.listed() == [1, 10, 11, 12]
    assert host.restored("out") == picture(host.tree)
    assert [
        one.generation for one in host.repository.generations.earlier(host.repository.generations.manifest(ALICE))
    ] == [10, 11]

    host.right = host.repository.restorer.adopt(host.lease(), 12)
    for _ in range(3):
        host.change(*range(300))
        host.commit(retention=few)
    host.clock.advance(2 * DAY)
    host.commit(release=True, retention=few)
    host.repository.collect_garbage(ALICE)
    assert host.listed() == [13, 14, 15]


def test_a_pin_keeps_the_base_of_its_generation(host: Host) -> None:
    """Long after history dropped both."""
    few = Retention(keep_last=2, hourly=0, daily=0)
    host.commit()
    host.change(1)
    host.commit()
    was = picture(host.tree)
    assert host.right is not None
    assert host.right.head.sha256 is not None
    host.repository.pins.put(ALICE, host.repository.generations.manifest(ALICE).past(host.right.head.sha256))
    for number in range(4):
        host.change(*range(300))
        host.commit(retention=few, release=number == 3)
    host.clock.advance(2 * DAY)
    host.repository.collect_garbage(ALICE)
    assert host.listed() == [1, 2, 5, 6]
    assert host.restored("out", 2) == was


def test_a_collection_reads_a_base_once(host: Host) -> None:
    """With the newest manifest, but not once more for each of its generations."""
    for number in range(6):
        host.change(number)
        host.commit(release=number == 5)
    host.store.calls.clear()
    host.repository.collect_garbage(ALICE, dry_run=True)
    read = [int(key.removeprefix(KEYS.manifests)[:12]) for key in host.gets()]
    assert read.count(1) == read.count(6)
    assert sorted(set(read)) == [1, 2, 3, 4, 5, 6]
    assert len(read) == 4 + 2 * read.count(6)


# --- damage ---


def test_a_damaged_base_is_reported_for_each_of_its_generations(host: Host) -> None:
    """A verification reads it; a restore of one of them is refused."""
    for number in range(4):
        host.change(number)
        host.commit(retention=Retention(keep_last=2, hourly=0, daily=0))
    assert Verifier(host.store, host.repository).verify(ALICE).objects == 2 + 1 + 4  # manifests, their base, packs
    key = next(item.key for item in host.memory.list(KEYS.manifests))
    data = bytearray(host.memory.get(key)[0])
    data[len(data) // 2] ^= 1
    host.memory.put(key, bytes(data))
    with pytest.raises((RestoreFailed, VerifyMismatch), match="a manifest is damaged"):
        Verifier(host.store, host.repository).verify(ALICE)
    with pytest.raises((RestoreFailed, VerifyMismatch)):
        host.restored("out")
    host.memory.delete(key)
    with pytest.raises(RestoreFailed, match="could not be restored"):
        host.restored("gone")


def test_if_the_newest_manifest_is_damaged_bases_without_packs_are_not_reported(host: Host) -> None:
    """Only generations that are kept are verified, not every manifest that is stored."""
    few = Retention(keep_last=3, hourly=0, daily=0)
    for number in range(6):
        host.change(number)
        host.commit(retention=few, release=number == 5)
    host.clock.advance(2 * DAY)
    host.repository.collect_garbage(ALICE)
    assert host.listed() == [1, 4, 5, 6]
    host.memory.put(next(item.key for item in host.memory.list(KEYS.manifests) if "6-" in item.key), b"damaged")
    found = Verifier(host.store, host.repository).verify(ALICE)
    assert found.generations == (4, 5)
    assert len(found.damaged) == 1
    assert "generation 6, the newest" in found.damaged[0]


# --- other generations as the next one, encryption ---


def test_an_encrypted_delta_has_an_encrypted_base(host: Host) -> None:
    """The first generation under a new key is whole, so that no later one leaves names readable in its base."""
    host.commit()
    host.change(1)
    host.commit()
    host.restart(b"o" * 32)
    host.change(2)
    host.commit()
    host.change(3)
    host.commit()
    assert (host.base(2), host.base(3), host.base(4)) == (1, None, 3)
    host.restart(b"o" * 32)
    host.change(4)
    host.commit()
    assert host.base() == 3
    newest = [item.key for item in host.memory.list(KEYS.manifests)][2:]
    assert all(host.memory.get(key)[0].startswith(b"CLAWSEAL") for key in newest)
    assert host.restored("out") == picture(host.tree)


def test_a_bucket_of_format_2_is_continued(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Generations of format 2 are read, restored and collected as before, and are the base of the first of format 3;
    a tree that did not change makes no generation."""
    with (host.tree / "sparse").open("wb") as file:
        file.truncate(3 << 20)
        file.seek(1 << 20)
        file.write(b"word")
    few = Retention(keep_last=3, hourly=0, daily=0)
    with monkeypatch.context() as patch:
        write_format_2(patch, lambda path: (host.tree / path).read_bytes())
        patch.setattr(bases, "SMALL", 10**6)
        host.commit()
        host.change(1)
        host.commit()
    was = picture(host.tree)
    host.restart()
    assert not host.commit().created
    assert host.restored("old") == was
    host.change(2)
    assert host.commit().uploaded_bytes < 1700
    assert (host.base(2), host.base(3)) == (None, 2)
    assert host.restored("new") == picture(host.tree)
    assert Verifier(host.store, host.repository).verify(ALICE).damaged == ()
    host.change(3)
    host.commit(release=True, retention=few)
    host.clock.advance(2 * DAY)
    host.repository.collect_garbage(ALICE)
    assert host.listed() == [2, 3, 4]
    assert host.restored("again", 2) == was
    assert host.restored("newest") == picture(host.tree)
