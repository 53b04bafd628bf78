"""A hostile tree cannot make us read or write outside of it, and cannot keep us from deleting it."""

import ctypes
import errno
import os
import stat
import threading
import time
from pathlib import Path

import pytest
from claw_runtime.safefs import tree as treewalk
from claw_runtime.safefs.levels import Listing
from claw_runtime.safefs.opening import NotRegular
from claw_runtime.safefs.removal import remove_tree
from claw_runtime.safefs.tree import Found, Skipped, Tree
from fakes.trees import deep, unprivileged


def paths(tree: Tree) -> list[str]:
    return [found.path for found in tree.walk()]


def test_links_are_reported_never_followed(zoo: Path) -> None:
    """Each link is one entry with its target; nothing below it appears; pipes and sockets are skipped by name."""
    with Tree(zoo) as tree:
        found = list(tree.walk())
    links = {item.path: item.target for item in found if isinstance(item, Found) and item.kind == "l"}
    assert set(links) == {"absolute", "upwards", "file", "dangling", "loop", "self"}
    assert links["upwards"] == "../bob"
    assert [item.path for item in found if isinstance(item, Skipped)] == ["pipe", "socket"]
    assert [item.path for item in found if isinstance(item, Found) and item.kind != "l"] == ["d", "d/cred"]


@pytest.mark.parametrize("name", ["file", "dangling", "loop", "pipe", "socket", "d", "absolute/cred", "upwards/cred"])
def test_only_a_file_of_the_tree_can_be_opened(zoo: Path, name: str) -> None:
    """A link, a pipe (without hanging), a socket, a directory, and a path through a link are refused."""
    with Tree(zoo) as tree, tree.cursor() as cursor, pytest.raises(OSError), cursor.reading(name):  # noqa: PT011
        pass


@pytest.mark.parametrize("name", ["absolute/new", "upwards/new", "self/new", "file", "dangling", "pipe"])
def test_nothing_is_written_through_a_link(zoo: Path, neighbour: Path, name: str) -> None:
    """Neither a file nor a directory nor a link is made where a link leads, nor over a name that is there."""
    with Tree(zoo) as tree, tree.cursor() as cursor:
        for make in (
            lambda: cursor.write_file(name, b"x", mode=0o600, mtime_ns=0),
            lambda: cursor.make_directory(name),
            lambda: cursor.make_link(name, "x", mtime_ns=0),
        ):
            with pytest.raises(OSError):  # noqa: PT011
                make()
    assert [path.name for path in neighbour.iterdir()] == ["cred"]
    assert not (zoo / "nowhere").exists()


def test_an_existing_file_is_patched_only_if_it_is_one(zoo: Path, neighbour: Path) -> None:
    """A link in its place is refused."""
    with Tree(zoo) as tree, tree.cursor() as cursor:
        for name in ("file", "d", "pipe"):
            with pytest.raises(OSError), cursor.patching(name):  # noqa: PT011
                pass
    assert (neighbour / "cred").read_text() == "BOB"


def test_a_root_that_is_a_link_is_no_tree(zoo: Path) -> None:
    """The root itself is opened without following."""
    with pytest.raises(OSError, match="Not a directory"):
        Tree(zoo / "absolute")


def _exchange(first: Path, second: Path, stop: threading.Event, count: list[int]) -> None:
    """Swap two names without pause, as fast as the kernel can."""
    renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    names = os.fsencode(first), os.fsencode(second)
    while not stop.is_set():
        for _ in range(50):
            renameat2(-100, names[0], -100, names[1], 2)
        count[0] += 50
        time.sleep(0)


def test_no_race_leaks_a_neighbours_byte(tmp_path: Path, neighbour: Path) -> None:
    """While a directory and a link to the neighbour change places all the time, every byte read is the tenant's own."""
    root = tmp_path / "alice"
    (root / "d").mkdir(parents=True)
    (root / "d" / "cred").write_text("alice")
    (root / "l").symlink_to(neighbour)
    stop, swaps, seen = threading.Event(), [0], []
    attacker = threading.Thread(target=_exchange, args=(root / "d", root / "l", stop, swaps))
    attacker.start()
    try:
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            with Tree(root) as tree, tree.cursor() as cursor:
                for found in tree.walk():
                    if isinstance(found, Found) and found.kind == "f":
                        try:
                            with cursor.reading(found.path) as fd:
                                seen.append(os.read(fd, 10))
                        except OSError:
                            continue
                for path in ("d/cred", "l/cred"):
                    try:
                        with cursor.reading(path) as fd:
                            seen.append(os.read(fd, 10))
                    except OSError:
                        continue
    finally:
        stop.set()
        attacker.join()
    assert swaps[0] > 100
    assert len(seen) > 100
    assert set(seen) == {b"alice"}


