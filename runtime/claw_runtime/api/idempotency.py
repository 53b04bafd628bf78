"""`Idempotency-Key`: a client that lost an answer repeats the request with the same key, and gets that answer.

The key, a digest of the request and the answer are kept for a day. The same key with another request is refused; a
repeat during the first request is refused with Retry-After. Only successful answers (2xx) are kept: a refusal changed
nothing, so a repeat is a new request. After a crash the keys of unfinished requests are free: the daemon has then
finished or undone their work, so they may be repeated.
"""

import hashlib
import re
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

import structlog
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from claw_runtime.api.guard import grant_of
from claw_runtime.api.problems import problem
from claw_runtime.api.turns import current
from claw_runtime.errors import Conflict, InvalidSpec
from claw_runtime.ports import AnswerStore, Clock

log = structlog.get_logger(__name__)

LIFETIME = 24 * 3600.0
"""Seconds that an answer is kept."""

KEY = re.compile(r"[\x21-\x7e]{1,255}")
CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
UNKEPT = re.compile(r"/api/v1/(?:tokens(?:/.*)?|tenants/[^/]+/open)", re.DOTALL)
"""Answers of these paths contain a token's or ticket's text, which is never stored. A second token of one name is
refused anyway, and a second ticket is another one."""


class Idempotent:
    """Stores answers of `app`. The guard before it has read the body, so the body arrives in one piece."""

    def __init__(self, app: ASGIApp, store: AnswerStore, clock: Clock) -> None:
        self.app = app
        self._store = store
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = Headers(scope=scope).get("idempotency-key")
        if key is None or scope["method"] not in CHANGING or UNKEPT.fullmatch(scope["path"]):
            await self.app(scope, receive, send)
            return
        if not KEY.fullmatch(key):
            refusal = InvalidSpec(
                "not an Idempotency-Key", why="it is 1-255 visible ASCII characters", hint="use a UUID"
            )
            await problem(refusal)(scope, receive, send)
            return
        message = await receive()
        body = message.get("body", b"")
        grant = grant_of(scope)
        who = "" if grant.local else grant.name
        request = _digest(scope, body)
        now = self._clock.now()
        before = await current().run(lambda: self._store.begin(who, key, request, now, lifetime=LIFETIME))
        if before is None:
            await self._first(scope, body, receive, send, who, key)
        elif before.request != request:
            used = InvalidSpec(
                "this Idempotency-Key belongs to another request",
                why="it was used with another method, address or body within the last day",
                hint="use a new key for each request, and reuse it only to retry that request",
            )
            await problem(used)(scope, receive, send)
        elif before.status is None:
            under_way = Conflict(
                "the first request with this Idempotency-Key is still running", hint="ask again", retry_after=1
            )
            await problem(under_way)(scope, receive, send)
        else:
            again = Response(before.body or b"", before.status, {"Idempotent-Replayed": "true"}, "application/json")
            await again(scope, receive, send)

    async def _first(self, scope: Scope, body: bytes, receive: Receive, send: Send, who: str, key: str) -> None:
        """Pass the request on; store the answer before the client gets it."""
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        start: MutableMapping[str, Any] = {}
        parts: list[bytes] = []

        async def again() -> Message:
            return pending.pop() if pending else await receive()

        async def keep(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            parts.append(message.get("body", b""))
            if message.get("more_body"):
                return
            await current().run(lambda: self._keep(who, key, start["status"], b"".join(parts)))
            await send(start)
            await send({"type": "http.response.body", "body": b"".join(parts)})

        try:
            await self.app(scope, again, keep)
        except BaseException:
            self._store.forget(who, key)
            raise

    def _keep(self, who: str, key: str, status: int, body: bytes) -> None:
        """Store an answer; the client gets it even if it cannot be stored."""
        try:
            if 200 <= status < 300:
                self._store.finish(who, key, status, body)
                return
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no error of the request
            log.warning("an answer was not stored for its Idempotency-Key", status=status, error=str(error))
        with suppress(Exception):  # what is neither kept nor forgotten is under way until the daemon starts again
            self._store.forget(who, key)


def _digest(scope: Scope, body: bytes) -> str:
    """A digest of everything that identifies a request."""
    parts = (scope["method"].encode(), scope["path"].encode("utf-8", "surrogateescape"), scope["query_string"], body)
    return hashlib.sha256(b"".join(len(part).to_bytes(8) + part for part in parts)).hexdigest()
