"""Pins: generations that are kept despite retention, and their tags.

A person's pin stays until a person drops it. An automatic pin, which a commit makes before a mass delete, expires: a
program that fills and empties a cache makes one every few minutes.

A pin is a separate object, so pinning needs no lease and a running tenant's generations can be pinned. It holds the
same fields as the history of HEAD's manifest: if the history drops the generation at the same moment, the pin still
leads to it. So a collection lists the pins after the history was written, and keeps what either names.
"""

import json
import re
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from claw_runtime.errors import Conflict, InvalidSpec, StoreUnavailable
from claw_runtime.formats.head import timestamp
from claw_runtime.formats.manifest import Past
from claw_runtime.ports import AmbiguousWrite, Clock, ObjectMissing, ObjectStore, PreconditionFailed
from claw_runtime.ports.objects import ATTEMPTS
from claw_runtime.tenancy import Keys, TenantId

VERSION: Final = 1
MOST: Final = 200
"""Maximum pins by persons per tenant: what they pin is never removed, and tenants may pin."""
AUTOMATIC: Final = 10
"""Automatic pins per tenant: the newest stay."""
WEEK: Final = 7 * 24 * 3600.0
"""Seconds that an automatic pin stays, by the store's clock."""
LATEST: Final = "latest"
_TAG: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,62}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_THREADS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """A generation that is kept; `tag` may be empty, `at` is when it was pinned, ISO 8601 in UTC. An `automatic` pin
    expires."""

    past: Past
    tag: str
    at: str
    automatic: bool = False

    @property
    def generation(self) -> int:
        return self.past.generation


def tag_name(text: str) -> str:
    """Check a tag: it must differ from a number, a time and `latest`, which name generations too.

    Raises:
        InvalidSpec: The text does not have the allowed form.
    """
    if text == LATEST or not _TAG.fullmatch(text):
        raise InvalidSpec(
            f"not a tag: {text[:80]!r}",
            why="it has 1-63 letters, digits, dots, hyphens or underscores, begins with a letter, and is not 'latest'",
            hint="choose one such as 'before-upgrade'",
        )
    return text


