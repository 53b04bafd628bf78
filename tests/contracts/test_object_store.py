"""What every object store promises; run on each kind of them, so that a service cannot tell them apart."""

import io
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from claw_runtime.errors import BucketMissing, StoreDenied
from claw_runtime.logs import Secret
from claw_runtime.objects.directory import DirectoryStore
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.objects.probe import probe
from claw_runtime.objects.s3 import S3Store
from claw_runtime.objects.seaweedfs import SeaweedFS
from claw_runtime.ports import ObjectMissing, ObjectStore, PreconditionFailed
from claw_runtime.state.repository import CommitRequest, Repository
from claw_runtime.state.rules.selection import EVERYTHING
from claw_runtime.tenancy import tenant_id
from fakes.clock import FakeClock


def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [item.key for item in store.list(prefix)]


def test_what_is_put_is_got(store: ObjectStore) -> None:
    """Body and etag come back at once, for every kind of bytes, and an overwrite changes both."""
    for body in (b"", b"x", bytes(range(256)) * 5000):
        etag = store.put("a/b", body)
        assert store.get("a/b") == (body, etag)


def test_a_range_is_exact(store: ObjectStore) -> None:
    """Offset and length in bytes."""
    store.put("k", bytes(range(100)))
    assert store.get_range("k", 10, 5) == bytes(range(10, 15))
    assert store.get_range("k", 99, 1) == b"c"
    assert store.get_range("k", 0, 0) == b""


def test_a_missing_key_is_said_to_be_missing(store: ObjectStore) -> None:
    """Also for a range, and for a key that only begins another one."""
    store.put("x/y", b"1")
    for missing in ("nothing", "x", "x/y/z"):
        with pytest.raises(ObjectMissing):
            store.get(missing)
    with pytest.raises(ObjectMissing):
        store.get_range("nothing", 0, 1)


def test_a_key_may_begin_others_later(store: ObjectStore) -> None:
    """And the other way round, once those that are in its way are deleted; also where keys are files."""
    store.put("k/a/b", b"1")
    store.put("k/a/c", b"1")
    store.delete("k/a/b")
    store.delete("k/a/c")
    store.put("k/a", b"2")
    store.delete("k/a")
    store.put("k", b"3")
    assert [(key, store.get(key)[0]) for key in keys(store)] == [("k", b"3")]
    store.delete("k")
    store.put("k/a", b"4")
    assert keys(store) == ["k/a"]


def test_put_if_absent_writes_once(store: ObjectStore) -> None:
    """The second is refused and changes nothing."""
    etag = store.put("k", b"first", if_absent=True)
    with pytest.raises(PreconditionFailed):
        store.put("k", b"second", if_absent=True)
    assert store.get("k") == (b"first", etag)


def test_delete_if_match_needs_the_current_etag(store: ObjectStore) -> None:
    """An old etag and a missing object are refused, and nothing goes."""
    old = store.put("k", b"1")
    new = store.put("k", b"2")
    with pytest.raises(PreconditionFailed):
        store.delete("k", if_match=old)
    assert store.get("k") == (b"2", new)
    store.delete("k", if_match=new)
    assert keys(store) == []
    with pytest.raises(PreconditionFailed):
        store.delete("k", if_match=new)


@pytest.mark.parametrize("size", [0, 1, 20 * 1024 * 1024 + 5])
def test_a_large_object_is_sent_and_fetched_in_parts(store: ObjectStore, size: int) -> None:
    """Whatever the number of parts, every byte comes back once, at its place."""
    body = random.Random(size).randbytes(size)
    store.send("large/x", io.BytesIO(body), size)
    got, counts = bytearray(size), bytearray(size)

    def sink(offset: int, piece: memoryview) -> None:
        got[offset : offset + len(piece)] = piece
        counts[offset : offset + len(piece)] = b"\1" * len(piece)

    store.fetch("large/x", size, sink)
    assert got == body
    assert counts.count(1) == size
    assert store.get_range("large/x", max(0, size - 3), 3) == body[-3:] if size else True
    store.send("large/x", io.BytesIO(b"new"), 3)
    assert store.get("large/x")[0] == b"new"


@pytest.mark.parametrize("promised", [2, 4])
def test_a_stream_of_another_length_is_not_stored(store: ObjectStore, promised: int) -> None:
    """What was promised and what came must agree; else there is no such object."""
    with pytest.raises(EOFError):
        store.send("large/x", io.BytesIO(b"abc"), promised)
    assert keys(store) == []


def test_fetching_ends_with_what_the_sink_raises(store: ObjectStore) -> None:
    """A full disk, for example."""

    def full(_offset: int, _piece: memoryview) -> None:
        raise OSError(28, "no space")

    store.put("k", b"abc")
    with pytest.raises(OSError, match="no space"):
        store.fetch("k", 3, full)
    with pytest.raises(ObjectMissing):
        store.fetch("nothing", 3, full)


