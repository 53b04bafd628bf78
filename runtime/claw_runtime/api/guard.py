"""Authorizes every request before a handler sees it: its origin, rights and form.

The API has two entrances. The Unix socket has mode 0600: only the daemon's own user can open it, with all rights. TCP
needs a token. There the name in Host is checked as well, because a web page may make a browser resolve its name to
127.0.0.1 (DNS rebinding), and a request of a foreign page is refused by its Origin. No cookie and no password dialogue
exist, so a page cannot use a browser's credentials.

A token is sent as `Authorization: Bearer …`, or as the first part of the path, `/t/<token>/api/v1/…`, for clients that
know only a base URL. This module removes it from the path, so that it reaches no handler and no log.
"""

import asyncio
import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from claw_runtime import logs
from claw_runtime.access.tokens import LOCAL, Grant, Tokens
from claw_runtime.api.bodies import check_json
from claw_runtime.api.lanes import lane_of, tenant_of
from claw_runtime.api.problems import problem
from claw_runtime.api.refusals import Refusals
from claw_runtime.api.turns import Lanes, watched
from claw_runtime.errors import Busy, ClawError, Forbidden, InvalidSpec, Unauthorized

BODY_MOST = 1 << 20
"""Maximum bytes of a request's body; the largest, a workload file, may have a quarter of it."""

BODY_WITHIN = 30.0
"""Seconds in which the whole body of a request must arrive."""

