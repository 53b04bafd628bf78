"""Copies out of a container: what a tar of a hostile tree can do to this host, which is nothing."""

import errno
import io
import os
import stat
import tarfile
from pathlib import Path

import pytest
from claw_runtime.errors import ClawError, DiskFull
from claw_runtime.fsutil import Room
from claw_runtime.interchange import untar
from claw_runtime.interchange.untar import TornTar, Unpacked, unpack

Entry = tuple[str, str, object]
"""Name, type (`f`, `d`, `l` link, `h` hard link, `p` fifo, `c` device), content or target."""

TYPES = {"d": tarfile.DIRTYPE, "l": tarfile.SYMTYPE, "h": tarfile.LNKTYPE, "p": tarfile.FIFOTYPE, "c": tarfile.CHRTYPE}


def tar(*entries: Entry, modes: dict[str, int] | None = None) -> io.BytesIO:
    """A tar of these entries, in their order."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w", format=tarfile.PAX_FORMAT) as made:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.type = TYPES.get(kind, tarfile.REGTYPE)
            info.mode = (modes or {}).get(name, 0o755 if kind == "d" else 0o644)
            info.mtime = 1_700_000_000
            info.uid = info.gid = 0
            data = str(content).encode() if kind == "f" else b""
            info.size = len(data)
            info.linkname = "" if kind in "fdpc" else str(content)
            made.addfile(info, io.BytesIO(data))
    body.seek(0)
    return body


def odd_entry(name: str, kind: bytes, headers: dict[str, str]) -> tarfile.TarInfo:
    """An entry with PAX headers of its own; a link leads to `z`."""
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname, info.pax_headers = kind, 0o700, "z" if kind == tarfile.SYMTYPE else "", headers
    return info


def tree(root: Path) -> dict[str, str]:
    """Every file and link below a directory, with its content or target."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = path.read_text()
    return found


def left_out(copied: Unpacked) -> dict[str, str]:
    return {skipped.path: skipped.reason for skipped in copied.skipped}


class TestWhere:
    """`cp -r`'s rules for where a copy goes."""

    def test_a_file_into_a_directory(self, tmp_path: Path) -> None:
        """It keeps the name that it was asked for by, which a link may have had."""
        copied = unpack(tar(("real", "f", "blue")), tmp_path, name="asked")

        assert (tree(tmp_path), copied.files, copied.bytes) == ({"asked": "blue"}, 1, 4)

    def test_a_file_under_a_new_name(self, tmp_path: Path) -> None:
        """A target that is not there is the file's new name, and one that is there is replaced."""
        for content in ("blue", "red"):
            unpack(tar(("notes", "f", content)), tmp_path / "copy", name="notes")

            assert tree(tmp_path) == {"copy": content}

    def test_a_directory_into_another(self, tmp_path: Path) -> None:
        """Into a directory that is there it goes under its own name."""
        unpack(tar(("d", "d", ""), ("d/a", "f", "1"), ("d/b", "d", ""), ("d/b/c", "f", "2")), tmp_path, name="d")

        assert tree(tmp_path) == {"d/a": "1", "d/b/c": "2"}

    def test_a_directory_under_a_new_name(self, tmp_path: Path) -> None:
        """A target that is not there becomes the directory; copied again, it goes into it, as with `cp -r`."""
        entries = (("d", "d", ""), ("d/a", "f", "1"))
        unpack(tar(*entries), tmp_path / "new", name="d")

        assert tree(tmp_path) == {"new/a": "1"}
        unpack(tar(*entries), tmp_path / "new", name="d")
        assert tree(tmp_path) == {"new/a": "1", "new/d/a": "1"}

    def test_what_is_in_a_directory(self, tmp_path: Path) -> None:
        """`DIRECTORY/.` goes right into the target, beside what is there, also when there is nothing in it."""
        (tmp_path / "old").write_text("stays")
        unpack(tar(("./a", "f", "1"), ("b", "f", "2")), tmp_path, name="d", contents=True)
        unpack(tar(), tmp_path / "empty", name="d", contents=True)

        assert tree(tmp_path) == {"a": "1", "b": "2", "old": "stays"}
        assert (tmp_path / "empty").is_dir()

    def test_through_a_link_of_the_operators_own(self, tmp_path: Path) -> None:
        """The target itself may be a link: that one the operator named."""
        (tmp_path / "disk").mkdir()
        (tmp_path / "link").symlink_to("disk")
        unpack(tar(("d", "d", ""), ("d/a", "f", "1")), tmp_path / "link", name="d")

        assert tree(tmp_path / "disk") == {"d/a": "1"}

    @pytest.mark.parametrize("target", ["file/x", "nowhere/x", "file"])
    def test_where_nothing_can_be(self, tmp_path: Path, target: str) -> None:
        """A target below a file or below nothing, and a directory over a file, are one clear error."""
        (tmp_path / "file").write_text("")

        with pytest.raises(ClawError, match="cannot copy to"):
            unpack(tar(("d", "d", ""), ("d/a", "f", "1")), tmp_path / target, name="d")

    def test_names_that_are_no_text(self, tmp_path: Path) -> None:
        """Bytes that are no UTF-8, line ends and escapes in names are copied as they are."""
        names = ["a\nb", "\x1b[2J", os.fsdecode(b"\xff"), " ..", "a" * 255]
        unpack(tar(("d", "d", ""), *[(f"d/{name}", "f", "x") for name in names]), tmp_path, name="d")

        assert sorted(os.listdir(tmp_path / "d")) == sorted(names)


