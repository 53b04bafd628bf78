"""The table that the router works by: which tenants are here, where they listen, and what opens them."""

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from claw_runtime.access.tokens import Tokens
from claw_runtime.errors import ClawError
from claw_runtime.ingress.tickets import Tickets
from claw_runtime.pools.pools import Pools
from claw_runtime.ports import Clock, Ledger, SlotRow, TenantRow
from claw_runtime.spec.parts import Webhook
from claw_runtime.spec.plan import Workload
from claw_runtime.tenants.drives.values import Values

RUNGS: Final[Mapping[str, str]] = {"active": "active", "releasing": "active", "frozen": "frozen", "parked": "parked"}
"""State of a tenant → rung of its route; `cold` for every other. A tenant that is being released is fenced."""


class Routes:
    """Makes the table out of ledger, workloads and credentials.

    Args:
        base: What every table has: the domain, the key of cookies and the proxies in front of the router.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        pools: Pools,
        values: Values,
        tokens: Tokens,
        tickets: Tickets,
        clock: Clock,
        base: Mapping[str, Any],
    ) -> None:
        self._ledger, self._pools, self._values, self._tokens = ledger, pools, values, tokens
        self._tickets, self._clock, self._base = tickets, clock, base
        self._lock = threading.Lock()
        self._fences = Counter[str]()
        self._workloads = dict[str, Workload]()
        self._secrets = dict[str, tuple[str | None, Workload, str]]()

    def fence(self, tenant: str) -> None:
        """Hold the tenant's requests from the next table on; each call needs one of `unfence`."""
        with self._lock:
            self._fences[tenant] += 1

    def unfence(self, tenant: str) -> None:
        """The other end of `fence`."""
        with self._lock:
            self._fences[tenant] -= 1
            if not self._fences[tenant]:
                del self._fences[tenant]

    def is_fenced(self, tenant: str) -> bool:
        """Whether an operation on the tenant holds its requests."""
        return tenant in self._fences

    def table(self) -> dict[str, Any]:
        """The whole table, as the router reads it (`claw_runtime.router.control.table_of`)."""
        tokens, links = self._passes()
        return {
            **self._base,
            "routes": self.rows(),
            "tokens": tokens,
            "links": links,
            "tickets": self._tickets.passes(),
        }

    def rows(self) -> list[dict[str, Any]]:
        """The routes: of every tenant that was claimed here and whose workload publishes a port."""
        slots = {slot.id: slot for slot in self._ledger.slots()}
        known = dict[str, Workload | None]()
        found = []
        for row in self._ledger.tenants():
            pool = row.pool or ""
            if pool not in known:
                known[pool] = self._workload(row)
            if (workload := known[pool]) is not None and workload.port is not None:
                found.append(self._row(row, slots.get(row.slot or ""), workload))
        return found

    def _row(self, row: TenantRow, slot: SlotRow | None, workload: Workload) -> dict[str, Any]:
        rung = RUNGS.get(row.state, "cold")
        port = slot.port if slot else None
        return {
            "tenant": row.id,
            "rung": rung,
            "address": ["127.0.0.1", port] if rung == "active" and port else None,
            "secret": self._secret(row, workload),
            "fenced": row.state == "releasing" or self.is_fenced(row.id),
            "hooks": [_hook(one) for one in workload.webhooks],
        }

    def _workload(self, row: TenantRow) -> Workload | None:
        """What the pool runs; None if it is not known, since its image is gone for instance."""
        pool = row.pool or ""
        try:
            self._workloads[pool] = self._pools.template(pool).workload
        except ClawError:
            if pool and pool not in self._workloads:
                try:
                    self._workloads[pool] = self._pools.last_workload(pool, None, row.proven)[0]
                except ClawError:
                    return None
        return self._workloads.get(pool)

    def _secret(self, row: TenantRow, workload: Workload) -> str:
        """The program's own token, read again only for another slot or workload."""
        known = self._secrets.get(row.id)
        if known is None or known[0] != row.slot or known[1] is not workload:
            try:
                secret = self._values.bearer(row.id, workload, row.slot)
            except (ClawError, OSError):  # the claim reports it
                return ""
            known = self._secrets[row.id] = (row.slot, workload, secret)
        return known[2]

    def _passes(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Passes of programs, and those in paths, which are valid now."""
        passes: dict[str, list[dict[str, Any]]] = {"tenant": [], "link": []}
        now = self._clock.now()
        for row in self._tokens.all():
            if row.scope in passes and (row.expires_at is None or now < row.expires_at):
                one = {"tenant": row.tenant, "sha256": row.sha256, "expires_at": row.expires_at}
                passes[row.scope].append(one)
        return passes["tenant"], passes["link"]


def _hook(webhook: Webhook) -> Mapping[str, str | int | Sequence[str]]:
    return {"path": webhook.path, "methods": list(webhook.methods), "most": webhook.body, "rate": webhook.rate}
