"""What commits of a host share is shared: in turn, within bounds, and given back whatever happens."""

import hashlib
import os
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from claw_runtime.errors import StoreUnavailable
from claw_runtime.formats import pack as packs
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.state.commit import pack_upload
from claw_runtime.state.commit.pack_upload import FULL, SIDE_BY_SIDE, CommitUpload, FileChanged, UploadPool
from claw_runtime.tenancy import Keys, tenant_id
from fakes.clock import FakeClock
from fakes.stores import Fault, FaultyStore

KEYS = Keys(tenant_id("alice"))


def upload(store: FaultyStore | MemoryStore, pool: UploadPool, epoch: int = 1) -> CommitUpload:
    return CommitUpload(store, FakeClock(), KEYS, pool, epoch=epoch)


def fill(one: CommitUpload, packs_: int) -> None:
    """Send so many packs of random bytes."""
    for number in range(packs_ * (FULL // packs.CHUNK)):
        one.add(os.urandom(packs.CHUNK), f"f{number}", 0, 0o600, 0)


def test_places_are_known_once_a_pack_is_sealed() -> None:
    """A frame's extent names the pack that holds it, and the bytes there inflate to what was added."""
    store, pool = MemoryStore(), UploadPool()
    with closing(upload(store, pool)) as one:
        places = [one.add(b"%d" % number * 100, "f", 0, 0o600, 0) for number in range(5)]
        one.flush()
        extents = [place.pack.extent(place.number, None) for place in places]
        one.finish()
    (ref,) = one.refs()
    for number, extent in enumerate(extents):
        frame = store.get_range(KEYS.pack(ref.sha256), extent.offset, extent.stored)
        assert packs.inflate(frame, extent) == b"%d" % number * 100


def test_no_more_is_under_way_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty commits at once with room for four packs: each comes to its end, and never are five in memory."""
    store, alive, worst, lock = MemoryStore(), [0], [0], threading.Lock()
    pool = UploadPool(limit=4 * pack_upload._PACK_MEMORY)
    made, done = pack_upload.PendingPack, CommitUpload._done

    def begun() -> pack_upload.PendingPack:
        with lock:
            alive[0] += 1
            worst[0] = max(worst[0], alive[0])
        return made()

    def over(self: CommitUpload, amount: int) -> None:
        with lock:
            alive[0] -= 1
        done(self, amount)

    monkeypatch.setattr(pack_upload, "PendingPack", begun)
    monkeypatch.setattr(CommitUpload, "_done", over)

    def commit(number: int) -> None:
        with closing(upload(store, pool, epoch=number)) as one:
            for index in range(300):
                one.add(b"%d %d" % (number, index) * 4000, f"f{index}", 0, 0o600, 0)
            one.flush()
            one.finish()

    threads = [threading.Thread(target=commit, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert 1 < worst[0] <= 4
    assert (alive[0], pool._left) == (0, 4 * pack_upload._PACK_MEMORY)


def test_turns_come_in_the_order_in_which_they_were_asked_for() -> None:
    """Whoever asks for little does not push in before somebody who waits for much."""
    pool, order = UploadPool(limit=10), list[str]()
    pool.take(8)

    def ask(name: str, amount: int) -> None:
        pool.take(amount)
        order.append(name)

    threads = []
    for name, amount in (("much", 10), ("little", 1)):
        threads.append(threading.Thread(target=ask, args=(name, amount)))
        threads[-1].start()
        while len(pool._waiting) < len(threads):
            time.sleep(0.001)
    pool.give(8)
    threads[0].join(5)
    assert order == ["much"]
    pool.give(10)
    threads[1].join(5)
    assert order == ["much", "little"]


def test_a_large_tenant_leaves_room_for_the_others() -> None:
    """One commit has no more than a few packs under way, however fast its tree is read."""
    held = threading.Event()
    store = FaultyStore(MemoryStore())
    store.before = lambda *_: held.wait(30) and None
    pool = UploadPool()
    one = upload(store, pool)
    worker = threading.Thread(target=fill, args=(one, SIDE_BY_SIDE + 3))
    worker.start()
    time.sleep(0.5)
    assert len(one._under_way) <= SIDE_BY_SIDE
    assert worker.is_alive()
    held.set()
    worker.join(60)
    one.flush()
    one.finish()
    one.close()
    assert pool._left == pack_upload.IN_FLIGHT


def test_a_store_that_is_away_ends_the_commit_and_gives_all_back() -> None:
    """The walk hears of it at its next pack, what has not begun is called off, and nothing stays taken."""
    store = FaultyStore(MemoryStore(), Fault(operation="put", action="unavailable", key="/packs/", times=999))
    pool = UploadPool()
    one = upload(store, pool)
    with pytest.raises(StoreUnavailable):
        fill(one, 20)
    one.close()
    assert pool._left == pack_upload.IN_FLIGHT


def test_a_file_of_its_own_is_named_by_what_was_sent(tmp_path: Path) -> None:
    """The object's bytes are those of its name, and a name that is there is not sent again."""
    store, pool, body = FaultyStore(MemoryStore()), UploadPool(), os.urandom(3_000_000)
    (tmp_path / "f").write_bytes(body)
    with closing(upload(store, pool)) as one, (tmp_path / "f").open("rb") as file:
        blob = one.send(file.fileno(), "a", len(body), {}).result()
        again = one.send(file.fileno(), "a", len(body), {blob.sha256: "there"}).result()
        assert one.finish() == len(body)
    assert blob == (hashlib.sha256(body).hexdigest(), f"{hashlib.sha256(body).hexdigest()}.1")
    assert again.name == "there"
    assert store.get(KEYS.blob(blob.name))[0] == body


def test_a_commit_that_waits_holds_no_memory_back(tmp_path: Path) -> None:
    """Two commits that each have a pack begun, and each want more than is left, do not wait for one another."""
    pool, body = UploadPool(limit=2 * pack_upload._PACK_MEMORY), os.urandom(30_000_000)
    (tmp_path / "f").write_bytes(body)
    both = threading.Barrier(2)

    def commit(number: int) -> None:
        with closing(upload(MemoryStore(), pool, epoch=number)) as one, (tmp_path / "f").open("rb") as file:
            one.add(b"begun", "f", 0, 0o600, 0)
            both.wait(10)
            one.send(file.fileno(), "a", len(body), {}).result()
            one.flush()
            one.finish()

    threads = [threading.Thread(target=commit, args=(number,), daemon=True) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert pool._left == 2 * pack_upload._PACK_MEMORY


def test_a_file_that_changes_between_two_readings_is_never_stored(tmp_path: Path) -> None:
    """Nor does it spoil an object of an earlier generation that has the name of the first reading."""
    inner = MemoryStore()
    store, pool, body = FaultyStore(inner), UploadPool(), b"a" * 3_000_000
    name = f"{hashlib.sha256(body).hexdigest()}.1"
    inner.put(KEYS.blob(name), body)
    (tmp_path / "f").write_bytes(body)

    def change(*_: object) -> None:
        (tmp_path / "f").write_bytes(b"b" * len(body))

    store.before = change
    with closing(upload(store, pool)) as one, (tmp_path / "f").open("rb") as file:
        with pytest.raises(FileChanged):
            one.send(file.fileno(), "a", len(body), {}).result()
        one.finish()
    assert [item.key for item in inner.list("")] == [KEYS.blob(name)]
    assert inner.get(KEYS.blob(name))[0] == body
    assert pool._left == pack_upload.IN_FLIGHT
