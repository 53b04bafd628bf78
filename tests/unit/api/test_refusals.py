"""What refused requests write to the log is bounded, however fast a client repeats them."""

import asyncio
import logging
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from claw_runtime.access.tokens import LOCAL, Grant
from claw_runtime.api import refusals
from claw_runtime.api.refusals import CALLERS, IN_FULL, FewLines, Refusals
from claw_runtime.errors import Forbidden
from fakes.faces import listening
from fakes.world import World
from structlog.testing import capture_logs


def scope(**changes: Any) -> dict[str, Any]:
    return {"method": "GET", "path": "/x", "client": ("10.0.0.1", 5), **changes}


def noted(*scopes: dict[str, Any]) -> list[dict[str, Any]]:
    """What is logged of these refusals in one short period, and of one after it."""

    async def go() -> None:
        told = Refusals(period=0.05)
        for one in scopes:
            told.note(one, Forbidden("not here"))
        await asyncio.sleep(0.2)
        told.note(scope(path="/later"), Forbidden("not here"))

    with capture_logs() as lines:
        asyncio.run(go())
    return [dict(line) for line in lines]


def test_a_caller_s_refusals_are_counted() -> None:
    """The first are written in full, the others are one line with the caller; then it begins again."""
    token = scope(**{"claw.grant": Grant(name="a1", scope="tenant")})
    *full, more, later = noted(*[token] * 500)
    assert [(line["event"], line["path"], line["slug"]) for line in full] == [("refused", "/x", "forbidden")] * IN_FULL
    assert (more["event"], more["of"], more["requests"]) == ("more requests refused", "token a1", 500 - IN_FULL)
    assert later["path"] == "/later"


def test_callers_are_counted_apart() -> None:
    """By token, the host's own user, and address; few refusals of each are all written, without a count."""
    lines = noted(
        *[scope(**{"claw.grant": LOCAL})] * IN_FULL, *[scope()] * IN_FULL, *[scope(client=("10.0.0.2", 5))] * IN_FULL
    )
    assert [line["event"] for line in lines] == ["refused"] * (3 * IN_FULL + 1)


def test_many_callers_count_as_one() -> None:
    """A client with many addresses writes no more lines than a bounded number of callers; a path is cut."""
    lines = noted(*[scope(client=(f"10.0.{at}.1", 5), path="/" + "x" * 60_000) for at in range(200)])
    assert len(lines) == CALLERS + IN_FULL + 2
    assert [line["requests"] for line in lines if line.get("of") == "other callers"] == [200 - CALLERS - IN_FULL]
    assert max(len(str(line)) for line in lines) < 1000


def test_the_api_counts_what_it_refuses(world: World) -> None:
    """What the guard refuses over TCP, for want of a token, and what a handler refuses."""
    at = "/api/v1/tenants/nobody/files"
    with listening(world) as (runtime, url), httpx.Client(base_url=url) as client:
        admin = {"Authorization": f"Bearer {runtime.tokens.create('a', 'admin')[1].reveal()}"}
        for headers, status in (({}, 401), (admin, 404)):
            with capture_logs() as lines:
                for _ in range(2 * IN_FULL):
                    assert client.get(at, headers=headers).status_code == status
            assert 0 < sum(line["event"] == "refused" for line in lines) < 2 * IN_FULL


def test_a_library_s_warnings_are_few() -> None:
    """The server warns of each request that is no HTTP; errors are always written, and the next period begins anew."""
    now = 0.0
    few = FewLines(lambda: now)

    def written(level: int, times: int) -> int:
        record = logging.LogRecord("uvicorn.error", level, "", 0, "Invalid HTTP request received.", (), None)
        return sum(few.filter(record) for _ in range(times))

    assert written(logging.WARNING, 100) == IN_FULL
    assert written(logging.ERROR, 100) == 100
    now = refusals.PERIOD + 1
    assert written(logging.WARNING, 100) == IN_FULL


def test_requests_that_are_no_http_write_few_lines(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """They reach no guard: the server itself refuses them."""
    refusals.SERVER_LINES.__init__()  # type: ignore[misc]  # as in a new daemon
    with listening(world) as (_, url):
        for _ in range(3 * IN_FULL):
            with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=10) as connection:
                connection.sendall(b"GET \x00 / HTTP/9\r\n\r\n")
                assert connection.recv(100).startswith(b"HTTP/1.1 400")
    assert 0 < sum("Invalid HTTP" in record.getMessage() for record in caplog.records) <= 2 * IN_FULL


def test_the_page_has_the_bounds_of_the_code() -> None:
    """docs/API.md tells how many refusals are written."""
    page = (Path(__file__).parents[3] / "docs/API.md").read_text()
    assert f"the first {IN_FULL} refusals of a caller within {refusals.PERIOD:g} s" in page
    assert f"At most {CALLERS} are counted separately" in page
