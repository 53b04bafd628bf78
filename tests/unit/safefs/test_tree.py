"""A hostile tree cannot make us read or write outside of it, and cannot keep us from deleting it."""

import ctypes
import errno
import os
import socket
import stat
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from claw_runtime.safefs import tree as treewalk
from claw_runtime.safefs.levels import Listing
from claw_runtime.safefs.opening import NotRegular
from claw_runtime.safefs.tree import Found, Skipped, Tree, move_entries, remove_tree
from fakes.trees import deep


@pytest.fixture
def neighbour(tmp_path: Path) -> Path:
    """Somebody else's directory, whose content must never be seen or changed."""
    root = tmp_path / "bob"
    root.mkdir()
    (root / "cred").write_text("BOB")
    return root


@pytest.fixture
def zoo(tmp_path: Path, neighbour: Path) -> Path:
    """A tree with every kind of link and special file."""
    root = tmp_path / "alice"
    (root / "d").mkdir(parents=True)
    (root / "d" / "cred").write_text("alice")
    (root / "absolute").symlink_to(neighbour)
    (root / "upwards").symlink_to("../bob")
    (root / "file").symlink_to(neighbour / "cred")
    (root / "dangling").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    (root / "self").symlink_to(".")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as unix, _in(root):
        unix.bind("socket")
    return root


@contextmanager
def _in(directory: Path) -> Iterator[None]:
    """A Unix socket's path must be short."""
    before = Path.cwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)


def paths(tree: Tree) -> list[str]:
    return [found.path for found in tree.walk()]


def test_links_are_told_never_followed(zoo: Path) -> None:
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


def test_a_tree_without_bottom_is_told_and_removed(tmp_path: Path) -> None:
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


# --- moving and removing ---


def test_entries_move_as_they_are(zoo: Path, tmp_path: Path, neighbour: Path) -> None:
    """Links stay links, nothing is copied, the source is left empty, and the inodes are the same."""
    inode = (zoo / "d" / "cred").stat().st_ino
    (tmp_path / "new").mkdir()
    assert move_entries(zoo, tmp_path / "new") == 9
    assert list(zoo.iterdir()) == []
    assert (tmp_path / "new" / "d" / "cred").stat().st_ino == inode
    assert os.readlink(tmp_path / "new" / "upwards") == "../bob"
    assert (neighbour / "cred").read_text() == "BOB"


def test_a_move_never_replaces(tmp_path: Path) -> None:
    """A name that is taken stops it; what is there stays; a second try moves the rest."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same").write_text(name)
    with pytest.raises(FileExistsError):
        move_entries(tmp_path / "a", tmp_path / "b")
    assert [(tmp_path / name / "same").read_text() for name in ("a", "b")] == ["a", "b"]
    (tmp_path / "b" / "same").unlink()
    assert move_entries(tmp_path / "a", tmp_path / "b") == 1


@pytest.mark.parametrize("linked", ["source", "target"])
def test_a_move_does_not_follow_its_own_arguments(tmp_path: Path, neighbour: Path, linked: str) -> None:
    """Source and target must be directories, not links to some."""
    for name in ("source", "target"):
        if name == linked:
            (tmp_path / name).symlink_to(neighbour)
        else:
            (tmp_path / name).mkdir()
    with pytest.raises(OSError, match="Not a directory"):
        move_entries(tmp_path / "source", tmp_path / "target")
    assert (neighbour / "cred").exists()


@pytest.mark.spawns
def test_a_read_only_directory_moves_and_stays_read_only() -> None:
    """The kernel wants write permission on a directory that changes its parent; ours is lent for that long."""

    def check(root: Path) -> None:
        (root / "a" / "closed").mkdir(parents=True)
        (root / "b").mkdir()
        (root / "a" / "closed").chmod(0o555)
        assert move_entries(root / "a", root / "b") == 1
        assert stat.S_IMODE((root / "b" / "closed").stat().st_mode) == 0o555

    unprivileged(check)


def test_removal_follows_no_link(zoo: Path, neighbour: Path) -> None:
    """The tree is gone, the neighbour is whole."""
    remove_tree(zoo)
    assert not zoo.exists()
    assert (neighbour / "cred").read_text() == "BOB"


def test_removal_of_nothing_is_fine_and_of_a_link_is_not(tmp_path: Path, neighbour: Path) -> None:
    """A missing path, also a missing parent; a link is left alone, and so is a file."""
    remove_tree(tmp_path / "none")
    remove_tree(tmp_path / "none" / "below")
    (tmp_path / "link").symlink_to(neighbour)
    for path in (tmp_path / "link", neighbour / "cred"):
        with pytest.raises(NotADirectoryError):
            remove_tree(path)
    assert (neighbour / "cred").read_text() == "BOB"


@pytest.mark.spawns
def test_removal_minds_no_modes() -> None:
    """Directories without any permission bit, files without, and names that are not text."""

    def check(root: Path) -> None:
        victim = root / "victim"
        (victim / "a" / "b").mkdir(parents=True)
        (victim / "a" / "b" / os.fsdecode(b"\xff\n")).touch(mode=0o000)
        (victim / "a" / "b").chmod(0o000)
        (victim / "a").chmod(0o111)
        victim.chmod(0o000)
        remove_tree(victim)
        assert not victim.exists()

    unprivileged(check)


def unprivileged(check: Callable[[Path], None]) -> None:
    """Run a check in a directory of its own as a user for whom modes mean something."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        if os.geteuid() != 0:
            check(root)
            return
        os.chown(root, 65534, 65534)
        child = os.fork()
        if not child:
            code = 1
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                check(root)
                code = 0
            finally:
                if code:
                    traceback.print_exc()
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0


def test_directories_that_are_mounted_are_joined(tmp_path: Path) -> None:
    """A directory that a container has mounted stays the same inode, and gets what the moved tree has in it."""
    old, new = tmp_path / "old", tmp_path / "new"
    (old / ".volumes/comm/deep").mkdir(parents=True)
    (old / ".volumes/comm/note").write_text("hello")
    (old / ".volumes/other").mkdir()
    (old / "plain").write_text("x")
    (new / ".volumes/comm").mkdir(parents=True)
    mounted = (new / ".volumes/comm").stat().st_ino

    assert move_entries(old, new, into={".volumes/comm"}) == 2

    assert (new / ".volumes/comm").stat().st_ino == mounted
    assert (new / ".volumes/comm/note").read_text() == "hello"
    assert (new / ".volumes/comm/deep").is_dir()
    assert (new / ".volumes/other").is_dir()
    assert list(old.iterdir()) == []


def test_a_link_in_the_place_of_a_mounted_directory_is_not_followed(tmp_path: Path) -> None:
    """What a tenant put where its mounted directory belongs is set aside as it is, and nothing outside is touched."""
    old, new, outside = tmp_path / "old", tmp_path / "new", tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("x")
    old.mkdir()
    (old / "comm").symlink_to(outside)
    (new / "comm").mkdir(parents=True)
    move_entries(old, new, into={"comm"})
    assert (outside / "secret").exists()
    assert list((new / "comm").iterdir()) == []
    assert [path.is_symlink() for path in sorted(new.iterdir())] == [False, True]


def test_the_depth_that_is_walked_is_the_depth_that_is_restored() -> None:
    """The manifest's own limit is the walk's."""
    from claw_runtime.formats import rows

    assert rows.MAX_DEPTH == treewalk.MAX_DEPTH