def test_no_race_writes_into_a_neighbour(tmp_path: Path, neighbour: Path) -> None:
    """The same attack on the way down: files are made in the tree or not at all."""
    root = tmp_path / "alice"
    (root / "d").mkdir(parents=True)
    (root / "l").symlink_to(neighbour)
    stop, swaps, made = threading.Event(), [0], 0
    attacker = threading.Thread(target=_exchange, args=(root / "d", root / "l", stop, swaps))
    attacker.start()
    try:
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            with Tree(root) as tree, tree.cursor() as cursor:
                try:
                    cursor.write_file(f"d/{made}", b"x", mode=0o600, mtime_ns=0)
                    made += 1
                except OSError:
                    continue
    finally:
        stop.set()
        attacker.join()
    assert swaps[0] > 100
    assert made > 10
    assert [path.name for path in neighbour.iterdir()] == ["cred"]


def test_the_order_is_parents_first_by_bytes(tmp_path: Path) -> None:
    """The same tree always gives the same sequence."""
    for name in ("b/x", "a/y/z", "a-", "a.b"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with Tree(tmp_path) as tree:
        assert paths(tree) == ["a", "a/y", "a/y/z", "a-", "a.b", "b", "b/x"]


def test_a_directory_that_is_not_entered_is_named_alone(tmp_path: Path) -> None:
    """Whoever walks decides after it was told of the directory; one that stays shut is never opened."""
    for name in ("tmp/x", "a/tmp/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "tmp").chmod(0o000)
    with Tree(tmp_path) as tree:
        assert [path for path, _ in tree.scan(lambda path: path != "tmp")] == ["a", "a/tmp", "a/tmp/x", "tmp"]


def test_a_walk_may_begin_below(tmp_path: Path) -> None:
    """Paths are relative to the root all the same, and no directory on the way is given."""
    for name in ("a/b/x", "a/b/c/y", "a/z"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with Tree(tmp_path) as tree:
        assert [path for path, _ in tree.scan(below="a/b")] == ["a/b/c", "a/b/c/y", "a/b/x"]
        with pytest.raises(NotADirectoryError):
            list(tree.scan(below="a/z"))


def listed(tree: Tree) -> dict[str, Listing]:
    """A walk's listings, as if each had begun a second later: none is racy."""
    found: dict[str, Listing] = {}
    for _ in tree.scan(listed=found.__setitem__):
        pass
    return {path: one._replace(began_ns=one.began_ns + 10**9) for path, one in found.items()}


def test_directories_whose_names_changed_are_found(tmp_path: Path) -> None:
    """A new name, a name that went, another directory under the name, and one that is gone; content is no name."""
    for name in ("a/b/c/x", "a/b-/x", "d/x", "e/f/x", "g/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "l").symlink_to("a")
    with Tree(tmp_path) as tree:
        listings = listed(tree)
        assert list(listings) == ["", "a", "a/b", "a/b/c", "a/b-", "d", "e", "e/f", "g"]
        (tmp_path / "g/x").write_text("more")
        assert list(tree.changed(listings)) == []
        (tmp_path / "a/b/c/new").touch()
        (tmp_path / "a/b-/x").unlink()
        (tmp_path / "d").rename(tmp_path / "e/d")
        (tmp_path / "g").rename(tmp_path / "e/f/g")
        (tmp_path / "g").symlink_to("a")
        found = {path: status is not None for path, status in tree.changed(listings)}
    assert found == {"": True, "a/b/c": True, "a/b-": True, "d": False, "e": True, "e/f": True, "g": True}


def test_a_change_of_names_whose_time_is_set_back_is_found(tmp_path: Path) -> None:
    """The time of a directory is the tenant's to set; that of its inode is not."""
    (tmp_path / "a").mkdir()
    before = (tmp_path / "a").stat()
    with Tree(tmp_path) as tree:
        listings = listed(tree)
        (tmp_path / "a/x").touch()
        os.utime(tmp_path / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
        assert [path for path, _ in tree.changed(listings)] == ["a"]


@pytest.mark.spawns
def test_a_closed_directory_counts_as_unchanged() -> None:
    """Reading it sets the time of its inode, since its mode is changed for a moment: its names' time alone counts."""

    def check(root: Path) -> None:
        (root / "closed").mkdir()
        (root / "closed").chmod(0o000)
        with Tree(root) as tree:
            listings = listed(tree)
            assert listings.keys() == {"", "closed"}
            assert list(tree.changed(listings)) == []
            (root / "closed").chmod(0o700)
            (root / "closed" / "x").touch()
            (root / "closed").chmod(0o000)
            assert [path for path, _ in tree.changed(listings)] == ["closed"]

    unprivileged(check)


@pytest.mark.spawns
def test_modes_are_no_obstacle_and_stay() -> None:
    """A file and a directory that their own modes close are read, and their modes are as before."""

    def check(root: Path) -> None:
        (root / "closed").mkdir()
        (root / "closed" / "file").write_text("x")
        (root / "closed" / "file").chmod(0o000)
        (root / "closed").chmod(0o000)
        with Tree(root) as tree, tree.cursor() as cursor:
            assert paths(tree) == ["closed", "closed/file"]
            with cursor.reading("closed/file") as fd:
                assert os.read(fd, 9) == b"x"
        (root / "closed").chmod(0o700)
        assert stat.S_IMODE((root / "closed" / "file").stat().st_mode) == 0
        (root / "closed").chmod(0o000)

    unprivileged(check)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("mode", [0o000, 0o400, 0o640, 0o644, 0o777, 0o6755])
def test_a_new_file_has_its_mode(tmp_path: Path, umask: int, mode: int) -> None:
    """A new file has the permissions that it is to have, and nothing more, whatever the umask of this process is."""
    before = os.umask(umask)
    try:
        with Tree(tmp_path) as tree, tree.cursor() as cursor:
            cursor.write_file("file", b"x", mode=mode, mtime_ns=0)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode & 0o777


def test_a_tree_without_bottom_is_reported_and_removed(tmp_path: Path) -> None:
    """A thousand directories deep: a walk takes no more descriptors than its limit, and tells; removal goes through."""
    root = tmp_path / "deep"
    root.mkdir()
    os.close(deep(root, 1000, "d" * 20))
    (root / "z").touch()
    with Tree(root) as tree:
        found = paths(tree)
        assert (len(found), found[-1]) == (treewalk.MAX_DEPTH + 2, "z")
        assert found[-3] == found[-2]
        told = [one for one in tree.walk() if isinstance(one, Skipped)]
        assert [one.reason for one in told] == ["what is in it lies more than 256 directories deep"]
        with pytest.raises(OSError, match="directories deep") as refused:
            list(tree.scan())
    assert refused.value.errno == errno.ELOOP
    remove_tree(root)
    assert not root.exists()


def test_an_empty_directory_at_the_limit_is_none_too_deep(tmp_path: Path) -> None:
    """Nothing of it is left out."""
    os.close(deep(tmp_path, treewalk.MAX_DEPTH))
    with Tree(tmp_path) as tree:
        assert len(list(tree.scan())) == len(paths(tree)) == treewalk.MAX_DEPTH
    remove_tree(tmp_path / "n")


def test_walks_and_cursors_give_their_descriptors_back(zoo: Path) -> None:
    """Also when the walk is not finished and when opening fails."""
    before = len(os.listdir("/proc/self/fd"))
    with Tree(zoo) as tree, tree.cursor() as cursor:
        next(tree.walk())
        paths(tree)
        for name in ("d/cred", "d/none", "file", "pipe", "absolute/cred"):
            try:
                with cursor.reading(name):
                    pass
            except OSError:
                pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_link_that_is_asked_for_as_a_file_says_so(zoo: Path) -> None:
    """Callers can tell a link from a file that is gone."""
    with Tree(zoo) as tree, tree.cursor() as cursor:
        with pytest.raises(NotRegular), cursor.reading("file"):
            pass
        with pytest.raises(FileNotFoundError), cursor.reading("d/none"):
            pass


def test_the_depth_that_is_walked_is_the_depth_that_is_restored() -> None:
    """The manifest's own limit is the walk's."""
    from claw_runtime.formats import rows

    assert rows.MAX_DEPTH == treewalk.MAX_DEPTH
