"""Faults between the store and a real server: each class of §3c becomes one exception, no write is repeated blindly.

What the server holds afterwards is read past the proxy.
"""

import io
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
from claw_runtime.errors import BucketMissing, ClawError, StoreDenied, StoreUnavailable
from claw_runtime.objects import s3
from claw_runtime.objects.s3 import S3Store
from claw_runtime.objects.seaweedfs import SeaweedFS
from claw_runtime.ports import AmbiguousWrite, ObjectMissing, PreconditionFailed
from claw_runtime.state.repository import CommitRequest, Repository
from claw_runtime.state.rules.selection import EVERYTHING
from claw_runtime.tenancy import tenant_id
from fakes.clock import FakeClock
from fakes.s3_proxy import Fault, S3Proxy, Says, Wire
from fakes.servers import Server

pytestmark = pytest.mark.s3

BODY = random.Random(5).randbytes(100)
ALWAYS = 10_000


class Way:
    """One bucket, seen straight and through the proxy."""

    def __init__(self, own: SeaweedFS) -> None:
        self.proxy = S3Proxy(own.endpoint)
        keys = {"access_key": own.access_key, "secret_key": own.secret_key}
        bucket = f"faults-{uuid4().hex[:12]}"
        self.straight = Server(endpoint=own.endpoint, **keys).store(bucket)
        self._new = lambda: S3Store(bucket=bucket, endpoint=self.proxy.endpoint, **keys)
        self.begin()

    def begin(self) -> None:
        """Without a fault yet, without an object, and with a client that has not used up its retries."""
        self.proxy.tell()
        for item in self.straight.list(""):
            self.straight.delete(item.key)
        self.store = self._new()

    def holds(self, key: str) -> bytes | None:
        try:
            return self.straight.get(key)[0]
        except ObjectMissing:
            return None


