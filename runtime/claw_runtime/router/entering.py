"""A person's browser comes in by a ticket, which works once, and leaves with a cookie and the program's own token.

The token is in the fragment of the address, which a browser sends to nobody: the page takes it from there.
"""

import re
from typing import Final
from urllib.parse import quote

from claw_runtime.router.heads import Request
from claw_runtime.router.table import Table, digest
from claw_runtime.router.ways import Refusal

PATH: Final = b"/_claw/enter"
SESSION: Final = 30 * 86_400
"""Seconds that a cookie is good for."""

_TICKET: Final = re.compile(rb"ticket=([A-Za-z0-9_-]{43})")


class Entrance:
    """Tickets that were used are remembered until the daemon leaves them out of its table."""

    def __init__(self, cookie: bytes) -> None:
        self._cookie = cookie
        self._used = set[str]()

    def update(self, table: Table) -> None:
        """The daemon has another table."""
        self._used &= table.tickets.keys()

    def enter(self, request: Request, table: Table, now: float) -> tuple[Refusal, str] | None:
        """The answer to a request with a ticket of its host's tenant, and the ticket's digest; None without one."""
        tenant = table.of_host(request.host)
        query = request.target.partition(b"?")[2]
        found = _TICKET.fullmatch(query)
        ticket = found[1] if found else b""
        used = digest(ticket)
        good = table.opens(table.tickets, ticket, tenant, now) and used not in self._used
        route = table.routes.get(tenant)
        if not good or route is None or request.method != b"GET":
            return None
        self._used.add(used)
        token = quote(route.secret, safe="").encode()
        cookie = table.cookie(tenant, int(now) + SESSION)
        fields = (
            (b"location", b"/#token=" + token if token else b"/"),
            (
                b"set-cookie",
                b"%s=%s; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=%d" % (self._cookie, cookie, SESSION),
            ),
            (b"cache-control", b"no-store"),
            (b"referrer-policy", b"no-referrer"),
        )
        return Refusal(b"303 See Other", fields, b""), used
