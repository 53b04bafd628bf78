"""Names: the only module that turns a tenant or slot into a path, key, label or container name.

A tenant id is 1–40 characters `a-z 0-9 -`, beginning and ending with a letter or digit: refused, never rewritten, so
distinct ids have distinct, non-nested paths, prefixes and names (threats T7 and T8).
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NewType

from claw_runtime.errors import InvalidTenantId

TenantId = NewType("TenantId", str)

_TENANT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
TENANTS = "tenants/"
"""The prefix of all tenants' keys."""
STORE_KEY = "claw-store.json"
"""The key of the object that holds a store's id."""
LABEL_OWNER = "io.claw.owner"
LABEL_SLOT = "io.claw.slot"
LABEL_POOL = "io.claw.pool"
LABEL_CONTRACT = "io.claw.contract"
LABEL_PROBE = "io.claw.probe"
"""On containers of no tenant, which a `doctor` makes and removes; its process id."""


def tenant_id(text: str) -> TenantId:
    """Check a tenant id.

    Raises:
        InvalidTenantId: It is empty, longer than 40 characters, or holds anything but `a-z 0-9 -`.
    """
    if not _TENANT.fullmatch(text):
        raise InvalidTenantId(
            f"not a tenant id: {text[:60]!r}",
            why="a tenant id is 1-40 lower-case letters, digits or hyphens, and begins and ends with a letter or digit",
            hint="choose an id such as 'alice' or 'team-7'; ids are never rewritten for you",
        )
    return TenantId(text)


@dataclass(frozen=True, slots=True)
class Keys:
    """Object keys of one tenant; every one begins with `tenants/<id>/`."""

    tenant: TenantId

    @property
    def prefix(self) -> str:
        return f"{TENANTS}{self.tenant}/"

    @property
    def head(self) -> str:
        return f"{self.prefix}HEAD"

    @property
    def manifests(self) -> str:
        """The prefix of all manifests' keys."""
        return f"{self.prefix}gen/"

    def manifest(self, generation: int, sha256: str) -> str:
        return f"{self.manifests}{generation:012d}-{sha256[:16]}.zst"

    def end_of(self, generation: int) -> str:
        """What comes, in byte order, after the keys of this generation's manifests and before those of the next one."""
        return f"{self.manifests}{generation:012d}~"

    @property
    def packs(self) -> str:
        """The prefix of all packs' keys."""
        return f"{self.prefix}packs/"

    def pack(self, sha256: str) -> str:
        return f"{self.packs}{sha256}"

    @property
    def blobs(self) -> str:
        """The prefix of all blobs' keys."""
        return f"{self.prefix}blobs/"

    def blob(self, name: str) -> str:
        return f"{self.blobs}{name}"

    @property
    def pins(self) -> str:
        """The prefix of all pins' keys."""
        return f"{self.prefix}pins/"

    def pin(self, generation: int) -> str:
        return f"{self.pins}{generation:012d}"

    @property
    def key(self) -> str:
        """The key of the tenant's wrapped encryption key, if its state is encrypted."""
        return f"{self.prefix}KEY"

    @property
    def files(self) -> str:
        """The prefix of the plain view's keys: files of the newest generation, for other tools to read."""
        return f"{self.prefix}files/"


def owner_of(key: str) -> TenantId | None:
    """The tenant that owns an object; None if no tenant does."""
    name, slash, _ = key.removeprefix(TENANTS).partition("/")
    return TenantId(name) if slash and key.startswith(TENANTS) and _TENANT.fullmatch(name) else None


def beat_key(runtime: str) -> str:
    """The key of a runtime's heartbeat, which covers all tenants that it holds."""
    return f"runtimes/{runtime}"


@dataclass(frozen=True, slots=True)
class SlotDirs:
    """Host directories of one slot, each bind-mounted into its container."""

    state: Path
    logs: Path
    values: Path


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths on this host.

    Attributes:
        home: Everything that must survive a reboot (ledger, kept trees, logs, secrets, slots).
        run: Everything that must not (API socket, values files); a tmpfs on an ordinary host.
    """

    home: Path
    run: Path

    @property
    def ledger(self) -> Path:
        return self.home / "ledger.sqlite"

    @property
    def reserve(self) -> Path:
        return self.home / "reserve"

    @property
    def lock(self) -> Path:
        return self.home / "daemon.lock"

    @property
    def run_lock(self) -> Path:
        return self.run / "daemon.lock"

    @property
    def runtime_id(self) -> Path:
        return self.home / "runtime-id"

    @property
    def api_socket(self) -> Path:
        return self.run / "api.sock"

    @property
    def router_socket(self) -> Path:
        """Where the router listens for the daemon."""
        return self.run / "router.sock"

    @property
    def router_lock(self) -> Path:
        """Held by the router; it names that process."""
        return self.run / "router.lock"

    @property
    def router_log(self) -> Path:
        return self.run / "router.log"

    @property
    def ingress_key(self) -> Path:
        """The key that signs browsers' cookies."""
        return self.home / "ingress.key"

    @property
    def engine_socket(self) -> Path:
        return self.run / "podman.sock"

    @property
    def workloads(self) -> Path:
        return self.home / "workloads"

    @property
    def objects(self) -> Path:
        return self.home / "s3"

    @property
    def scratch(self) -> Path:
        """Private copies of tenants' databases while they are committed; nothing in it outlives a daemon."""
        return self.home / "scratch"

    @property
    def slots(self) -> Path:
        return self.home / "slots"

    @property
    def tenants(self) -> Path:
        """Directory with one directory for each tenant that ever had files here."""
        return self.home / "tenants"

    def slot_root(self, slot: str) -> Path:
        return self.slots / slot

    def slot(self, slot: str) -> SlotDirs:
        return SlotDirs(self.slot_root(slot) / "state", self.slot_root(slot) / "logs", self.run / "slots" / slot)

    def kept_tree(self, tenant: TenantId) -> Path:
        """A released tree whose upload has not succeeded yet: the only copy, never removed before a commit."""
        return self.tenants / tenant / "kept"

    def parked_tree(self, tenant: TenantId) -> Path:
        """A released tree that is in the store: kept for a while so that the next claim need not restore it."""
        return self.tenants / tenant / "parked"

    def donor(self, tenant: TenantId) -> Path:
        """A parked tree that is no longer HEAD's, while a restore reuses its unchanged files."""
        return self.tenants / tenant / "donor"

    def staging(self, tenant: TenantId) -> Path:
        return self.tenants / tenant / "staging"

    def logs(self, tenant: TenantId) -> Path:
        return self.tenants / tenant / "logs"

    def secrets(self, tenant: TenantId) -> Path:
        return self.tenants / tenant / "secrets"


def container_name(pool: str, slot: str) -> str:
    """Name of a slot's container; the slot id is unique on the host."""
    return f"claw-{pool}-{slot}"
