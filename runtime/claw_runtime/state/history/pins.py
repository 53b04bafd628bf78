"""Pins: generations that are kept until a person unpins them, despite retention, and their tags.

A pin is a separate object, so pinning needs no lease and a running tenant's generations can be pinned. It holds the
same fields as the history of HEAD's manifest: if the history drops the generation at the same moment, the pin still
leads to it. So a collection lists the pins after the history was written, and keeps what either names.
"""

import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from claw_runtime.errors import Conflict, InvalidSpec, StoreUnavailable
from claw_runtime.formats.head import timestamp
from claw_runtime.formats.manifest import Past
from claw_runtime.ports import AmbiguousWrite, Clock, ObjectMissing, ObjectStore
from claw_runtime.ports.objects import ATTEMPTS
from claw_runtime.tenancy import Keys, TenantId

VERSION: Final = 1
MOST: Final = 200
"""Maximum pins per tenant: what is pinned is never removed, and tenants may pin."""
LATEST: Final = "latest"
_TAG: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,62}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_THREADS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """A generation that is kept; `tag` may be empty, `at` is when it was pinned, ISO 8601 in UTC."""

    past: Past
    tag: str
    at: str

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
        return frozenset(self._numbers(tenant))

    def all(self, tenant: TenantId) -> Mapping[int, Pin]:
        """Every pin by its generation, oldest first. A pin that cannot be read still keeps its generation's number."""
        numbers = sorted(self._numbers(tenant))
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="claw-pins") as pool:
            found = pool.map(lambda number: self.find(tenant, number), numbers)
            return {pin.generation: pin for pin in found if pin}

    def find(self, tenant: TenantId, generation: int) -> Pin | None:
        """The pin of a generation; None when it has no readable pin."""
        with suppress(ObjectMissing, ValueError, KeyError, TypeError):
            pin = _pin(json.loads(self._store.get(Keys(tenant).pin(generation))[0]))
            return pin if pin.generation == generation else None
        return None

    def put(self, tenant: TenantId, past: Past, tag: str = "") -> Pin:
        """Pin a generation, with or without a tag; this replaces its earlier pin.

        Raises:
            InvalidSpec: The text is not a tag.
            Conflict: The tenant has too many pins.
        """
        numbers = self.numbers(tenant)
        if past.generation not in numbers and len(numbers) >= MOST:
            raise Conflict(
                f"tenant {tenant} has too many pinned generations",
                why=f"{MOST} are pinned, and none of them is ever removed",
                hint=f"claw-runtime snapshot unpin {tenant} GENERATION",
            )
        pin = Pin(past=past, tag=tag and tag_name(tag), at=timestamp(self._clock))
        self._write(Keys(tenant).pin(past.generation), json.dumps(_document(pin), indent=1).encode() + b"\n")
        return pin

    def drop(self, tenant: TenantId, generation: int) -> None:
        """Unpin a generation, so that retention applies again; no error if it is not pinned."""
        self._store.delete(Keys(tenant).pin(generation))

    def _write(self, key: str, data: bytes) -> None:
        for attempt in range(ATTEMPTS):
            if attempt:
                self._clock.sleep(0.1 * 2**attempt)
            with suppress(AmbiguousWrite):  # writing the same bytes again is harmless
                self._store.put(key, data)
                return
        raise StoreUnavailable("a pin could not be stored", hint="check the object store and try again", key=key)

    def _numbers(self, tenant: TenantId) -> Iterator[int]:
        prefix = Keys(tenant).pins
        for item in self._store.list(prefix):
            name = item.key.removeprefix(prefix)
            if name.isascii() and name.isdigit():
                yield int(name)


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
    }


def _pin(document: Any) -> Pin:
    numbers = [document[name] for name in ("generation", "files", "size")]
    tag, at, sha256, created = [document[name] for name in ("tag", "at", "sha256", "created")]
    if any(type(one) is not int for one in numbers) or not all(isinstance(one, str) for one in (at, created)):
        raise TypeError("not a pin")
    if not _DIGEST.fullmatch(sha256) or (tag and not _TAG.fullmatch(tag)):
        raise ValueError("not a pin")
    generation, files, size = numbers
    return Pin(past=Past(generation=generation, sha256=sha256, created=created, files=files, size=size), tag=tag, at=at)
