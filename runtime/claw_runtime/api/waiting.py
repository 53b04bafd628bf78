"""Claims that wait for a slot of a full pool: in line, without a thread each."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import TypeVar

from claw_runtime.api.turns import Turn
from claw_runtime.errors import PoolExhausted
from claw_runtime.pools.wait_queue import QueuedClaim

Answer = TypeVar("Answer")
Line = Callable[[Callable[[], None]], AbstractContextManager[QueuedClaim]]
"""Enters the line of a pool; the argument is called, in any thread, when the place is first and may try."""


async def in_line(turn: Turn, line: Line, wait: float, attempt: Callable[[QueuedClaim | None], Answer]) -> Answer:
    """The answer of an attempt, which is repeated whenever the claim is first in line and a slot may have come.

    Args:
        wait: Seconds in line.
        attempt: Runs in a thread of the lane; its argument is the claim's place in line, None before it has one.

    Raises:
        PoolExhausted: No slot came, or the client has gone.
    """
    try:
        return await turn.run(lambda: attempt(None))
    except PoolExhausted as error:
        if wait <= 0 or not error.facts.get("in_use") or turn.gone():
            raise
        refused = error
    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    until = loop.time() + wait

    def wake() -> None:
        with suppress(RuntimeError):  # the server has ended
            loop.call_soon_threadsafe(changed.set)

    turn.when_gone(changed.set)
    with line(wake) as place:
        while not turn.gone():
            changed.clear()
            if place.may_try():
                await turn.resume()
                try:
                    return await turn.run(lambda: attempt(place))
                except PoolExhausted as error:
                    if not error.facts.get("in_use"):
                        raise
                    refused = error
            turn.pause()
            try:
                async with asyncio.timeout_at(until):
                    await changed.wait()
            except TimeoutError:
                raise refused from None
    raise refused
