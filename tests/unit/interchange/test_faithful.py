"""Out of the store and into it again: a tree of all that a kernel allows stays what it was, whichever way it takes."""

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from claw_runtime.interchange.tar_in import Interchange
from claw_runtime.interchange.tar_out import exported
from claw_runtime.interchange.untar import unpack
from claw_runtime.objects.directory import DirectoryStore
from claw_runtime.safefs.removal import remove_tree
from claw_runtime.state.repository import CommitRequest, CommitResult, Repository
from claw_runtime.state.rules.selection import EVERYTHING
from claw_runtime.tenancy import Layout, TenantId, tenant_id
from fakes.clock import FakeClock
from fakes.trees import blocks, deep, grow, look
from hypothesis import given, settings
from hypothesis import strategies as st

ALICE, BOB = tenant_id("alice"), tenant_id("bob")
READER = Path(__file__).parents[3] / "docs" / "examples" / "state_reader.py"
SEEDS = range(5)


class Ways:
    """One store, and every way out of it and into it."""

    def __init__(self, home: Path) -> None:
        self.home, self._count = home, 0
        self.bucket = self.fresh()
        self.repository = Repository(DirectoryStore(self.bucket), "here", FakeClock(), home / "scratch")

    def fresh(self) -> Path:
        self._count += 1
        path = self.home / f"d{self._count}"
        path.mkdir()
        return path

    def commit(self, tree: Path, tenant: TenantId = ALICE) -> CommitResult:
        lease = self.repository.leases.acquire(tenant)
        request = CommitRequest(
            right=self.repository.restorer.adopt(lease, lease.head.generation),
            tree=tree,
            selection=EVERYTHING,
            image_digest="",
            application="",
            release=True,
        )
        return self.repository.committer.commit(request)

    def restored(self, tenant: TenantId = ALICE) -> Path:
        target = self.home / f"restored-{tenant}-{self._count}"
        self.repository.restorer.restore(self.repository.leases.acquire(tenant), target)
        self.repository.leases.give_back(tenant)
        return target

    def tar(self, tenant: TenantId = ALICE) -> Path:
        path = self.fresh() / "state.tar"
        with path.open("wb") as file:
            file.writelines(exported(self.repository, self.repository.generations.manifest(tenant)))
        return path

    def pulled(self) -> Path:
        target = self.fresh()
        with self.tar().open("rb") as file:
            assert unpack(file, target, name="x", contents=True, state=True).skipped == []
        return target

    def imported(self, source: Path, tenant: TenantId = BOB) -> Path:
        interchange = Interchange(self.repository, Layout(self.fresh(), self.fresh()), _still)
        done, skipped = interchange.bring(tenant, source)
        assert (skipped, done.created) == ([], True)
        return self.restored(tenant)

    def read(self) -> Path:
        target = self.fresh() / "out"
        done = subprocess.run(
            [sys.executable, READER, self.bucket, "alice", "-x", target], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return target


@contextmanager
def _still(_tenant: TenantId) -> Iterator[Callable[[int], None]]:
    yield lambda _generation: None


@pytest.fixture
def ways(tmp_path: Path) -> Iterator[Ways]:
    yield Ways(tmp_path)
    remove_tree(tmp_path)  # with directories of any mode


def same(found: Path, tree: Path, *, more: int = 16 * 1024) -> None:
    """Every fact of every name is equal, and holes are holes: no file takes `more` bytes than it did."""
    assert look(found) == look(tree)
    before, after = blocks(tree), blocks(found)
    assert {path: size for path, size in after.items() if size > before[path] + more} == {}


@pytest.mark.parametrize("seed", SEEDS)
class TestAnyTree:
    """Bytes, modes, nanoseconds, attributes, holes and links; any names, modes without a right, times before 1970."""

    def test_a_restore(self, ways: Ways, seed: int) -> None:
        """A claim gets the tree that was committed."""
        tree = grow(ways.fresh(), seed)
        assert ways.commit(tree).reported == ()
        same(ways.restored(), tree)

    def test_a_tar_and_back(self, ways: Ways, seed: int) -> None:
        """`sync export`, then `sync import` into another tenant; and the state of that one is exported as the same."""
        tree = grow(ways.fresh(), seed)
        ways.commit(tree)
        tar = ways.tar()
        same(ways.imported(tar), tree)
        assert ways.tar(BOB).read_bytes() == tar.read_bytes()

    def test_a_directory_and_back(self, ways: Ways, seed: int) -> None:
        """`sync pull`, and `sync import` of what it made."""
        tree = grow(ways.fresh(), seed)
        ways.commit(tree)
        pulled = ways.pulled()
        same(pulled, tree)
        same(ways.imported(pulled), tree)

    @pytest.mark.spawns
    def test_the_independent_reader(self, ways: Ways, seed: int) -> None:
        """Without claw, from a copy of the bucket; holes are as fine as the format has them."""
        tree = grow(ways.fresh(), seed)
        ways.commit(tree)
        same(ways.read(), tree, more=512 * 1024)


@pytest.mark.spawns
@pytest.mark.parametrize(("pages", "of"), [(1, 7), (1, 16), (5, 16), (12, 16), (20, 32)])
def test_holes_of_small_files_stay_holes(ways: Ways, pages: int, of: int) -> None:
    """Of a file that is one chunk or two, with pages that do not compress; before them, behind them and both."""
    tree = ways.fresh()
    for start in (0, (of - pages) // 2, of - pages):
        with (tree / f"at{start}").open("wb") as file:
            file.seek(start * 4096)
            file.write(os.urandom(pages * 4096))
            file.truncate(of * 4096)
    ways.commit(tree)
    for found in (ways.restored(), ways.pulled(), ways.imported(ways.tar())):
        same(found, tree, more=0)
    same(ways.read(), tree, more=0)


def test_holes_shorter_than_a_chunk_stay_holes(ways: Ways) -> None:
    """A file with one page in each chunk would otherwise come back sixteen times as large."""
    tree = ways.fresh()
    with (tree / "scattered").open("wb") as file:
        for number in range(40):
            file.seek(number * 64 * 1024 + 4096)
            file.write(os.urandom(4096))
    ways.commit(tree)
    for found in (ways.restored(), ways.pulled(), ways.imported(ways.tar())):
        same(found, tree)


@pytest.mark.spawns
@settings(max_examples=6, derandomize=True)
@given(rng=st.randoms(use_true_random=True), levels=st.sampled_from((0, 1, 255)))
def test_every_way_gives_the_same_tree(tmp_path_factory: pytest.TempPathFactory, rng: Random, levels: int) -> None:
    """A restore, `sync pull`, `sync export` and `import`, and the independent reader, for any tree that is drawn: also
    one as deep as a state may be."""
    ways = Ways(tmp_path_factory.mktemp("ways"))
    try:
        tree = ways.fresh()
        os.close(deep(tree, levels, "deep"))
        grow(tree, rng, names=25)
        assert ways.commit(tree).reported == ()
        for found in (ways.restored(), ways.pulled(), ways.imported(ways.tar())):
            same(found, tree)
        same(ways.read(), tree, more=512 * 1024)
    finally:
        remove_tree(ways.home)


@pytest.mark.spawns
@pytest.mark.skipif(shutil.which("tar") is None, reason="there is no tar")
class TestGnuTar:
    """The tar of the machine reads what is exported, and what it writes is imported.

    Not with modes that deny its own user: it sets attributes after modes.
    """

    @pytest.mark.parametrize("seed", SEEDS)
    def test_it_reads_an_export(self, ways: Ways, seed: int) -> None:
        """`tar --xattrs -xpf` makes the same tree, holes included, and does not complain."""
        tree, out = grow(ways.fresh(), seed, modes=(0o700, 0o755, 0o777)), ways.fresh()
        ways.commit(tree)
        tar("--xattrs", "--xattrs-include=*", "-xpf", ways.tar(), "-C", out)
        same(out, tree, more=512 * 1024)

    @pytest.mark.parametrize("form", ["posix", "gnu"])
    @pytest.mark.parametrize("seed", SEEDS)
    def test_it_is_imported(self, ways: Ways, seed: int, form: str) -> None:
        """Names with `./`, sparse files in every form of tar; attributes and nanoseconds where the form has them."""
        tree = grow(ways.fresh(), seed, modes=(0o700, 0o500, 0o555, 0o777))
        file = ways.fresh() / "t.tar"
        tar(*(["--xattrs"] if form == "posix" else []), "--sparse", f"--format={form}", "-cpf", file, "-C", tree, ".")
        found = ways.imported(file)
        if form == "posix":
            same(found, tree)
        else:
            assert {path: one[0] for path, one in look(found).items()} == {p: one[0] for p, one in look(tree).items()}
            assert {p: one[4:] for p, one in look(found).items()} == {p: one[4:] for p, one in look(tree).items()}


def tar(*words: object) -> None:
    """Run it. Odd times, and the keyword that protects readers of an odd attribute, are no mistakes."""
    quiet = "--warning=no-timestamp", "--warning=no-unknown-keyword"
    done = subprocess.run(["tar", *quiet, *map(str, words)], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_tar_without_directories(ways: Ways) -> None:
    """Nested files come with the directories that they need, which a later entry may still describe."""
    path = ways.fresh() / "t.tar"
    with tarfile.open(path, "w") as made:
        for name in ("a/b/c/one", "./a/two", "d//three"):
            made.addfile(tarfile.TarInfo(name))
        late = tarfile.TarInfo("a/b")
        late.type, late.mode, late.mtime = tarfile.DIRTYPE, 0o500, 7
        made.addfile(late)

    found = look(ways.imported(path))

    assert sorted(found) == [b"a", b"a/b", b"a/b/c", b"a/b/c/one", b"a/two", b"d", b"d/three"]
    assert found[b"a/b"][:3] == ("d", 0o500, 7_000_000_000)
    assert found[b"a"][1] == found[b"d"][1] == 0o755


def test_a_link_that_leads_out_is_never_followed(ways: Ways) -> None:
    """A state may hold it; a file below it in the tar is left out, and what it leads to stays."""
    outside, path, target = ways.fresh(), ways.fresh() / "t.tar", ways.fresh()
    with tarfile.open(path, "w") as made:
        link = tarfile.TarInfo("l")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        for member in (link, tarfile.TarInfo("l/x"), tarfile.TarInfo("z")):
            made.addfile(member)

    with path.open("rb") as file:
        copied = unpack(file, target, name="x", contents=True, state=True)

    assert os.readlink(target / "l") == str(outside)
    assert (sorted(os.listdir(target)), os.listdir(outside)) == (["l", "z"], [])
    assert [one.path for one in copied.skipped] == ["l/x"]


def test_a_hole_of_terabytes_takes_no_room(ways: Ways) -> None:
    """In a tar it is a line of a map."""
    tree = ways.fresh()
    with (tree / "sparse").open("wb") as file:
        file.seek(2**31)
        file.write(b"word")
        file.truncate(2**31 + 2**20)
    ways.commit(tree)

    path = ways.tar()
    assert path.stat().st_size < 100_000
    same(ways.imported(path), tree)
    with tarfile.open(path) as opened:
        assert [(one.name, one.size) for one in opened] == [("sparse", 2**31 + 2**20)]


@pytest.mark.spawns
def test_a_tree_that_is_too_deep_ends_no_commit(ways: Ways) -> None:
    """What lies deeper than the limit is left out and told; everything else is stored, and comes back whichever way."""
    tree = ways.fresh()
    (tree / "diary").write_text("words")
    os.close(deep(tree, 255))
    assert ways.commit(tree).reported == ()
    fd = deep(tree, 300, "m")
    os.close(os.open("lost", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    (tree / "diary").write_text("more words, of today")

    done = ways.commit(tree)

    assert (done.number, [one.path for one in done.reported]) == (2, ["/".join("m" * 256)])
    found = look(ways.restored())
    assert len(found) == 1 + 255 + 256
    assert found == look(ways.pulled()) == look(ways.read()) == look(ways.imported(ways.tar()))
    assert ways.commit(ways.restored()).reported == ()
