"""The router's side of its conversation with the daemon: a Unix socket that only this user can open, one JSON a line.

The daemon connects, gives the whole table at each change, and hears whom to wake. When it restarts it connects again;
meanwhile the router works with the last table, and wakes that nobody could hear are said first. One conversation at a
time: the newer one counts.
"""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from claw_runtime.router.door import Gate, Trigger
from claw_runtime.router.links import Connections
from claw_runtime.router.table import Hook, Pass, Route, Table
from claw_runtime.router.ways import Traffic

log = structlog.get_logger(__name__)

LINE: Final = 16 * 1024 * 1024
"""Bytes of a line: the table of thousands of tenants."""


class Control:
    """Talks with the daemon."""

    def __init__(self) -> None:
        self.gate: Gate | None = None
        self.connections = Connections()
        self._began = 0.0
        self._writer: asyncio.StreamWriter | None = None
        self._unheard = dict[str, Trigger]()
        self._server: asyncio.Server | None = None

    async def listen(self, path: Path) -> None:
        """Accept the daemon at a socket, whose directory only this user can enter."""
        path.unlink(missing_ok=True)
        self._began = asyncio.get_running_loop().time()
        self._server = await asyncio.start_unix_server(self._talk, path, limit=LINE)
        path.chmod(0o600)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._writer is not None:
            self._writer.close()

    def wake(self, tenant: str, trigger: Trigger) -> None:
        """As `door.Waker`."""
        if self._writer is None:
            self._unheard.setdefault(tenant, trigger)
        else:
            self._say({"wake": {"tenant": tenant, "trigger": trigger}})

    def used(self, ticket: str) -> None:
        """As `door.Waker`. A daemon that does not hear it restarts, and knows no ticket afterwards."""
        self._say({"used": ticket})

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = writer
        unheard, self._unheard = self._unheard, {}
        for tenant, trigger in unheard.items():
            self.wake(tenant, trigger)
        try:
            while line := await reader.readline():
                self._hear(json.loads(line))
        except (ConnectionError, ValueError, KeyError, TypeError) as error:
            log.warning("the conversation with the daemon ended", why=str(error) or type(error).__name__)
        finally:
            if self._writer is writer:
                self._writer = None
            writer.close()

    def _hear(self, said: Mapping[str, Any]) -> None:
        gate = self.gate
        if gate is None:
            return
        if "table" in said:
            gate.update(table_of(said["table"]))
        if "failed" in said:
            gate.failed(said["failed"]["tenant"], said["failed"]["why"], float(said["failed"]["again"]))
        if "activity" in said:
            self._say({"activity": self.activity(gate), "counters": self.counters(gate)})

    def counters(self, gate: Gate) -> dict[str, Any]:
        """What happened since the router's start, and what is open now; of all tenants together."""
        traffic = gate.traffic.values()
        return {
            "answers": {f"{one}xx": count for one, count in sorted(self.connections.answers.items())},
            "refusals": {str(one): count for one, count in sorted(self.connections.refusals.items())},
            "clients": len(self.connections.clients),
            "requests": sum(one.requests for one in traffic),
            "sockets": sum(one.sockets for one in traffic),
            "held": gate.held.total(),
        }

    def activity(self, gate: Gate) -> list[dict[str, Any]]:
        """What each tenant's clients do, with ages in seconds.

        A tenant of which this router saw nothing counts as active when it started: it cannot know what was before.
        """
        now = asyncio.get_running_loop().time()

        def age(at: float | None) -> float | None:
            return None if at is None else round(now - at, 3)

        unseen = Traffic(request_at=self._began)
        return [
            {
                "tenant": tenant,
                "requests": one.requests,
                "sockets": one.sockets,
                "held": gate.held[tenant],
                "frame_age": age(one.frame_at),
                "request_age": age(one.request_at),
            }
            for tenant, one in (dict.fromkeys(gate.table.routes, unseen) | gate.traffic).items()
        ]

    def _say(self, what: Mapping[str, Any]) -> None:
        if self._writer is not None:
            self._writer.write(json.dumps(what, separators=(",", ":")).encode() + b"\n")


def table_of(document: Mapping[str, Any]) -> Table:
    """A table out of the daemon's line. Raises `KeyError`, `TypeError`, `ValueError`."""
    return Table(
        domain=document["domain"].encode("ascii"),
        routes={one["tenant"]: _route(one) for one in document["routes"]},
        tokens=_passes(document["tokens"]),
        links=_passes(document["links"]),
        tickets=_passes(document.get("tickets", ())),
        key=bytes.fromhex(document["key"]),
        proxies=frozenset(one.encode("ascii") for one in document.get("proxies", ())),
    )


def _route(one: Mapping[str, Any]) -> Route:
    return Route(
        tenant=one["tenant"],
        rung=one["rung"],
        address=(one["address"][0], int(one["address"][1])) if one["address"] else None,
        secret=one["secret"].encode(),
        fenced=bool(one["fenced"]),
        hooks=tuple(
            Hook(
                path=hook["path"].encode(),
                methods=frozenset(method.encode() for method in hook["methods"]),
                most=int(hook["most"]),
                rate=int(hook["rate"]),
            )
            for hook in one["hooks"]
        ),
    )


def _passes(rows: Any) -> dict[str, Pass]:
    return {
        row["sha256"]: Pass(tenant=row["tenant"], sha256=row["sha256"], expires_at=row["expires_at"]) for row in rows
    }