def test_a_listing_says_when(store: ObjectStore) -> None:
    """By the store's own clock, which goes on: a later write is not older."""
    store.put("a", b"1")
    time.sleep(1.1)
    store.put("b", b"1")
    first, second = (item.modified for item in store.list(""))
    assert 0.9 < second - first < 60
    assert abs(time.time() - second) < 300


def test_put_if_match_needs_the_current_etag(store: ObjectStore) -> None:
    """An old etag, a foreign one, and a missing object are all refused."""
    old = store.put("k", b"1")
    new = store.put("k", b"2", if_match=old)
    assert new != old
    for wrong in (old, '"0123456789abcdef0123456789abcdef"'):
        with pytest.raises(PreconditionFailed):
            store.put("k", b"3", if_match=wrong)
    with pytest.raises(PreconditionFailed):
        store.put("absent", b"3", if_match=new)
    assert store.get("k") == (b"2", new)
    with pytest.raises(ObjectMissing):
        store.get("absent")


def test_delete_is_repeatable(store: ObjectStore) -> None:
    """A key that is gone is fine, and a new object may take its place."""
    store.put("a/k", b"1")
    store.delete("a/k")
    store.delete("a/k")
    store.delete("never/was")
    with pytest.raises(ObjectMissing):
        store.get("a/k")
    store.put("a/k", b"2", if_absent=True)


def test_listing_is_in_byte_order_and_by_plain_prefix(store: ObjectStore) -> None:
    """`-` sorts before `/`, a prefix may end anywhere, and size and etag, if it has one, are those of the object."""
    for key in ("t/alice/x", "t/alice-2/x", "t/alice2/x", "t/Alice/x", "u"):
        store.put(key, key.encode())
    assert keys(store) == ["t/Alice/x", "t/alice-2/x", "t/alice/x", "t/alice2/x", "u"]
    assert keys(store, "t/alice") == ["t/alice-2/x", "t/alice/x", "t/alice2/x"]
    assert keys(store, "t/alice/") == ["t/alice/x"]
    assert keys(store, "nothing/") == []
    (item,) = store.list("u")
    assert item.size == 1
    assert item.etag in ("", store.get("u")[1])
    assert item.etag or isinstance(store, DirectoryStore)


def test_a_listing_begins_after_a_key(store: ObjectStore) -> None:
    """That key itself is left out, whether it is there or not, and so are keys of other prefixes."""
    for key in ("gen/01-a", "gen/02-b", "gen/02-c", "gen/10-d", "packs/x"):
        store.put(key, b"")
    for after, expected in (
        ("gen/01-a", ["gen/02-b", "gen/02-c", "gen/10-d"]),
        ("gen/02~", ["gen/10-d"]),
        ("gen/10-d", []),
        ("", ["gen/01-a", "gen/02-b", "gen/02-c", "gen/10-d"]),
    ):
        assert [item.key for item in store.list("gen/", after=after)] == expected


def leave_unfinished(store: ObjectStore) -> None:
    """Two writes whose processes were killed: one of ours, and one of another program in the same bucket."""
    match store:
        case DirectoryStore():
            Path(store.url.removeprefix("file://"), "+tmp", "0" * 32).write_bytes(b"part")
        case S3Store():
            for key in (f"{store._prefix}tenants/alice/blobs/a.1", "other/program"):
                where = {"Bucket": store._bucket, "Key": key}
                upload = store._client.create_multipart_upload(**where)["UploadId"]
                store._client.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"part")


def test_what_a_killed_process_left_is_removed(store: ObjectStore) -> None:
    """When it is old enough, once; objects stay, and so do uploads of other programs."""
    store.put("tenants/alice/blobs/b.1", b"whole")
    leave_unfinished(store)
    assert store.remove_unfinished(3600) == 0
    assert store.remove_unfinished(0) == (0 if isinstance(store, MemoryStore) else 1)
    assert store.remove_unfinished(0) == 0
    assert keys(store) == ["tenants/alice/blobs/b.1"]
    if isinstance(store, S3Store):
        (left,) = store._client.list_multipart_uploads(Bucket=store._bucket)["Uploads"]
        assert left["Key"] == "other/program"


def test_listing_goes_over_pages(store: ObjectStore) -> None:
    """More keys than an S3 page holds (1,000) come all, once, in order."""
    names = [f"many/{number:05d}" for number in range(1100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.put(name, b""), names))
    assert keys(store, "many/") == names


