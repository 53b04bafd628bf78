"""How handlers run: each in a thread of its request's lane, which also makes the answer's bytes.

An answer may have a hundred thousand entries. Made on the event loop, it would keep every other request waiting.
"""

import asyncio
import inspect
import json
from collections import deque
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from claw_runtime.api.turns import ClientGone, current

STALLED = 60.0
"""Seconds in which a client takes nothing of a streamed answer, after which it counts as gone."""


REPORT_EVERY = 0.1
"""Seconds between two lines of progress."""


class InLane(APIRoute):
    """A route whose handler, a plain function, runs in a thread of the lane of its request."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, _threaded(endpoint, options.get("status_code") or 200), **options)


def router(prefix: str, tag: str) -> APIRouter:
    """A router of such routes."""
    return APIRouter(prefix=prefix, tags=[tag], route_class=InLane)


def _threaded(endpoint: Callable[..., Any], status: int) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(endpoint):
        return endpoint

    def made(given: dict[str, Any]) -> Any:
        answer = endpoint(**given)
        if not isinstance(answer, BaseModel):
            return answer
        code = next((one.status_code for one in given.values() if isinstance(one, Response)), None)
        return Response(answer.model_dump_json(by_alias=True), code or status, media_type="application/json")

    @wraps(endpoint)
    async def run(**given: Any) -> Any:
        return await current().run(lambda: made(given))

    return run


class Streamed(Response):
    """An answer in pieces, each made in a thread of the lane; it ends when the client has gone or takes nothing.

    Args:
        pieces: Bytes; an empty piece is left out. Closed at the end if it can be.
    """

    def __init__(self, pieces: Iterator[bytes], media_type: str, *, stalled: float = STALLED) -> None:
        super().__init__(media_type=media_type)
        del self.headers["content-length"]
        self._pieces, self._stalled = pieces, stalled

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        turn = current()
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            while (piece := await turn.run(lambda: next(self._pieces, None))) is not None:
                if turn.gone():
                    return  # without an end, since half an answer must not look whole
                if piece:
                    async with asyncio.timeout(self._stalled):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            turn.leave()
        finally:
            close = getattr(self._pieces, "close", None)
            if close:
                await turn.run(close)


def streamed(pieces: Iterator[bytes], media_type: str) -> Streamed:
    """An answer in pieces. The first is made now, while an error is still an error and not half an answer."""
    first = next(pieces, b"")

    def whole() -> Iterator[bytes]:
        yield first
        yield from pieces

    return Streamed(whole(), media_type)


class Reported(Response):
    """An answer in JSON lines: how far work in one thread has come, and as the last one what `work` returns.

    Args:
        work: Gets a function that takes the present progress; it raises `ClientGone` when the client has gone.
    """

    def __init__(self, work: Callable[[Callable[[Any], None]], Any], *, stalled: float = STALLED) -> None:
        super().__init__(media_type="application/x-ndjson")
        del self.headers["content-length"]
        self._work, self._stalled = work, stalled

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        turn, newest = current(), deque[Any](maxlen=1)  # a slow reader gets fewer lines, not a longer queue

        def report(progress: Any) -> None:
            turn.check()
            newest.append(progress)

        async def line(told: Any, *, more: bool) -> None:
            async with asyncio.timeout(self._stalled):
                await send({"type": "http.response.body", "body": json.dumps(told).encode() + b"\n", "more_body": more})

        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        working = asyncio.ensure_future(turn.run(lambda: self._work(report)))
        try:
            while not working.done():
                await asyncio.wait({working}, timeout=REPORT_EVERY)
                if newest:
                    await line(newest.pop(), more=True)
            await line(await working, more=False)
        except TimeoutError:
            turn.leave()
        except ClientGone:
            pass
        finally:
            await asyncio.wait({working})
            working.exception()  # it is known, and nobody asks for it
