"""Values: configuration and secrets that a tenant's program gets at its claim.

They come from the workload file and from secret files of this host. For names that the image's contract calls
generated, the value is a random secret that stays the tenant's. They reach the container as one 0600 file, never in an
environment, an argument or a label, which `podman inspect` shows.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from claw_runtime.fsutil import write_atomic
from claw_runtime.ports import Secrets
from claw_runtime.spec.plan import Workload
from claw_runtime.tenancy import Layout, TenantId

_FILE = "values.json"


class Values:
    """Values of all tenants of a host."""

    def __init__(self, secrets: Secrets, layout: Layout) -> None:
        self._secrets = secrets
        self._layout = layout

    def of(self, tenant: TenantId, workload: Workload) -> dict[str, str]:
        """The tenant's values by name; a secret file wins over the workload file."""
        values = workload.values_for(tenant)
        boxed = dict(self._secrets.read(tenant, list(workload.allowlist)))
        for name in _generated(workload):
            if name not in values:
                boxed[name], _ = self._secrets.generate(tenant, name)
        return values | {name: secret.reveal() for name, secret in boxed.items()}

    def secrets_of(self, tenant: TenantId, workload: Workload) -> list[str]:
        """The tenant's values that must not be shown: from a secret file, generated, or secret by the contract."""
        return list(self._named(tenant, workload).values())

    def handed_out(self, tenant: TenantId, workload: Workload, slot: str | None) -> list[tuple[str, str]]:
        """Names and values of the tenant's secrets, those that its running program was given included."""
        named = self._named(tenant, workload)
        given = (slot and self._given(slot)) or {}
        return [*named.items(), *((name, given[name]) for name in named if given.get(name, named[name]) != named[name])]

    def all_of(self, tenant: TenantId) -> list[tuple[str, str]]:
        """Names and values of the secret files of the tenant, and of all tenants. Raises `InvalidSpec`."""
        return [(name, secret.reveal()) for name, secret in self._secrets.all(tenant).items()]

    def not_shared(self, tenant: TenantId, other: TenantId) -> list[tuple[str, str]]:
        """Names and values of the tenant's secrets that another tenant does not have. Raises `InvalidSpec`."""
        theirs = {secret.reveal() for secret in self._secrets.all(other).values()}
        return [(name, value) for name, value in self.all_of(tenant) if value not in theirs]

    def _named(self, tenant: TenantId, workload: Workload) -> dict[str, str]:
        told = workload.values_for(tenant)
        return {
            name: value
            for name, value in self.of(tenant, workload).items()
            if workload.allowlist[name].secret or value != told.get(name)
        }

    def bearer(self, tenant: TenantId, workload: Workload, slot: str | None) -> str:
        """The token by which the tenant's program knows its own clients; empty if the image has none.

        Args:
            slot: Where it runs: what it was given there counts.
        """
        name = workload.ready_bearer
        if name is None:
            return ""
        given = (slot and self._given(slot)) or {}
        return given.get(name) or self.of(tenant, workload).get(name, "")

    def token_file(self, tenant: TenantId, workload: Workload) -> Path | None:
        """The 0600 file that holds the tenant's first generated secret; None when the workload file gives it."""
        names = [name for name in _generated(workload) if name not in workload.values]
        return self._secrets.generate(tenant, names[0])[1] if names else None

    def write(self, slot: str, workload: Workload, values: Mapping[str, str]) -> None:
        """Write values to the file that the slot's container reads, if its image reads one. Raises `OSError`."""
        if workload.values_target:
            write_atomic(self._layout.slot(slot).values / _FILE, json.dumps(_document(values)).encode())

    def are_told(self, slot: str, workload: Workload, values: Mapping[str, str]) -> bool:
        """Whether these are the values that the slot's container was given."""
        if not workload.values_target:
            return True
        return self._given(slot) == dict(values)

    def _given(self, slot: str) -> dict[str, str] | None:
        """The values in a slot's file; None if it cannot be read."""
        try:
            told = json.loads((self._layout.slot(slot).values / _FILE).read_bytes())
            return dict(told["values"]) if told["v"] == 1 else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _document(values: Mapping[str, str]) -> dict[str, object]:
    return {"v": 1, "values": dict(values)}


def _generated(workload: Workload) -> list[str]:
    return [name for name, allowed in workload.allowlist.items() if allowed.need == "generated"]
