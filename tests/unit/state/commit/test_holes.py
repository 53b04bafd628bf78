"""Holes cost nothing: they are neither read, digested nor stored, however long they are."""

import hashlib
import os
import time
from itertools import islice
from pathlib import Path

import pytest
from claw_runtime.errors import VerifyMismatch
from claw_runtime.formats.pack import CHUNK
from claw_runtime.fsutil import reads_as_zeros
from claw_runtime.interchange.tar_out import exported
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.state.repository import CommitRequest, CommitResult, Repository, UploadRight
from claw_runtime.state.rules.selection import EVERYTHING
from claw_runtime.state.verify import Verifier
from claw_runtime.tenancy import Keys, tenant_id
from fakes.clock import FakeClock
from fakes.stores import FaultyStore

ALICE = tenant_id("alice")
TERABYTES = 15 * 10**12


class Host:
    """A runtime, its store, and the right to commit its tree."""

    def __init__(self, top: Path) -> None:
        self.top, self.tree = top, top / "tree"
        self.tree.mkdir()
        self.store = FaultyStore(MemoryStore())
        self.restart()
        self.right: UploadRight | None = self.repository.restorer.restore(
            self.repository.leases.acquire(ALICE), top / "staging"
        )

    def restart(self) -> None:
        self.repository = Repository(self.store, "here", FakeClock(), self.top / "scratch")

    def commit(self, tree: Path | None = None, *, release: bool = False) -> CommitResult:
        assert self.right is not None
        request = CommitRequest(
            right=self.right,
            tree=tree or self.tree,
            selection=EVERYTHING,
            image_digest="",
            application="",
            release=release,
        )
        done = self.repository.committer.commit(request)
        self.right = done.right
        return done


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def sparse(path: Path, size: int, *places: tuple[int, bytes]) -> Path:
    with path.open("wb") as file:
        for at, data in places:
            file.seek(at)
            file.write(data)
        file.truncate(size)
    return path


def test_a_hole_of_terabytes_takes_no_time(host: Host) -> None:
    """Commit, verify, restore, list and export a file of 15 TB with three pages; reading its zeros would take hours."""
    words = [(at, os.urandom(4096)) for at in (0, TERABYTES // 2 + 5, TERABYTES - 4096)]
    sparse(host.tree / "huge", TERABYTES, *words)
    began = time.monotonic()

    assert host.commit(release=True).uploaded_bytes < 20_000
    assert Verifier(host.store, host.repository).verify(ALICE).damaged == ()
    document = host.repository.generations.manifest(ALICE)
    assert sum(map(len, exported(host.repository, document))) < 300_000
    assert len(b"".join(islice(host.repository.generations.read(ALICE, "huge"), 3))) > CHUNK
    right = host.repository.restorer.restore(host.repository.leases.acquire(ALICE), host.top / "back")

    assert time.monotonic() - began < 20
    with (host.top / "back" / "huge").open("rb") as file:
        assert [os.pread(file.fileno(), 4096, at) for at, _ in words] == [data for _, data in words]
        assert os.fstat(file.fileno()).st_size == TERABYTES
    host.restart()
    host.right = right
    assert not host.commit(host.top / "back").created


def test_the_digest_is_that_of_the_places(host: Host) -> None:
    """As the format has it; chunks of zeros count as holes, and a restored file has the same digest."""
    words = os.urandom(CHUNK)
    path = sparse(host.tree / "s", 40 * CHUNK, (3 * CHUNK, words), (4 * CHUNK, bytes(CHUNK)), (39 * CHUNK, words))
    host.commit(release=True)
    entry = host.repository.generations.manifest(ALICE).find("s")
    assert entry is not None
    line = f"{CHUNK} {hashlib.sha256(words).hexdigest()}\n"
    text = f"{3 * CHUNK}\n{line}{35 * CHUNK}\n{line}"
    assert entry.sha256 == f"places:{hashlib.sha256(text.encode()).hexdigest()}"

    host.right = host.repository.restorer.restore(host.repository.leases.acquire(ALICE), host.top / "back")
    host.restart()
    assert not host.commit(host.top / "back").created
    assert (host.top / "back" / "s").read_bytes() == path.read_bytes()
    assert (host.top / "back" / "s").stat().st_blocks * 512 < 4 * CHUNK


def test_an_unchanged_file_with_holes_is_taken_from_an_older_tree(host: Host) -> None:
    """It is not fetched; one that has something in a hole is, although its size and time are right."""
    for name in ("kept", "wrong"):
        sparse(host.tree / name, 90 * CHUNK, (8 * CHUNK, os.urandom(CHUNK)), (50 * CHUNK, os.urandom(CHUNK)))
    host.commit(release=True)
    right = host.repository.restorer.restore(host.repository.leases.acquire(ALICE), host.top / "donor")
    status = (host.top / "donor" / "wrong").stat()
    with (host.top / "donor" / "wrong").open("r+b") as file:
        file.seek(30 * CHUNK)
        file.write(b"something")
    os.utime(host.top / "donor" / "wrong", ns=(status.st_atime_ns, status.st_mtime_ns))
    inode = (host.top / "donor" / "kept").stat().st_ino
    host.repository.leases.give_back(right.tenant)
    lease = host.repository.leases.acquire(ALICE)
    host.repository.restorer.restore(lease, host.top / "back", donor=host.top / "donor")
    assert (host.top / "back" / "kept").stat().st_ino == inode
    for name in ("kept", "wrong"):
        assert (host.top / "back" / name).read_bytes() == (host.tree / name).read_bytes()


def test_damage_of_a_file_with_holes_is_found(host: Host) -> None:
    """One bit of what was written, by a verification and by a reader."""
    sparse(host.tree / "s", 90 * CHUNK, (8 * CHUNK, os.urandom(CHUNK)))
    host.commit(release=True)
    key = next(item.key for item in host.store.list(Keys(ALICE).packs))
    data = bytearray(host.store.get(key)[0])
    data[CHUNK // 2] ^= 1
    host.store.put(key, bytes(data))
    assert len(Verifier(host.store, host.repository).verify(ALICE).damaged) == 1
    with pytest.raises(VerifyMismatch):
        list(host.repository.generations.read(ALICE, "s"))


def test_zeros_are_told_from_data(tmp_path: Path) -> None:
    """Holes, written zeros, and a byte at either end."""
    path = sparse(tmp_path / "s", 100 * CHUNK, (10 * CHUNK, bytes(CHUNK)), (20 * CHUNK, b"x"))
    with path.open("rb") as file:
        fd = file.fileno()
        assert reads_as_zeros(fd, 0, 20 * CHUNK)
        assert not reads_as_zeros(fd, 0, 20 * CHUNK + 1)
        assert not reads_as_zeros(fd, 20 * CHUNK, 21 * CHUNK)
        assert reads_as_zeros(fd, 20 * CHUNK + 1, 100 * CHUNK)