class TestWhat:
    def test_modes_and_times(self, tmp_path: Path) -> None:
        """Permissions and times are the tenant's, bits that give rights to others are not; the owner is who copies."""
        modes = {"d": 0o2500, "d/s": 0o6755, "d/x": 0o600}
        unpack(tar(("d", "d", ""), ("d/s", "f", ""), ("d/x", "f", ""), modes=modes), tmp_path / "n", name="d")

        found = {name: (tmp_path / "n" / name).stat() for name in ("s", "x")}
        assert stat.S_IMODE(found["s"].st_mode) == 0o755
        assert stat.S_IMODE(found["x"].st_mode) == 0o600
        assert {entry.st_mtime for entry in found.values()} == {1_700_000_000}
        assert {entry.st_uid for entry in found.values()} == {os.geteuid()}

    @pytest.mark.parametrize("time", ["inf", "-inf", "nan", "9e99", str(2**62), str(-(2**62)), "-1"])
    @pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE])
    def test_no_time_keeps_a_file_from_being_copied(self, tmp_path: Path, kind: bytes, time: str) -> None:
        """A file with a time that cannot be is copied all the same, and those after it too."""
        body = io.BytesIO()
        with tarfile.open(fileobj=body, mode="w", format=tarfile.PAX_FORMAT) as made:
            made.addfile(odd_entry("d", tarfile.DIRTYPE, {}))
            made.addfile(odd_entry("d/odd", kind, {"mtime": time}))
            made.addfile(odd_entry("d/z", tarfile.REGTYPE, {}))
        body.seek(0)

        copied = unpack(body, tmp_path / "copy", name="d")

        assert copied.skipped == []
        assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["odd", "z"]

    def test_closed_directories_are_filled_first(self, tmp_path: Path) -> None:
        """A directory that nobody may write to gets its mode when everything is in it."""
        unpack(tar(("d", "d", ""), ("d/c", "d", ""), ("d/c/a", "f", "1"), modes={"d/c": 0o555}), tmp_path, name="d")

        assert stat.S_IMODE((tmp_path / "d" / "c").stat().st_mode) == 0o555
        assert tree(tmp_path) == {"d/c/a": "1"}

    def test_hard_links_stay_one_file(self, tmp_path: Path) -> None:
        """Two names of one file are two names of one file, also when they replace older ones."""
        entries = (("d", "d", ""), ("d/a", "f", "1"), ("d/b", "d", ""), ("d/b/h", "h", "d/a"))
        for _ in range(2):
            copied = unpack(tar(*entries), tmp_path, name="d")

            assert (copied.files, left_out(copied)) == (2, {})
        assert os.stat(tmp_path / "d/a").st_ino == os.stat(tmp_path / "d/b/h").st_ino
        assert not [name for name in tree(tmp_path) if ".claw-" in name]

    def test_what_is_no_file_is_named(self, tmp_path: Path) -> None:
        """Fifos and devices are left out and named; everything else is there."""
        copied = unpack(tar(("d", "d", ""), ("d/p", "p", ""), ("d/c", "c", ""), ("d/z", "f", "1")), tmp_path, name="d")

        assert tree(tmp_path) == {"d/z": "1"}
        assert left_out(copied) == dict.fromkeys(("p", "c"), "not a file, directory or link")


