"""A store that lies about conditional writes is found out before a lease is trusted to it."""

from typing import IO

import pytest
from claw_runtime.errors import StoreDishonest, StoreUnavailable
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.objects.probe import probe
from claw_runtime.ports import ObjectInfo, PreconditionFailed
from fakes.stores import Fault, FaultyStore, ForgetfulStore


class StaleStore(MemoryStore):
    """Gives back the first thing that a key ever held."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[str, tuple[bytes, str]] = {}

    def get(self, key: str) -> tuple[bytes, str]:
        return self.first.setdefault(key, super().get(key))


class RefusingStore(MemoryStore):
    """Answers 412 to every conditional write."""

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        if if_absent or if_match:
            raise PreconditionFailed(key)
        return super().put(key, data)


class HalfRefusingStore(MemoryStore):
    """Answers 412 and writes all the same."""

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        try:
            return super().put(key, data, if_absent=if_absent, if_match=if_match)
        except PreconditionFailed:
            super().put(key, data)
            raise


class KeepingStore(MemoryStore):
    """Deletes nothing."""

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        pass


class BendingStore(MemoryStore):
    """Gives the beginning for every range."""

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        return super().get_range(key, 0, length)


class PlainStore(MemoryStore):
    """Deletes whatever the condition, refuses large objects, lists one page, and takes damaged bytes."""

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        super().delete(key)

    def send(self, key: str, source: IO[bytes], size: int) -> None:
        raise StoreUnavailable("no", why="not implemented", hint="")

    def pages(self, prefix: str, size: int) -> list[ObjectInfo]:
        return list(self.list(prefix))[:size]

    def refuses_damage(self, key: str) -> bool:
        self.put(key, b"damaged")
        return False

    def learn(self, key: str) -> None:
        self.put(key, b"sample")


class DeafStore(MemoryStore):
    """Knows no condition on DELETE and says so."""

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        if if_match is not None:
            raise StoreUnavailable("no", why="not implemented", hint="")
        super().delete(key)


@pytest.mark.parametrize(
    ("store", "what"),
    [
        (ForgetfulStore(), "If-None-Match"),
        (ForgetfulStore(ignores_match=False), "If-None-Match"),
        (ForgetfulStore(ignores_absent=False), "If-Match named an old etag"),
        (StaleStore(), "did not return"),
        (RefusingStore(), "refused to create"),
        (HalfRefusingStore(), "but changed"),
        (KeepingStore(), "deleted"),
        (BendingStore(), "range"),
    ],
)
def test_a_lie_is_named(store: MemoryStore, what: str) -> None:
    """The message says which promise was broken."""
    with pytest.raises(StoreDishonest) as found:
        probe(store)
    assert what in found.value.why


def test_what_is_not_needed_is_noted() -> None:
    """A store without it may be used."""
    assert probe(MemoryStore()).missing == ()
    assert probe(DeafStore()).missing == ("conditional delete",)
    store = PlainStore()
    assert probe(store).missing == ("conditional delete", "multipart upload", "checksums", "paging")
    assert list(store.list("")) == []


def test_the_probe_cleans_up_after_a_liar() -> None:
    """Its object is removed in every case."""
    store = ForgetfulStore()
    with pytest.raises(StoreDishonest):
        probe(store)
    assert list(store.list("")) == []


def test_a_store_that_is_away_is_no_liar() -> None:
    """It is told apart, so that the operator looks in the right place."""
    with pytest.raises(StoreUnavailable):
        probe(FaultyStore(MemoryStore(), Fault(operation="put", action="unavailable")))