@pytest.fixture(scope="module")
def shared(seaweedfs: SeaweedFS) -> Iterator[Way]:
    """No waiting between attempts, and a short patience."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_args: 0)
        patch.setattr(s3, "_READ_SECONDS", 1)
        made = Way(seaweedfs)
        yield made
        made.proxy.close()


@pytest.fixture
def way(shared: Way) -> Way:
    shared.begin()
    return shared


@pytest.fixture
def patient(seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    """A way that waits for answers as long as the product does: on a busy host, a large part takes over a second."""
    monkeypatch.setattr(s3, "_READ_SECONDS", 60)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_args: 0)
    made = Way(seaweedfs)
    made.begin()
    yield made
    made.proxy.close()


@pytest.mark.parametrize(
    ("status", "code", "error", "hint"),
    [
        (500, "InternalError", StoreUnavailable, "check that it is running"),
        (502, "BadGateway", StoreUnavailable, "check that it is running"),
        (503, "SlowDown", StoreUnavailable, "throttling requests"),
        (429, "TooManyRequests", StoreUnavailable, "throttling requests"),
        (408, "RequestTimeout", StoreUnavailable, "retry later"),
        (301, "PermanentRedirect", StoreUnavailable, "region"),
        (403, "ExpiredToken", StoreDenied, "renew"),
        (403, "RequestTimeTooSkewed", StoreDenied, "clock"),
        (404, "NoSuchBucket", BucketMissing, "create the bucket"),
        (507, "InsufficientStorage", StoreUnavailable, "free space"),
    ],
)
def test_an_answer_that_stays_has_one_meaning(
    way: Way, status: int, code: str, error: type[ClawError], hint: str
) -> None:
    """Reading, listing and large objects say the same, with what to do; the attempts have an end."""
    way.straight.put("k", BODY)
    way.proxy.tell(Fault(does=Says(status=status, code=code), times=ALWAYS))
    for use in (
        lambda: way.store.get("k"),
        lambda: way.store.get_range("k", 0, 5),
        lambda: list(way.store.list("")),
        lambda: way.store.fetch("k", len(BODY), lambda _offset, _piece: None),
        lambda: way.store.send("new", io.BytesIO(b"x"), 1),
    ):
        with pytest.raises(error) as told:
            use()
        assert hint in told.value.hint
    assert len(way.proxy.seen) <= 5 * 5
    assert way.holds("new") is None


def test_an_object_that_is_not_there_is_no_fault(way: Way) -> None:
    """404 is an answer, and asked for once."""
    with pytest.raises(ObjectMissing):
        way.store.get("k")
    assert way.proxy.count("GET") == 1


PASSING: list[Wire | Says] = [
    Says(status=500, code="InternalError"),
    Says(status=502, code="BadGateway"),
    Says(status=503, code="SlowDown"),
    "reset before",
    "reset after",
    "stall",
    "cut",
    "trickle",
]


@pytest.mark.parametrize("does", PASSING, ids=str)
def test_a_read_outlives_what_passes(way: Way, does: Wire | Says) -> None:
    """Once, at a whole object, a range, a listing and a part of a large object: every byte is right in the end."""
    way.straight.put("k", BODY)
    got = bytearray(len(BODY))

    def sink(offset: int, piece: memoryview) -> None:
        got[offset : offset + len(piece)] = piece

    way.proxy.tell(Fault(does=does))
    assert way.store.get("k")[0] == BODY
    way.proxy.tell(Fault(does=does))
    assert way.store.get_range("k", 10, 20) == BODY[10:30]
    way.proxy.tell(Fault(does=does))
    way.store.fetch("k", len(BODY), sink)
    assert got == BODY
    if does not in {"cut", "trickle"}:
        way.proxy.tell(Fault(does=does))
        assert [item.key for item in way.store.list("")] == ["k"]


@pytest.mark.parametrize("does", ["flip", "short"])
def test_a_body_that_is_not_what_was_stored_is_noticed(way: Way, does: Wire) -> None:
    """By the checksum that came with it; a body that is wrong each time is no body."""
    way.straight.put("k", BODY)
    way.proxy.tell(Fault(does=does))
    assert way.store.get("k")[0] == BODY
    assert way.proxy.count("GET") == 2
    way.proxy.tell(Fault(does=does, times=ALWAYS))
    with pytest.raises(StoreUnavailable):
        way.store.get("k")


def test_a_part_that_is_too_short_is_asked_for_again(way: Way) -> None:
    """Its length is right by its own words; that it was asked for more is known."""
    way.straight.put("k", BODY)
    got: list[bytes] = []
    way.proxy.tell(Fault(does="short"))
    way.store.fetch("k", len(BODY), lambda _offset, piece: got.append(bytes(piece)))
    assert b"".join(got) == BODY
    way.proxy.tell(Fault(does="short", times=ALWAYS))
    with pytest.raises(StoreUnavailable, match="does not answer"):
        way.store.fetch("k", len(BODY), lambda _offset, _piece: pytest.fail("half a part"))


def test_a_range_that_breaks_off_goes_on_from_there(way: Way) -> None:
    """What has come is not asked for twice, and each byte is given on once."""
    body, pieces = random.Random(7).randbytes(5 * s3._PIECE), []
    way.straight.put("k", body)
    way.proxy.tell(Fault(does="cut"))
    way.store.fetch("k", len(body), lambda offset, piece: pieces.append((offset, bytes(piece))))
    assert b"".join(piece for _, piece in sorted(pieces)) == body
    assert way.proxy.count("GET") == 2


def test_bytes_that_change_on_the_way_up_are_not_stored(way: Way) -> None:
    """The server finds them by digest; nothing of it is kept."""
    way.proxy.tell(Fault(does="flip up", method="PUT", times=ALWAYS))
    for condition in ({}, {"if_absent": True}):
        with pytest.raises((ClawError, AmbiguousWrite)):
            way.store.put("k", BODY, **condition)
    assert way.holds("k") is None


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize(
    ("does", "error", "applied"),
    [
        (Says(status=500, code="InternalError"), AmbiguousWrite, False),
        (Says(status=502, code="BadGateway"), AmbiguousWrite, False),
        (Says(status=503, code="SlowDown"), AmbiguousWrite, False),
        (Says(status=408, code="RequestTimeout"), AmbiguousWrite, False),
        (Says(status=429, code="TooManyRequests"), StoreUnavailable, False),
        (Says(status=412, code="PreconditionFailed"), PreconditionFailed, False),
        (Says(status=404, code="NoSuchKey"), PreconditionFailed, False),
        (Says(status=403, code="ExpiredToken"), StoreDenied, False),
        (Says(status=301, code="PermanentRedirect"), StoreUnavailable, False),
        ("reset before", AmbiguousWrite, False),
        ("reset after", AmbiguousWrite, True),
        ("stall", AmbiguousWrite, True),
    ],
    ids=str,
)
def test_a_conditional_write_goes_out_once(
    way: Way, there: bool, does: Wire | Says, error: type[Exception], applied: bool
) -> None:
    """Whatever comes back: a second one could be refused because of the first. What cannot be known is called so."""
    etag = way.straight.put("k", b"before") if there else None
    way.proxy.tell(Fault(does=does, method="PUT"))
    with pytest.raises(error):
        way.store.put("k", b"after", if_absent=not there, if_match=etag)
    assert way.proxy.count("PUT") == 1
    assert way.holds("k") == (b"after" if applied else etag and b"before")


def test_a_conflict_passes_or_is_told(way: Way) -> None:
    """409: nothing was done since another write was under way. Asked again, three times at most."""
    conflict = Says(status=409, code="ConditionalRequestConflict")
    way.proxy.tell(Fault(does=conflict, times=2))
    way.store.put("k", b"1", if_absent=True)
    assert (way.proxy.count("PUT"), way.holds("k")) == (3, b"1")
    way.proxy.tell(Fault(does=conflict, times=ALWAYS))
    with pytest.raises(StoreUnavailable):
        way.store.put("other", b"1", if_absent=True)
    assert (way.proxy.count("PUT"), way.holds("other")) == (3, None)


@pytest.mark.parametrize(
    ("does", "applied"), [(Says(status=503, code="SlowDown"), False), ("reset after", True)], ids=str
)
def test_a_conditional_delete_goes_out_once(way: Way, does: Wire | Says, applied: bool) -> None:
    """As a conditional write does."""
    etag = way.straight.put("k", b"1")
    way.proxy.tell(Fault(does=does))
    with pytest.raises(AmbiguousWrite):
        way.store.delete("k", if_match=etag)
    assert way.proxy.count("DELETE") == 1
    assert way.holds("k") == (None if applied else b"1")


PARTS = 2 * s3._PART + 1


@pytest.mark.parametrize("does", [Says(status=503, code="SlowDown"), "reset before", "reset after"], ids=str)
@pytest.mark.parametrize("part", ["uploads", "partNumber=2", "partNumber=3"])
def test_a_large_object_goes_up_in_spite_of_what_passes(patient: Way, part: str, does: Wire | Says) -> None:
    """The part is sent again, and the object is whole."""
    body = random.Random(6).randbytes(PARTS)
    patient.proxy.tell(Fault(does=does, part=part))
    patient.store.send("large", io.BytesIO(body), len(body))
    assert patient.holds("large") == body


@pytest.mark.parametrize("does", ["reset after", "stall"])
def test_the_last_answer_of_a_large_object_is_lost(way: Way, does: Wire) -> None:
    """It is asked for again; where the server has forgotten the upload by then, the outcome is said to be unknown."""
    way.proxy.tell(Fault(does=does, method="POST", part="uploadId="))
    with suppress(AmbiguousWrite):
        way.store.send("large", io.BytesIO(BODY), len(BODY))
    assert way.holds("large") == BODY


def test_a_large_object_that_cannot_be_sent_is_taken_back(patient: Way) -> None:
    """No parts stay behind that nobody lists and everybody pays for."""
    patient.proxy.tell(Fault(does=Says(status=503, code="SlowDown"), part="partNumber=2", times=ALWAYS))
    with pytest.raises(StoreUnavailable):
        patient.store.send("large", io.BytesIO(bytes(PARTS)), PARTS)
    assert patient.proxy.count("DELETE", "uploadId=") == 1
    assert patient.holds("large") is None


PLACES = [
    ("PUT", "/packs/"),
    ("PUT", "/gen/"),
    ("PUT", "/HEAD"),
    ("GET", "/HEAD"),
    ("GET", "/gen/"),
    ("GET", "/packs/"),
]
ENGINE: list[Wire | Says] = [
    Says(status=503, code="SlowDown"),
    Says(status=409, code="ConditionalRequestConflict"),
    "reset before",
    "reset after",
    "cut",
    "flip",
    "flip up",
]


@pytest.mark.parametrize("place", PLACES, ids="".join)
@pytest.mark.parametrize("does", ENGINE, ids=str)
def test_a_tenants_round_converges(way: Way, tmp_path: Path, does: Wire | Says, place: tuple[str, str]) -> None:
    """One fault anywhere in commit and restore: it is survived, or told and the second attempt comes through. What is
    restored is what was there, and half of it never appears."""
    alice = tenant_id(f"alice-{uuid4().hex[:8]}")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "memory").write_bytes(BODY)

    def commit() -> None:
        here = Repository(way.store, "here", FakeClock(), tmp_path / uuid4().hex)
        right = here.restorer.restore(here.leases.acquire(alice, take_over=True), tmp_path / uuid4().hex)
        here.committer.commit(
            CommitRequest(right=right, tree=tree, selection=EVERYTHING, image_digest="", application="", release=True)
        )

    def restore() -> bytes:
        there, target = Repository(way.store, "there", FakeClock(), tmp_path / uuid4().hex), tmp_path / uuid4().hex
        there.restorer.restore(there.leases.acquire(alice, take_over=True), target)
        return (target / "memory").read_bytes()

    method, part = place
    for attempt in (commit, restore):
        way.proxy.tell(Fault(does=does, method=method, part=part))
        try:
            attempt()
        except (ClawError, AmbiguousWrite):
            way.proxy.tell()
            attempt()
    assert restore() == BODY