class Pins:
    """The pins of all tenants in one store.

    Raises (every method): StoreUnavailable, StoreDenied, BucketMissing.
    """

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._store, self._clock = store, clock

    def numbers(self, tenant: TenantId) -> frozenset[int]:
        """The generations that are pinned: one request."""
        return frozenset(self._listed(tenant))

    def all(self, tenant: TenantId) -> Mapping[int, Pin]:
        """Every pin by its generation, oldest first. A pin that cannot be read still keeps its generation's number."""
        return self._read(tenant, self._listed(tenant))

    def find(self, tenant: TenantId, generation: int) -> Pin | None:
        """The pin of a generation; None when it has no readable pin."""
        found = self._find(tenant, generation)
        return found and found[0]

    def put(self, tenant: TenantId, past: Past, tag: str = "", *, automatic: bool = False) -> Pin:
        """Pin a generation, with or without a tag; this replaces its earlier pin.

        Args:
            automatic: Nobody asked for it. The oldest automatic pins are dropped when there are more than `AUTOMATIC`.

        Raises:
            InvalidSpec: The text is not a tag.
            Conflict: The tenant has too many pins by persons.
        """
        numbers = self.numbers(tenant)
        if not automatic and past.generation not in numbers and len(numbers) >= MOST:
            self._refuse_more(tenant)
        pin = Pin(past=past, tag=tag and tag_name(tag), at=timestamp(self._clock), automatic=automatic)
        self._write(Keys(tenant).pin(past.generation), json.dumps(_document(pin), indent=1).encode() + b"\n")
        if automatic and len(numbers) >= AUTOMATIC:
            self.expire(tenant, self._surplus(tenant, numbers | {past.generation}))
        return pin

    def drop(self, tenant: TenantId, generation: int) -> None:
        """Unpin a generation, so that retention applies again; no error if it is not pinned."""
        self._store.delete(Keys(tenant).pin(generation))

    def expired(self, tenant: TenantId, now: float) -> frozenset[int]:
        """The automatic pins that are older than a week, or too many; `now` in seconds, by the store's clock."""
        listed = self._listed(tenant)
        old = {number for number, modified in listed.items() if now - modified >= WEEK}
        old = {number for number, pin in self._read(tenant, old).items() if pin.automatic}
        return self._surplus(tenant, listed) | old if len(listed) > AUTOMATIC else frozenset(old)

    def expire(self, tenant: TenantId, generations: Collection[int]) -> None:
        """Drop these pins, except those that a person has pinned meanwhile."""
        for number in generations:
            if (found := self._find(tenant, number)) and found[0].automatic:
                key = Keys(tenant).pin(number)
                try:
                    self._store.delete(key, if_match=found[1])
                except PreconditionFailed:  # a person has just pinned it
                    continue
                except StoreUnavailable:  # this store may lack conditional deletes
                    self._store.delete(key)

    def _surplus(self, tenant: TenantId, numbers: Collection[int]) -> frozenset[int]:
        """The automatic pins among these, except the newest."""
        automatic = [number for number, pin in self._read(tenant, numbers).items() if pin.automatic]
        return frozenset(automatic[:-AUTOMATIC])

    def _refuse_more(self, tenant: TenantId) -> None:
        if sum(not pin.automatic for pin in self.all(tenant).values()) >= MOST:
            raise Conflict(
                f"tenant {tenant} has too many pinned generations",
                why=f"{MOST} are pinned by hand, and none of them is ever removed",
                hint=f"claw-runtime snapshot unpin {tenant} GENERATION",
            )

    def _read(self, tenant: TenantId, numbers: Collection[int]) -> dict[int, Pin]:
        """The readable pins of these generations, oldest first."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="claw-pins") as pool:
            found = pool.map(lambda number: self.find(tenant, number), sorted(numbers))
            return {pin.generation: pin for pin in found if pin}

    def _find(self, tenant: TenantId, generation: int) -> tuple[Pin, str] | None:
        """A pin and its etag."""
        with suppress(ObjectMissing, ValueError, KeyError, TypeError):
            data, etag = self._store.get(Keys(tenant).pin(generation))
            pin = _pin(json.loads(data))
            return (pin, etag) if pin.generation == generation else None
        return None

    def _write(self, key: str, data: bytes) -> None:
        for attempt in range(ATTEMPTS):
            if attempt:
                self._clock.sleep(0.1 * 2**attempt)
            with suppress(AmbiguousWrite):  # writing the same bytes again is harmless
                self._store.put(key, data)
                return
        raise StoreUnavailable("a pin could not be stored", hint="check the object store and try again", key=key)

    def _listed(self, tenant: TenantId) -> dict[int, float]:
        """The generations that are pinned, and when each pin was written, by the store's clock."""
        prefix = Keys(tenant).pins
        names = ((item.key.removeprefix(prefix), item.modified) for item in self._store.list(prefix))
        return {int(name): modified for name, modified in names if name.isascii() and name.isdigit()}


def _document(pin: Pin) -> dict[str, Any]:
    past = pin.past
    return {
        "v": VERSION,
        "generation": past.generation,
        "tag": pin.tag,
        "at": pin.at,
        "sha256": past.sha256,
        "created": past.created,
        "files": past.files,
        "size": past.size,
    } | ({"automatic": True} if pin.automatic else {})


def _pin(document: Any) -> Pin:
    numbers = [document[name] for name in ("generation", "files", "size")]
    tag, at, sha256, created = [document[name] for name in ("tag", "at", "sha256", "created")]
    if any(type(one) is not int for one in numbers) or not all(isinstance(one, str) for one in (at, created)):
        raise TypeError("not a pin")
    if not _DIGEST.fullmatch(sha256) or (tag and not _TAG.fullmatch(tag)):
        raise ValueError("not a pin")
    generation, files, size = numbers
    past = Past(generation=generation, sha256=sha256, created=created, files=files, size=size)
    return Pin(past=past, tag=tag, at=at, automatic=document.get("automatic") is True)
