"""docs/STATE_FORMAT.md is what is in the bucket: its example is real, and a reader that knows no claw reads claw's."""

import base64
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import zstandard
from claw_runtime.formats import manifest, rows
from claw_runtime.formats import pack as packs
from claw_runtime.formats.envelope import Aes
from claw_runtime.formats.manifest import Base, Entry, Extent, Manifest, Parent, Past
from claw_runtime.objects.directory import DirectoryStore
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.spec.parts import Retention
from claw_runtime.state.commit import bases
from claw_runtime.state.commit.chunker import BLOB
from claw_runtime.state.keyring import Keyring
from claw_runtime.state.lease import heads
from claw_runtime.state.repository import CommitRequest, Repository
from claw_runtime.state.rules.selection import EVERYTHING
from claw_runtime.tenancy import Keys, tenant_id
from fakes.clock import FakeClock
from fakes.format_2 import write_format_2

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "STATE_FORMAT.md").read_text(encoding="utf-8")
READER, SALVAGE = DOCS / "examples" / "state_reader.py", DOCS / "examples" / "state_salvage.py"
ALICE = tenant_id("alice")
BODY, TIME = b"remember blue\n", 1767225600000000000


def block(name: str) -> str:
    found = re.search(rf"^```\w+ {name}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None, name
    return found[1]


def dumped(name: str) -> bytes:
    return b"".join(bytes.fromhex(line[4:]) for line in block(name).splitlines())


class TestExample:
    """What the page prints."""

    pack = dumped("pack")
    digest = hashlib.sha256(pack).hexdigest()

    def document(self) -> Manifest:
        extent = Extent(pack=self.digest, offset=0, stored=23, raw=14)
        return Manifest(
            tenant=ALICE,
            generation=7,
            parent=Parent(generation=6, key=Keys(ALICE).manifest(6, "6" * 64), sha256="6" * 64),
            created="2026-01-01T00:00:01.000+00:00",
            image="sha256:1f",
            application="openclaw 2026.6.11",
            entries=(
                Entry(path="latest", type="l", mode=0o777, mtime_ns=TIME, target="notes/today.md"),
                Entry(path="notes", type="d", mode=0o755, mtime_ns=TIME),
                Entry(
                    path="notes/today.md",
                    type="f",
                    mode=0o644,
                    mtime_ns=TIME,
                    size=14,
                    sha256=hashlib.sha256(BODY).hexdigest(),
                    extents=(extent,),
                ),
            ),
            packs=(manifest.PackRef(sha256=self.digest, size=len(self.pack)),),
            history=(Past(generation=6, sha256="6" * 64, created="2025-12-31T23:00:00.000+00:00", files=1, size=11),),
        )

    def delta(self) -> Manifest:
        """The next generation: its link is gone."""
        document, sha256 = self.document(), json.loads(block("HEAD"))["sha256"]
        return replace(
            document,
            generation=8,
            parent=Parent(generation=7, key=Keys(ALICE).manifest(7, sha256), sha256=sha256),
            base=Base(sha256=sha256, document=document),
            created="2026-01-01T00:00:06.000+00:00",
            entries=document.entries[1:],
            history=(*document.history, document.past(sha256)),
        )

    def test_head_is_what_a_release_writes(self) -> None:
        """Field by field, and its manifest's key follows from its digest."""
        head = heads.decode(block("HEAD").encode(), ALICE)
        assert (head.generation, head.epoch, head.owner) == (7, 4, None)
        assert heads.encode(head).decode() == block("HEAD")

    def test_the_manifest_is_what_claw_writes_and_reads(self) -> None:
        """The same text, line by line; and what zstd made of it is read as that again."""
        assert zstandard.decompress(manifest.encode(self.document())).decode() == block("manifest")
        data = zstandard.ZstdCompressor().compress(block("manifest").encode())
        assert manifest.decode(data, tenant=ALICE) == self.document()

    def test_the_delta_is_what_claw_writes_and_reads(self) -> None:
        """Line by line, on top of the manifest above; the longest chain is two."""
        assert zstandard.decompress(manifest.encode(self.delta())).decode() == block("delta")
        data = zstandard.ZstdCompressor().compress(block("delta").encode())
        assert manifest.decode(data, tenant=ALICE, base_of=lambda *_: self.document()) == self.delta()

    def test_the_pack_holds_the_file_and_says_so(self) -> None:
        """Frame, index, length and magic lie where the page says."""
        assert f"`packs/{self.digest}`" in TEXT
        extent = self.document().entries[2].extents[0]
        assert packs.inflate(self.pack[:23], extent) == BODY
        assert zstandard.decompress(self.pack[0x17:-12]).decode() == block("index").strip()
        assert (self.pack[-12:-8], self.pack[-8:]) == (b"\x5c\0\0\0", packs.MAGIC)
        (piece,) = packs.read_index(self.pack)
        assert (piece.path, piece.at, piece.raw, piece.mode, piece.mtime_ns) == ("notes/today.md", 0, 14, 0o644, TIME)

    def test_the_sealed_frame_opens_with_the_key_that_key_wraps(self) -> None:
        """Operator's key, tenant's key, frame."""
        store = MemoryStore()
        store.put(Keys(ALICE).key, block("KEY").encode())
        key = Keyring(store, [bytes(range(32))]).key(ALICE)
        assert key == bytes(range(0x40, 0x60))
        assert Aes(key, ALICE).open(dumped("sealed"), "frame") == self.pack[:23]
        assert len(dumped("sealed")) == 23 + 28


def test_numbers_are_the_programs() -> None:
    """Limits, sizes and magics of the page."""
    assert f"`{packs.MAGIC.decode()}`, or `{packs.SEALED.decode()}`" in TEXT
    assert (packs.CHUNK, packs.FRAME, packs.LIMIT) == (64 << 10, 1 << 20, 16 << 20)
    assert (manifest.VERSION, manifest.MAX_BYTES, rows.ROWS, rows.MAX_DEPTH) == (3, 512 << 20, 500, 256)
    assert f"fewer than {bases.SMALL} rows, or fewer than {bases.RELEASED:,} at a release" in TEXT
    assert manifest.MAX_XATTRS == 64 << 10


# --- the independent reader ---


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """One of everything."""
    root = tmp_path / "tree"
    (root / "deep" / "empty").mkdir(parents=True)
    (root / "a.txt").write_bytes(BODY)
    (root / "none").touch()
    (root / "deep" / "large").write_bytes(os.urandom(200_000))
    with (root / "deep" / "sparse").open("wb") as file:
        file.truncate(3 << 20)
        file.seek(1 << 20)
        file.write(BODY)
    os.setxattr(root / "a.txt", "user.colour", b"\0blue")
    (root / "tool").write_bytes(b"#!/bin/sh\n")
    (root / "tool").chmod(0o755)
    (root / "link").symlink_to("../../outside")
    os.symlink(b"\xff", os.fsencode(root) + b"/odd")
    for name in (b"\xff\xfe", b"line\nbreak", "ü".encode(), b"x" * 255):
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(name)
    os.utime(root / "a.txt", ns=(-5_000_000_001, -5_000_000_001))
    (root / "deep").chmod(0o555)
    return root


def picture(root: Path) -> dict[str, tuple[object, ...]]:
    seen: dict[str, tuple[object, ...]] = {}
    for path in root.rglob("*"):
        status = path.lstat()
        what: object = path.readlink() if path.is_symlink() else None
        if stat.S_ISREG(status.st_mode):
            what = path.read_bytes(), [os.getxattr(path, name) for name in os.listxattr(path)]
        mode = 0 if path.is_symlink() else status.st_mode
        seen[str(path.relative_to(root))] = (mode, status.st_mtime_ns, what)
    return seen


def run(program: Path, *words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """The program, with neither claw nor anything else of this tree to import."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, str(program), *map(str, words)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.spawns
class TestReader:
    """docs/examples/state_reader.py against real commits."""

    @pytest.fixture(params=["plain", "encrypted"])
    def keys(self, request: pytest.FixtureRequest, tmp_path: Path) -> list[object]:
        """What the reader is told of keys."""
        if request.param == "plain":
            return []
        path = tmp_path / "operator.key"
        path.write_text(base64.b64encode(b"o" * 32).decode() + "\n")
        return ["-k", path]

    @pytest.fixture
    def bucket(self, keys: list[object], tree: Path, tmp_path: Path) -> Path:
        """Generation 1 is the tree; of generation 2 a word is another."""
        root = tmp_path / "bucket"
        root.mkdir()
        store = DirectoryStore(root)
        keyring = Keyring(store, [b"o" * 32] if keys else [])
        repository = Repository(store, "here", FakeClock(), tmp_path / "scratch", keyring)
        for number in (1, 2):
            right = repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / f"staging-{number}")
            repository.committer.commit(
                CommitRequest(
                    right=right,
                    tree=tree,
                    selection=EVERYTHING,
                    image_digest="sha256:1",
                    application="openclaw 1",
                    release=True,
                )
            )
            if number == 1:
                (tmp_path / "first").mkdir()
                (tree / "tool").write_bytes(b"#!/bin/sh -e\n")
                os.utime(tree / "tool", ns=(TIME, TIME))
        return root

    def test_a_generation_is_extracted_whole(
        self, bucket: Path, keys: list[object], tree: Path, tmp_path: Path
    ) -> None:
        """Content, modes, times, links, holes, attributes and hostile names are those of the tree."""
        told = run(READER, bucket, "alice", "-x", tmp_path / "out", *keys)
        assert told.stderr == "generations: 1 2\n"
        assert picture(tmp_path / "out") == picture(tree)
        run(READER, bucket, "alice", "-g", 1, "-x", tmp_path / "old", *keys)
        assert (tmp_path / "old" / "tool").read_bytes() == b"#!/bin/sh\n"

    def test_names_are_listed(self, bucket: Path, keys: list[object]) -> None:
        """One a line, whatever is in them."""
        lines = run(READER, bucket, "alice", *keys).stdout.splitlines()
        assert "f 0755 13 'tool'" in lines
        assert r"l 0777 - 'odd'" in lines
        assert r"f 0644 2 '\udcff\udcfe'" in lines

    def test_a_large_file_is_read_wherever_it_lies(
        self, bucket: Path, keys: list[object], tree: Path, tmp_path: Path
    ) -> None:
        """An object of its own, or frames where it is encrypted."""
        (tree / "noise").write_bytes(os.urandom(BLOB + 1))
        store = DirectoryStore(bucket)
        keyring = Keyring(store, [b"o" * 32] if keys else [])
        repository = Repository(store, "here", FakeClock(), tmp_path / "scratch", keyring)
        right = repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "staging")
        repository.committer.commit(
            CommitRequest(right=right, tree=tree, selection=EVERYTHING, image_digest="", application="", release=True)
        )
        assert (bucket / "tenants" / "alice" / "blobs").exists() is not bool(keys)
        run(READER, bucket, "alice", "-x", tmp_path / "out", *keys)
        assert picture(tmp_path / "out") == picture(tree)

    @pytest.mark.parametrize("old", [2, 3])
    def test_a_delta_is_read_with_its_base(
        self, keys: list[object], tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: int
    ) -> None:
        """Names that are new, changed, gone, another type; a page of a large file; a base of format 2; and a pinned
        generation that no history names any more."""
        monkeypatch.setattr(bases, "SMALL", 0)
        monkeypatch.setattr(bases, "RELEASED", 0)
        root = tmp_path / "bucket"
        root.mkdir()
        for number in range(60):
            (tree / f"n{number}").write_bytes(b"%d" % number)
        store = DirectoryStore(root)
        repository = Repository(
            store, "here", FakeClock(), tmp_path / "scratch", Keyring(store, [b"o" * 32] if keys else [])
        )
        right = repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "staging")

        def commit(*, release: bool = False) -> None:
            nonlocal right
            request = CommitRequest(
                right=right,
                tree=tree,
                selection=EVERYTHING,
                image_digest="",
                application="",
                release=release,
                retention=Retention(keep_last=2, hourly=0, daily=0),
            )
            right = repository.committer.commit(request).right or right

        with monkeypatch.context() as patch:
            if old == 2:
                write_format_2(patch, lambda path: (tree / path).read_bytes())
            commit()
        (tree / "n1").unlink()
        (tree / "n2").unlink()
        (tree / "n2").mkdir()
        (tree / "n2" / "in").write_bytes(b"in")
        (tree / "n3").write_bytes(b"other")
        with (tree / "deep" / "large").open("r+b") as file:
            file.seek(150_000)
            file.write(b"page")
        commit()
        pinned = picture(tree)
        repository.pins.put(ALICE, repository.generations.manifest(ALICE).past(right.head.sha256 or ""))
        for word in (b"a", b"b", b"c"):
            (tree / "n4").write_bytes(word)
            commit(release=word == b"c")
        assert [two.base is not None for two in map(partial(repository.generations.manifest, ALICE), (2, 5))] == [
            True
        ] * 2

        told = run(READER, root, "alice", "-x", tmp_path / "out", *keys)
        assert told.stderr == "generations: 2 4 5\n"
        assert picture(tmp_path / "out") == picture(tree)
        run(READER, root, "alice", "-g", 2, "-x", tmp_path / "old", *keys)
        assert picture(tmp_path / "old") == pinned

    @pytest.mark.parametrize("part", ["packs", "gen"])
    def test_damage_is_told(self, bucket: Path, keys: list[object], tmp_path: Path, part: str) -> None:
        """One bit of one object, and nothing is made of it."""
        for path in (bucket / "tenants" / "alice" / part).iterdir():
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        assert "is damaged" in run(READER, bucket, "alice", "-x", tmp_path / "out", *keys, code=1).stderr

    def test_files_come_back_without_any_manifest(
        self, bucket: Path, keys: list[object], tree: Path, tmp_path: Path
    ) -> None:
        """From the packs alone; the newest version of each."""
        for path in (bucket / "tenants" / "alice").glob("gen/*"):
            path.unlink()
        (bucket / "tenants" / "alice" / "HEAD").unlink()
        run(SALVAGE, bucket, "alice", tmp_path / "out", *keys[1:])
        for name in ("a.txt", "tool", "deep/large", "line\nbreak", "\udcff\udcfe"):
            assert (tmp_path / "out" / name).read_bytes() == (tree / name).read_bytes()


@pytest.mark.spawns
def test_without_the_key_the_reader_says_so(tmp_path: Path, tree: Path) -> None:
    """And shows nothing."""
    root = tmp_path / "bucket"
    root.mkdir()
    store = DirectoryStore(root)
    repository = Repository(store, "here", FakeClock(), tmp_path / "scratch", Keyring(store, [b"o" * 32]))
    right = repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "staging")
    repository.committer.commit(
        CommitRequest(right=right, tree=tree, selection=EVERYTHING, image_digest="", application="", release=True)
    )
    told = run(READER, root, "alice", code=1)
    assert (told.stdout, "encrypted" in told.stderr) == ("", True)


def test_the_reader_is_short_and_knows_no_claw() -> None:
    """130 lines; the standard library, zstandard, and for keys cryptography."""
    source = READER.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 130
    imported = set(re.findall(r"^\s*(?:import|from) (\w+)", source, re.MULTILINE))
    assert imported - set(sys.stdlib_module_names) == {"zstandard", "cryptography"}
