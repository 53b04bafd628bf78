"""What must be true once a daemon that was killed has a successor: each broken promise is a sentence.

They are checked on what is there (files, containers, rows, HEAD objects), never on what the daemon says of itself.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from claw_runtime.clock import SystemClock
from claw_runtime.errors import ClawError
from claw_runtime.pools import start_gate
from claw_runtime.pools.status import PoolStatus
from claw_runtime.ports import Container, Engine, Ledger, ObjectStore, SlotRow, TenantRow
from claw_runtime.state.repository import Repository
from claw_runtime.tenancy import LABEL_OWNER, LABEL_SLOT, Layout, TenantId
from kill.image import MARKER, SCHEMA

_STATES = {"active": ("running",), "frozen": ("paused",)}
_WAITS = {"created": "initialized"}


class Host:
    """One host, looked at from outside."""

    def __init__(self, layout: Layout, ledger: Ledger, engine: Engine, store: ObjectStore, owner: str) -> None:
        self.layout, self.ledger, self.engine, self.store, self.owner = layout, ledger, engine, store, owner

    def containers(self) -> Sequence[Container]:
        """All of this runtime, in any state."""
        return self.engine.list({LABEL_OWNER: self.owner})

    def broken(self) -> list[str]:
        """Every promise about what lies around that does not hold, when nobody works on anything."""
        rows, tenants = self.ledger.slots(), self.ledger.tenants()
        return [
            *self._slots(rows, tenants),
            *self._strays(rows),
            *(fault for tenant in tenants for fault in self._tenant(tenant)),
            *self._mixed(rows, tenants),
        ]

    # --- slots and what belongs to them ---

    def _slots(self, rows: Sequence[SlotRow], tenants: Sequence[TenantRow]) -> list[str]:
        found: dict[str, list[Container]] = {}
        for container in self.containers():
            found.setdefault(container.labels.get(LABEL_SLOT, "none"), []).append(container)
        wrong = [f"orphan container: {found[slot][0].name}" for slot in found.keys() - {row.id for row in rows}]
        wrong += [f"{len(found[slot])} containers of slot {slot}" for slot in found if len(found[slot]) > 1]
        holders = {tenant.slot: tenant for tenant in tenants if tenant.slot}
        for row in rows:
            container = found.get(row.id, [None])[0]
            if row.state == "filling":
                wrong.append(f"slot {row.id} is filling, and nobody fills it")
            elif container is None or container.id != row.container:
                wrong.append(f"slot {row.id} ({row.state}) has no container")
            elif row.state == "ready":
                wrong += self._waits(row, container)
            elif row.id not in holders:
                wrong.append(f"slot {row.id} is claimed, and by nobody")
            elif container.state not in (_STATES.get(holders[row.id].state) or ()):
                wrong.append(f"the container of {holders[row.id].id} ({holders[row.id].state}) is {container.state}")
        return wrong

    def _waits(self, row: SlotRow, container: Container) -> list[str]:
        if container.state != _WAITS.get(row.tier, "running"):
            return [f"slot {row.id} of tier {row.tier} waits, and its container is {container.state}"]
        values = self.layout.slot(row.id).values
        if row.tier != "created" and not start_gate.waits(values):
            return [f"no process waits at the start gate of slot {row.id}"]
        if (values / "values.json").exists():
            return [f"slot {row.id} waits, and holds values"]
        dirs = self.layout.slot(row.id)
        return [f"slot {row.id} waits, and holds {path}" for top in (dirs.state, dirs.logs) for path in top.rglob("*")]

    def _strays(self, rows: Sequence[SlotRow]) -> list[str]:
        known = {row.id for row in rows}
        gates = {row.id for row in rows if row.tier != "created"}
        home, run = self.layout.home, self.layout.run
        wrong = [
            f"orphan slot directory: {path.name}" for path in self.layout.slots.glob("*") if path.name not in known
        ]
        wrong += [f"orphan values: {path.name}" for path in (run / "slots").glob("*") if path.name not in known]
        wrong += [
            f"orphan start gate: {path}" for path in (run / "slots").glob("*/door") if path.parent.name not in gates
        ]
        wrong += [f"left behind: {path.relative_to(home)}" for path in home.glob("tenants/*/staging")]
        wrong += [f"left behind: {path.relative_to(home)}" for path in home.glob("tenants/*/donor")]
        wrong += [f"left behind: {path.relative_to(home)}" for path in self.layout.scratch.glob("*")]
        temporary = [*home.glob(".*"), *home.glob("tenants/*/secrets/.*"), *run.glob("slots/*/.*")]
        return wrong + [f"half-written: {path.name}" for path in temporary]

    def refilled(self, pool: PoolStatus) -> list[str]:
        """Tiers of the pool that do not have as many slots as they should."""
        return [
            f"{tier.ready} slots wait as {name}, not {tier.wanted}: {pool.error}"
            for name, tier in pool.tiers.items()
            if tier.ready != tier.wanted or tier.filling
        ]

    # --- tenants ---

    def _tenant(self, row: TenantRow) -> list[str]:
        wrong = []
        if row.state in ("claiming", "releasing"):
            wrong.append(f"{row.id} is {row.state} ({row.step}), and nobody works on it")
        if (row.slot is not None) != (row.state in _STATES):
            wrong.append(f"{row.id} is {row.state}, and its slot is {row.slot}")
        if self.layout.kept_tree(row.id).exists() != (row.state == "kept"):
            wrong.append(f"{row.id} is {row.state}, and its kept tree is not as that says")
        if self.layout.parked_tree(row.id).exists() and row.state != "parked":
            wrong.append(f"{row.id} is {row.state}, and a parked tree lies here")
        head = self._repository(self.owner).generations.head(row.id)
        holder = head.owner if head else None
        if holder is not None and not (holder == self.owner and row.state in ("active", "kept")):
            wrong.append(f"{row.id} is {row.state}, and HEAD is held by {holder}")
        if holder is None and row.state == "active":
            wrong.append(f"{row.id} runs here, and HEAD is free for others")
        return wrong

    def _mixed(self, rows: Sequence[SlotRow], tenants: Sequence[TenantRow]) -> list[str]:
        """Trees of one tenant where another's, or nobody's, belongs."""
        places: dict[Path, str] = {self.layout.slot(row.id).state: "" for row in rows}
        for tenant in tenants:
            places[self.layout.kept_tree(tenant.id)] = places[self.layout.parked_tree(tenant.id)] = tenant.id
            if tenant.slot:
                places[self.layout.slot(tenant.slot).state] = tenant.id
        found = {place: (place / MARKER).read_text() for place in places if (place / MARKER).exists()}
        return [
            f"the tree of {whose} lies where {places[place] or 'nobody'}'s belongs"
            for place, whose in found.items()
            if whose != places[place]
        ] + [f"what a failed trial wrote is in the tree of {places[at]}" for at in places if (at / SCHEMA).exists()]

    def elsewhere(self, tenant: str) -> list[str]:
        """Whether another runtime can have a tenant that is not held here, at once; it gives it back."""
        row = self.ledger.tenant(TenantId(tenant))
        if row is not None and row.state in ("active", "kept"):
            return []
        if row is not None and row.state in ("claiming", "releasing"):  # the daemon answers before it has recovered
            return [f"{tenant} is still {row.state}"]
        other = self._repository("elsewhere")
        try:
            other.leases.acquire(TenantId(tenant))
            other.leases.give_back(TenantId(tenant))
        except ClawError as error:
            return [f"another host cannot have {tenant}: {error}"]
        return []

    def _repository(self, owner: str) -> Repository:
        return Repository(self.store, owner, SystemClock(), self.layout.home / "elsewhere")

    # --- words ---

    def lost(self, tenant: str, words: Mapping[str, str]) -> list[str]:
        """Words of a tenant that are not in the /state of its running container."""
        row = self.ledger.tenant(TenantId(tenant))
        if row is None or row.slot is None:
            return [f"{tenant} is not claimed"]
        state = self.layout.slot(row.slot).state
        there = {name: (state / name).read_text() if (state / name).exists() else None for name in words}
        return [
            f"{tenant}: {name} was {words[name]!r} and is {there[name]!r}"
            for name in words
            if words[name] != there[name]
        ]

    def left(self) -> list[str]:
        """What is still there when every tenant was released and the pool is drained."""
        wrong = [f"left: container {found.name}" for found in self.containers()]
        wrong += [f"left: slot {row.id}" for row in self.ledger.slots()]
        return wrong + [
            f"left: {path}" for top in (self.layout.slots, self.layout.run / "slots") for path in top.glob("*")
        ]