CAPABILITY = re.compile(r"/t/([^/]*)(/.*)?", re.DOTALL)
OPEN = re.compile(r"/api/v1/tenants/[^/]+/open", re.DOTALL)
WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
SENT_ALONG = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class Guard:
    """Passes authorized requests to `app`, with their grant in `scope["claw.grant"]`, and what logs refusals in
    `scope["claw.refusals"]`.

    Args:
        socket: Path of the Unix socket; a connection that came through anything else needs a token.
        hosts: Names and addresses that a request over TCP may give as its Host, without a port.
        origins: Origins whose pages may make requests.
        lanes: Where each request gets its turn, before its body is read.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        socket: str,
        tokens: Tokens,
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        lanes: Lanes | None = None,
    ) -> None:
        self.app = app
        self._lanes = lanes or Lanes()
        self._socket = socket
        self._tokens = tokens
        self._hosts = frozenset(hosts)
        self._origins = frozenset(origins)
        self._refusals = Refusals()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the API speaks HTTP only, not {scope['type']}")
        scope["claw.refusals"] = self._refusals
        text = _take_capability(scope)
        headers = Headers(scope=scope)
        try:
            grant = scope["claw.grant"] = self._who(scope, headers, text)
            path = scope["path"]
            _check_reach(grant, path)
            lane = lane_of(scope["method"], path, scope["query_string"])
            async with self._lanes.turn(lane, grant, tenant_of(path)) as turn:
                body = await _read(scope, headers, receive)
                async with watched(turn, body, receive) as again:
                    await self.app(scope, again, _hardened(send))
        except ClawError as error:  # before the application began: it answers every error itself
            if not isinstance(error, Busy):  # its lane logs those
                self._refusals.note(scope, error)
            await problem(error, error.facts.get("status"))(scope, receive, _hardened(send))

    def _who(self, scope: Scope, headers: Headers, capability: str | None) -> Grant:
        """Raises `Forbidden`, `Unauthorized`."""
        local = scope.get("server") == (self._socket, None)
        if not local:
            self._check_host(headers)
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in self._origins:
            raise Forbidden(
                "a web page of another origin made this request",
                why=f"its Origin is {origin[:100]!r}",
                hint="if this origin is yours, add it to CLAW_ALLOW_ORIGINS",
            )
        if local:
            return LOCAL
        text = capability or _bearer(headers)
        grant = self._tokens.check(text) if text else None
        if text is None or grant is None:
            raise Unauthorized(
                "the API over TCP needs a token",
                why="this request has no token"
                if text is None
                else "this token is unknown on this host, expired, or revoked",
                hint="claw-runtime token create NAME, then send it as Authorization: Bearer …",
            )
        logs.redact(text)
        return grant

    def _check_host(self, headers: Headers) -> None:
        given = headers.getlist("host")
        name = _host(given[0]) if len(given) == 1 else None
        if name not in self._hosts:
            raise Forbidden(
                "the API does not answer to this name",
                why=f"Host is {', '.join(given)[:100]!r}",
                hint="if this name is yours, add it to CLAW_ALLOW_HOSTS",
            )


def _take_capability(scope: Scope) -> str | None:
    """The token at the beginning of the path, which is removed from it."""
    found = CAPABILITY.fullmatch(scope["path"])
    if found is None:
        return None
    scope["path"] = found[2] or "/"
    parts = scope.get("raw_path", b"").split(b"/", 3)
    scope["raw_path"] = b"/" + parts[3] if len(parts) > 3 else b"/"
    return found[1]


def _bearer(headers: Headers) -> str | None:
    given = headers.getlist("authorization")
    scheme, _, text = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    return text.strip() if scheme.lower() == "bearer" else None


def _host(value: str) -> str | None:
    """Host without its port, in lower case; None if it is not a host."""
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?", value)
    return found[1].lower().removeprefix("[").removesuffix("]") if found else None


def hosts_of(listen: tuple[str, int] | None, allowed: Iterable[str]) -> set[str]:
    """The values of Host that are allowed for a listen address: the address itself, the names of loopback for a
    loopback address, and the names that the operator allows. `0.0.0.0` is never allowed."""
    hosts = {name.removeprefix("[").removesuffix("]") for name in allowed}
    if listen is not None:
        address = ipaddress.ip_address(listen[0])
        if not address.is_unspecified:
            hosts.add(str(address))
        if address.is_loopback or address.is_unspecified:
            hosts |= {"localhost", "127.0.0.1", "::1"}
    return hosts


def _check_reach(grant: Grant, path: str) -> None:
    """Check that a token may use this path. Unknown paths are refused by default. Raises `Forbidden`."""
    if grant.local:
        return
    if path.startswith("/api/v1/tokens"):
        raise Forbidden(
            "tokens can be created and revoked only on the host itself",
            why="a stolen token must not be able to make another",
            hint="use the Unix socket: claw-runtime token …",
        )
    if OPEN.fullmatch(path):
        raise Forbidden(
            "an address for a browser can be made only on the host itself",
            why="it admits a browser for weeks, and a stolen token must not outlive its revocation",
            hint="use the Unix socket: claw-runtime open TENANT",
        )
    if grant.scope == "admin" or path == "/livez":
        return
    own = f"/api/v1/tenants/{grant.tenant}"
    if path != own and not path.startswith(f"{own}/"):
        raise Forbidden(
            f"the token {grant.name!r} is for tenant {grant.tenant!r} only",
            hint=f"it may use only paths that begin with {own}",
        )


async def _read(scope: Scope, headers: Headers, receive: Receive) -> bytes:
    """The body of a request that may have one. Raises `InvalidSpec` (408, 413, 415)."""
    if scope["method"] not in WITH_BODY:
        return b""
    try:
        async with asyncio.timeout(BODY_WITHIN):
            body = await _body(headers, receive)
    except TimeoutError as error:
        raise InvalidSpec(
            "the request body does not arrive",
            why=f"it was not complete after {BODY_WITHIN:g} s",
            hint="send the request again",
            status=408,
        ) from error
    _check_form(headers, body)
    if body:
        check_json(body)
    return body


async def _body(headers: Headers, receive: Receive) -> bytes:
    """The whole body. Raises `InvalidSpec` (413) as soon as it is too large."""
    announced = headers.get("content-length", "0")
    parts: list[bytes] = []
    size = int(announced) if announced.isascii() and announced.isdigit() else 0
    more = size <= BODY_MOST
    read = 0
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        parts.append(message.get("body", b""))
        read += len(parts[-1])
        more = message.get("more_body", False) and read <= BODY_MOST
    if max(size, read) > BODY_MOST:
        raise InvalidSpec(
            "the request body is too large",
            why=f"it has more than {BODY_MOST} bytes",
            hint="no API request needs a larger body",
            status=413,
        )
    return b"".join(parts)


def _check_form(headers: Headers, body: bytes) -> None:
    """Accept only JSON: a page can send forms and plain text without a preflight. Raises `InvalidSpec` (415)."""
    kind = headers.get("content-type")
    if kind is None and not body:
        return
    media, _, options = (kind or "").partition(";")
    charset = options.strip().lower()
    if media.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise InvalidSpec(
            "the API accepts only JSON",
            why=f"Content-Type is {kind[:100]!r}" if kind else "there is no Content-Type",
            hint="send Content-Type: application/json, or no body at all",
            status=415,
        )


def _hardened(send: Send) -> Send:
    async def hardened(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *SENT_ALONG]}
        await send(message)

    return hardened


def grant_of(scope: Mapping[str, Any]) -> Grant:
    """The grant of the request."""
    grant = scope["claw.grant"]
    assert isinstance(grant, Grant)  # noqa: S101 - the guard sets it
    return grant