def test_a_key_that_some_store_would_bend_is_refused_by_all(store: ObjectStore) -> None:
    """A mistake in this program, found before anything is written."""
    for key in ("", "/a", "a/", "a//b", "a/../b", ".", "../x", "a b", "ä", "a\\b", "a\0b", "x" * 901):
        for use in (store.get, store.delete, lambda key: store.put(key, b"")):
            with pytest.raises(ValueError, match="not an object key"):
                use(key)
    assert keys(store) == []


def race(count: int, one: Callable[[int], bool]) -> int:
    """Start `count` threads at one moment; how many of them won."""
    gate = threading.Barrier(count)

    def run(number: int) -> bool:
        gate.wait()
        return one(number)

    with ThreadPoolExecutor(count) as pool:
        return sum(pool.map(run, range(count)))


def test_one_of_many_creates(store: ObjectStore) -> None:
    """Sixteen put-if-absent at once: one winner, and its bytes stand."""
    winners: list[int] = []

    def create(number: int) -> bool:
        try:
            store.put("lease", str(number).encode(), if_absent=True)
        except PreconditionFailed:
            return False
        winners.append(number)
        return True

    assert race(16, create) == 1
    assert store.get("lease")[0] == str(winners[0]).encode()


def test_no_swap_is_lost(store: ObjectStore) -> None:
    """Four writers count to forty together by compare-and-swap."""
    store.put("counter", b"0")

    def count(_number: int) -> bool:
        done = 0
        while done < 10:
            body, etag = store.get("counter")
            try:
                store.put("counter", str(int(body) + 1).encode(), if_match=etag)
            except PreconditionFailed:
                continue
            done += 1
        return True

    race(4, count)
    assert store.get("counter")[0] == b"40"


def test_the_probe_is_content_and_leaves_nothing(store: ObjectStore) -> None:
    """An honest store is found honest, and is as empty as before."""
    probe(store)
    assert keys(store) == []


def test_a_tenant_comes_and_goes(store: ObjectStore, tmp_path: Path) -> None:
    """The state engine's whole round on this store: commit, take over on another host, restore."""
    alice = tenant_id("alice")
    tree = tmp_path / "outside" / "tree"
    tree.mkdir(parents=True)
    (tree / "memory").write_text("blue")
    (tree / "big").write_bytes(bytes(range(256)) * 20_000)
    here, there = (Repository(store, name, FakeClock(), tmp_path / "outside" / name) for name in ("here", "there"))
    right = here.restorer.restore(here.leases.acquire(alice), tmp_path / "outside" / "s1")
    here.committer.commit(
        CommitRequest(right=right, tree=tree, selection=EVERYTHING, image_digest="", application="", release=False)
    )
    there.restorer.restore(there.leases.acquire(alice, take_over=True), tmp_path / "outside" / "s2")
    assert (tmp_path / "outside" / "s2" / "memory").read_text() == "blue"
    assert (tmp_path / "outside" / "s2" / "big").read_bytes() == (tree / "big").read_bytes()
    assert b"".join(there.generations.read(alice, "memory")) == b"blue"


# --- S3 alone ---


@pytest.mark.s3
def test_a_real_server_refuses_wrong_keys(seaweedfs: SeaweedFS) -> None:
    """An unknown access key and a wrong secret are both StoreDenied, for reading and writing."""
    seaweedfs.make_bucket("denied")
    for access, secret in (
        (Secret("nobody-has-this"), seaweedfs.secret_key),
        (seaweedfs.access_key, Secret("wrong-one")),
    ):
        store = S3Store(bucket="denied", endpoint=seaweedfs.endpoint, access_key=access, secret_key=secret)
        for use in (
            lambda s=store: s.get("k"),
            lambda s=store: s.put("k", b"", if_absent=True),
            lambda s=store: keys(s),
        ):
            with pytest.raises(StoreDenied):
                use()


@pytest.mark.parametrize("server", ["moto", pytest.param("seaweedfs", marks=pytest.mark.s3)])
def test_a_bucket_that_is_not_there_is_named(request: pytest.FixtureRequest, server: str) -> None:
    """Whatever is asked of it, and nothing creates it on the way."""
    if server == "moto":
        endpoint, access, secret = request.getfixturevalue("moto_endpoint"), Secret("access-key"), Secret("secret-key")
    else:
        real: SeaweedFS = request.getfixturevalue("seaweedfs")
        endpoint, access, secret = real.endpoint, real.access_key, real.secret_key
    store = S3Store(bucket="no-such-bucket", endpoint=endpoint, access_key=access, secret_key=secret)
    for use in (
        lambda: store.get("k"),
        lambda: store.put("k", b""),
        lambda: store.put("k", b"", if_absent=True),
        lambda: keys(store),
    ):
        with pytest.raises(BucketMissing, match="no-such-bucket"):
            use()