class TestHostile:
    """Every way out of the copy that a tenant can think of."""

    @pytest.fixture
    def host(self, tmp_path: Path) -> Path:
        """A file of the operator's beside the copy, which nothing may change."""
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "keys").write_text("mine")
        (tmp_path / "copy").mkdir()
        return tmp_path

    @pytest.mark.parametrize("name", ["d/../../home/keys", "../home/keys", "/home/keys", "d/./x", "other/x", "d//x"])
    def test_names_that_lead_out(self, host: Path, name: str) -> None:
        """A name with `..`, or that is not below the directory that was asked for, is nothing that is written."""
        copied = unpack(tar(("d", "d", ""), (name, "f", "theirs"), ("d/ok", "f", "1")), host / "copy", name="d")

        assert tree(host) == {"copy/d/ok": "1", "home/keys": "mine"}
        assert list(left_out(copied).values()) == ["its name leads out of the copied directory"]

    @pytest.mark.parametrize(
        "target", ["/etc/passwd", "../../home", "../..", "a/../../../home", "a/..", "./../../x", "b/c/../../../.."]
    )
    def test_links_that_lead_out(self, host: Path, target: str) -> None:
        """A link to another place, or that may become one through other links, is left out and named."""
        copied = unpack(
            tar(("d", "d", ""), ("d/a", "d", ""), ("d/evil", "l", target), ("d/ok", "f", "1")), host / "copy", name="d"
        )

        assert tree(host / "copy") == {"d/ok": "1"}
        assert list(left_out(copied)) == ["evil"]

    @pytest.mark.parametrize("target", ["a/x", "./a", "a", "nowhere"])
    def test_links_that_stay(self, host: Path, target: str) -> None:
        """A link into the copy stays a link, whether there is something or not."""
        copied = unpack(tar(("d", "d", ""), ("d/in", "l", target), ("d/b", "d", ""), ("d/b/up", "l", "../in")),
                        host / "copy", name="d")  # fmt: skip

        assert tree(host / "copy") == {"d/in": f"-> {target}", "d/b/up": "-> ../in"}
        assert left_out(copied) == {}

    def test_a_directory_that_was_a_link(self, host: Path) -> None:
        """The same name first as a link and then as a directory: nothing is written through the link."""
        entries = (("d", "d", ""), ("d/x", "d", ""), ("d/x/y", "d", ""), ("d/l", "l", "x/y"), ("d/l", "d", ""),
                   ("d/l/keys", "f", "theirs"))  # fmt: skip
        copied = unpack(tar(*entries), host / "copy", name="d")

        assert tree(host) == {"copy/d/l": "-> x/y", "home/keys": "mine"}
        assert set(left_out(copied)) == {"l", "l/keys"}

    @pytest.mark.parametrize("planted", ["../../home", "../../home/keys"])
    def test_links_of_an_earlier_copy(self, host: Path, planted: str) -> None:
        """A link that is in the way, from whenever, is replaced by a file and never followed as a directory."""
        (host / "copy" / "d").mkdir()
        (host / "copy" / "d" / "x").symlink_to(planted)
        (host / "copy" / "d" / "keys").symlink_to("../../home/keys")

        copied = unpack(
            tar(("d", "d", ""), ("d/keys", "f", "theirs"), ("d/x", "d", ""), ("d/x/keys", "f", "theirs")),
            host / "copy",
            name="d",
        )

        assert tree(host) == {"copy/d/keys": "theirs", "copy/d/x": f"-> {planted}", "home/keys": "mine"}
        assert set(left_out(copied)) == {"x", "x/keys"}

    def test_a_single_file_over_a_link(self, host: Path) -> None:
        """A link under the file's name is replaced, and what it led to stays."""
        (host / "copy" / "keys").symlink_to("../home/keys")
        unpack(tar(("keys", "f", "theirs")), host / "copy", name="keys")

        assert tree(host) == {"copy/keys": "theirs", "home/keys": "mine"}

    def test_hard_links_to_what_was_not_copied(self, host: Path) -> None:
        """A hard link can only be to a file of this very copy: not to another, nor to one that was there before."""
        (host / "copy" / "d").mkdir()
        (host / "copy" / "d" / "old").write_text("mine")
        entries = [("d", "d", ""), *((f"d/h{n}", "h", target) for n, target in enumerate(
            ["/etc/passwd", "../home/keys", "d/old", "d", "d/h0"]))]  # fmt: skip
        copied = unpack(tar(*entries), host / "copy", name="d")

        assert tree(host / "copy") == {"d/old": "mine"}
        assert len(copied.skipped) == 5

    def test_a_file_over_a_directory(self, host: Path) -> None:
        """A directory that is there is not removed for a file of its name."""
        (host / "copy" / "d" / "x").mkdir(parents=True)
        (host / "copy" / "d" / "x" / "mine").write_text("mine")
        copied = unpack(tar(("d", "d", ""), ("d/x", "f", "theirs")), host / "copy", name="d")

        assert tree(host / "copy") == {"d/x/mine": "mine"}
        assert left_out(copied) == {"x": "is a directory"}

    def test_a_file_larger_than_the_disk(self, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What cannot fit is refused before it is written, with its own error."""
        monkeypatch.setattr(untar, "room", lambda _: Room(size=3, files=None))

        with pytest.raises(DiskFull, match="not enough disk space to copy"):
            unpack(tar(("d", "d", ""), ("d/big", "f", "four")), host / "copy", name="d")
        assert tree(host / "copy") == {}

    def test_zeros_need_no_room(self, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Pages of zeros become holes, so only the pages with data count, in all files together."""
        monkeypatch.setattr(untar, "room", lambda _: Room(size=2 * 4096, files=None))
        thin = "x" + "\0" * ((1 << 16) - 1)

        unpack(tar(("d", "d", ""), ("d/a", "f", thin), ("d/b", "f", thin)), host / "copy", name="d")
        assert (host / "copy" / "d" / "b").read_text() == thin

        with pytest.raises(DiskFull, match="no room for all of it"):
            unpack(tar(("d", "d", ""), ("d/a", "f", thin), ("d/b", "f", thin), ("d/c", "f", "x")),
                   host / "copy", name="d")  # fmt: skip

    def test_a_disk_that_fills_up(self, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A full disk ends the copy; the file that did not fit leaves nothing behind."""

        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(untar, "write_all", full)

        with pytest.raises(DiskFull):
            unpack(tar(("d", "d", ""), ("d/a", "f", "1")), host / "copy", name="d")
        assert tree(host / "copy") == {}

    @pytest.mark.parametrize("cut", [0, 100, 1400])
    def test_a_tar_that_breaks_off(self, host: Path, cut: int) -> None:
        """Half a tar is an error, not half a success."""
        whole = tar(("d", "d", ""), ("d/a", "f", "x" * 3000)).getvalue()

        with pytest.raises(TornTar):
            unpack(io.BytesIO(whole[:cut]), host / "copy", name="d")

    def test_very_deep_trees(self, host: Path) -> None:
        """What lies deeper than any honest tree is left out instead of exhausting us."""
        deep = "d/" + "/".join("x" * 300)
        copied = unpack(tar(("d", "d", ""), (deep, "f", "1")), host / "copy", name="d")

        assert len(copied.skipped) == 1
