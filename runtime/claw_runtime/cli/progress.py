"""Progress of a long verb on stderr: a bar with rate and time left on a terminal, otherwise occasional JSON lines.

Short verbs show nothing.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Self

from claw_runtime.cli import output
from claw_runtime.errors import ClawError
from claw_runtime.units import format_duration, format_size

MOMENT = 0.5
"""Seconds before a terminal shows progress."""

_DRAWN = 0.2
_TOLD = 5.0
_WIDTH = 24


class Progress:
    """Progress of one verb on one tenant; call `at` after each step.

    Args:
        total: Expected bytes; 0 when unknown.
    """

    def __init__(self, verb: str, tenant: str, total: int = 0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._verb, self._tenant, self._clock = verb, tenant, clock
        self.total = total
        self._terminal = sys.stderr.isatty()
        self._began = clock()
        self._next = self._began + (MOMENT if self._terminal else _TOLD)
        self._drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._drawn:
            output.redraw("")

    @property
    def due(self) -> bool:
        """Whether the next update would be shown."""
        return self._clock() >= self._next

    def at(self, done: int) -> None:
        """Report the bytes done."""
        if not self.due:
            return
        now = self._clock()
        rate = done / (now - self._began)
        left = (self.total - done) / rate if rate and self.total > done else None
        if self._terminal:
            self._drawn, self._next = True, now + _DRAWN
            output.redraw(self._line(done, rate, left))
        else:
            self._next = now + _TOLD
            output.note(json.dumps(self._document(done, rate, left)))

    def of(self, done: int, total: int) -> None:
        """Report the bytes done and the total."""
        self.total = total
        self.at(done)

    def _line(self, done: int, rate: float, left: float | None) -> str:
        parts = [f"{self._verb} {self._tenant}"]
        if self.total:
            full = min(done, self.total) * _WIDTH // self.total
            parts.append(f"[{'#' * full}{'-' * (_WIDTH - full)}] {min(done, self.total) * 100 // self.total:3} %")
        parts.append(format_size(done) + (f" of {format_size(self.total)}" if self.total else ""))
        parts.append(f"{format_size(int(rate))}/s")
        if left is not None:
            parts.append(f"{format_duration(left)} left")
        return "  ".join(parts)

    def _document(self, done: int, rate: float, left: float | None) -> dict[str, Any]:
        return {
            "verb": self._verb,
            "tenantId": self._tenant,
            "bytes": done,
            "total": self.total or None,
            "bytesPerSecond": int(rate),
            "secondsLeft": None if left is None else round(left, 1),
        }


def streamed(context: output.Context, verb: str, tenant: str, generation: int | None) -> Iterator[bytes]:
    """A generation as a tar, in pieces, with progress."""
    done, asked = 0, False
    with Progress(verb, tenant) as progress:
        for piece in context.client().stream(f"/api/v1/tenants/{tenant}/export", generation=generation):
            done += len(piece)
            if progress.due and not asked:
                asked = True
                with suppress(ClawError):  # it was removed meanwhile; the pieces will tell
                    path = f"/api/v1/tenants/{tenant}/snapshots/{generation or 'latest'}"
                    progress.total = context.client().get(path)["bytes"]
            progress.at(done)
            yield piece


def posted(context: output.Context, verb: str, tenant: str, path: str, body: Mapping[str, Any]) -> Any:
    """POST a request that commits the tenant's state, show its progress, and return the answer."""
    answers: list[Any] = []
    client, asking = context.client(), context.client()

    def post() -> None:
        try:
            answers.append(client.post(path, body))
        except Exception as error:  # noqa: BLE001 - it is raised again below
            answers.append(error)

    posting = threading.Thread(target=post, daemon=True)  # Ctrl-C ends the verb; the daemon continues
    posting.start()
    with Progress(verb, tenant) as progress:
        posting.join(MOMENT)
        while posting.is_alive():
            with suppress(ClawError):  # whatever is wrong, the answer will tell
                found = asking.get(f"/api/v1/tenants/{tenant}/transfer")
                if found["bytes"] is not None:
                    progress.of(found["bytes"], found["total"])
            posting.join(_DRAWN)
    [answer] = answers
    if isinstance(answer, Exception):
        raise answer
    return answer
