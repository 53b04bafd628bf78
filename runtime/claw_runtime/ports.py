"""The seams: what the services need of the outside world, as protocols.

An adapter (`engine/`, `objects/`, `db/`) implements one of these; `tests/contracts/` holds one conformance suite for
each, run on the fake and on the real thing. Services never see podman, boto3 or sqlite3.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from claw_runtime.tenancy import TenantId

ContainerState = Literal["created", "initialized", "running", "paused", "exited", "other"]
Network = Literal["private", "none"]
Tier = Literal["slot", "parked", "waiting", "prewarmed"]
TIERS: tuple[Tier, ...] = ("slot", "parked", "waiting", "prewarmed")
"""How warm a slot waits, coldest first: initialised; or with a process at its door (docs/ARCHITECTURE.md)."""
SlotState = Literal["filling", "ready", "claimed"]
TenantState = Literal["cold", "claiming", "active", "releasing", "kept", "frozen", "parked"]


# --- engine --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """One host directory inside the container."""

    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """What to create. Hardening is not an option: every container is cap-drop all, no-new-privileges, keep-id.

    Attributes:
        name: Container name, unique on the host.
        image: Reference of an image that is in the engine's store; nothing is ever pulled.
        command: Arguments for the image's entrypoint; empty means the image's own.
        environment: Plain, non-secret variables (they are visible in `podman inspect`).
        tmpfs: Absolute paths that become tmpfs with mode 1777.
        port: Container port published on a free port of 127.0.0.1, or None.
        network: `private` is a network namespace of its own with outbound access; `none` has only loopback.
        memory, cpus, pids: Limits (bytes, cores, processes); None leaves it to the engine.
        stop_timeout: Seconds between SIGTERM and SIGKILL.
        runtime: Name of the OCI runtime that isolates it (`crun`, `runc`, `runsc`, `krun`…); None is the engine's own.
    """

    name: str
    image: str
    command: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    binds: Sequence[Bind] = ()
    tmpfs: Sequence[str] = ()
    port: int | None = None
    network: Network = "private"
    read_only: bool = True
    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None
    stop_timeout: int = 10
    runtime: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container as the engine sees it now."""

    id: str
    name: str
    state: ContainerState
    image_id: str
    labels: Mapping[str, str]
    pid: int = 0
    exit_code: int | None = None
    host_port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image in the engine's store. `digest` is `sha256:…` of its manifest, `size` bytes on disk."""

    id: str
    digest: str
    size: int
    labels: Mapping[str, str]
    names: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What the engine can do here."""

    version: str
    rootless: bool
    storage_driver: str
    cgroup_version: str
    cgroup_controllers: Sequence[str]
    runtime: str

    @property
    def enforceable_limits(self) -> frozenset[str]:
        """Those of `memory`, `cpus` and `pids` that the kernel enforces for this user's containers."""
        controllers = {"memory": "memory", "cpus": "cpu", "pids": "pids"}
        return frozenset(limit for limit, name in controllers.items() if name in self.cgroup_controllers)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult:
    """What a command inside a container answered: of each stream the last 1 MiB.

    `timed_out` says that it was killed because its time was over; `exit_code` is 137 then.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    timed_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the processes of a container use now.

    Attributes:
        memory: Bytes. Of kind `cgroup` it is what the kernel charges to the container, page cache included; of kind
            `rss`, where there is no memory controller, the sum of its processes' resident sets, in which a page that
            two of them share counts twice.
        cpu: Seconds of processor time since it started; of kind `rss` without its processes that have ended.
    """

    container: Container
    memory: int
    kind: Literal["cgroup", "rss"]
    cpu: float


class Lines(Protocol):
    """The lines of a container's output, as they come; an iterator that may be closed from any thread."""

    def __iter__(self) -> Iterator[bytes]: ...

    def __next__(self) -> bytes:
        """The next whole line without its newline. Raises `EngineUnavailable` when the engine went away meanwhile."""

    def close(self) -> None:
        """Free the connection; a thread that waits for a line gets the end. May be called twice."""


class Engine(Protocol):
    """Containers and images.

    Every method raises `EngineUnavailable` when the engine does not answer, `EngineFailed` when it refuses.
    """

    def info(self, *, fresh: bool = True) -> EngineInfo:
        """Ask the engine (0.2–0.7 s); not `fresh` is its last answer where there is one, at no cost."""

    def image(self, reference: str) -> Image:
        """Raises `ImageMissing`."""

    def map_image(self, reference: str) -> None:
        """Do once, ahead of time, the slow copy that the first keep-id container of an image costs (7–11 s for
        490 MB on native rootless overlay). Raises `ImageMissing`."""

    def create(self, spec: ContainerSpec) -> str:
        """Create a container, started by nobody yet; its id. Raises `ImageMissing`; `EngineFailed` for a limit that is
        not among `EngineInfo.enforceable_limits`."""

    def initialize(self, container: str) -> None:
        """Prepare namespaces, mounts and network, run no code of the image; state becomes `initialized`.

        The port was chosen at `create` and is bound here. Raises `PortTaken` (remove the container and create it
        again), `NotClaimed` when it is gone."""

    def start(self, container: str) -> None:
        """Run a created or initialised container; a running one is fine. Raises `NotClaimed` when it is gone,
        `PortTaken` when it was not initialised before."""

    def stop(self, container: str, timeout: int) -> int | None:
        """SIGTERM, wait `timeout` seconds, SIGKILL; the exit code. A container that is gone or ended is fine.

        A paused one gets the signal before it is thawed, so that its program does nothing else first."""

    def pause(self, container: str) -> None:
        """Freeze all processes of a running container; a paused one is fine. Memory and ports stay theirs.

        Raises `NotClaimed` when it is gone, `EngineFailed` when it does not run or this host cannot freeze."""

    def unpause(self, container: str) -> None:
        """Thaw a paused container; a running one is fine. Raises `NotClaimed` when it is gone, `EngineFailed` when it
        does not run."""

    def remove(self, container: str) -> None:
        """Kill and delete at once, from any state. A container that is gone is fine."""

    def inspect(self, container: str) -> Container | None:
        """None when there is none of that id or name."""

    def list(self, labels: Mapping[str, str]) -> Sequence[Container]:
        """All containers, in any state, that carry all these labels."""

    def execute(
        self,
        container: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> ExecResult:
        """Run a command in a running container and wait for it: `timeout` seconds, then it and what it started are
        killed. None waits until it ends. Raises `NotClaimed` when the container is gone."""

    def logs(self, container: str, *, tail: int | None = None) -> bytes:
        """Standard output and error of the container so far, the last `tail` lines of it."""

    def lines(
        self, container: str, *, tail: int | None = None, since: float | None = None, follow: bool = False
    ) -> Lines:
        """Lines of standard output and error, in the order in which they came.

        Args:
            tail: Begin with the last so many; None begins with the first.
            since: Leave out what was written before, in seconds since the epoch.
            follow: Go on with what comes, until the container ends or the lines are closed.

        Raises `NotClaimed` when the container is gone."""

    def stats(self, labels: Mapping[str, str]) -> Sequence[Usage]:
        """What the containers that carry all these labels and have a process use; some milliseconds for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What the host gives its user. `podman` is the program's path or None; `room` bytes free for the data."""

    user: str
    uid: int
    podman: str | None
    subordinate_uids: int
    subordinate_gids: int
    tun: bool
    systemd: bool
    room: int
    writable: bool


# --- images ----------------------------------------------------------------------------------------------------------


class ImageTool(Protocol):
    """Making images and looking into them. The tool of people who build; no claim ever waits for it.

    `report` gets one line of progress at a time, without its newline. Every method raises `EngineUnavailable` when the
    tool does not answer; `make_base`, `build` and `load` raise `BuildFailed` with the tool's last lines as `why`.
    """

    def has(self, reference: str) -> bool:
        """Whether an image of that name is in the store."""

    def make_base(self, reference: str, *, report: Callable[[str], None]) -> None:
        """Make an image of a minimal Debian bookworm from this host's own mirrors, without a trace of them in it."""

    def build(
        self, context: Path, reference: str, *, arguments: Mapping[str, str], report: Callable[[str], None]
    ) -> str:
        """Build `context`/Containerfile, reusing layers that are there already; the image's id.

        Steps see the host's network, and at /mnt this host's package-client settings (`environment` for a shell to
        read, sources, certificates); no layer keeps any of it. Nothing is ever built with a timestamp of its own.
        """

    def load(self, archive: Path, *, report: Callable[[str], None]) -> Sequence[str]:
        """Load a docker or OCI archive, plain or compressed; the names that it gave."""

    def config(self, reference: str) -> Mapping[str, Any]:
        """The image's OCI configuration: `User`, `Env`, `Entrypoint`, `Cmd`, `ExposedPorts`, `Labels`, `Healthcheck`…,
        absent or empty where the image sets none. Raises `ImageMissing`."""

    def run(self, reference: str, argv: Sequence[str]) -> ExecResult:
        """Run `argv`, past the image's entrypoint, in a throw-away hardened container (keep-id, no capability, no
        network, read-only root) with nothing mounted, and wait. Raises `ImageMissing`, `EngineFailed`."""


# --- object store ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """One entry of a listing. `size` in bytes; `modified` in seconds since the epoch by the store's own clock, which
    is to be compared with nothing else."""

    key: str
    size: int
    etag: str
    modified: float


class ObjectStore(Protocol):
    """Keys and bytes, with honest conditional writes.

    A key is 1–900 bytes of `[A-Za-z0-9._/-]`, no segment empty, `.` or `..`. Every method raises `StoreUnavailable`,
    `StoreDenied` or `BucketMissing`; a write whose answer was lost raises `AmbiguousWrite` and may have happened.
    """

    url: str

    def get(self, key: str) -> tuple[bytes, str]:
        """Body and etag. Raises `ObjectMissing`."""

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`. Raises `ObjectMissing`."""

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """Write; the new etag. Raises `PreconditionFailed`."""

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        """A key that is gone is fine, unless `if_match` names its etag. Raises `PreconditionFailed`."""

    def send(self, key: str, source: IO[bytes], size: int) -> None:
        """Write a large object whose name says what is in it: `source` is read once, from front to back, in parts that
        are sent side by side; a few of them are in memory at a time. Whatever the key held before is replaced."""

    def fetch(self, key: str, size: int, sink: Callable[[int, memoryview], None]) -> None:
        """Read a large object of `size` bytes in parts, side by side: `sink(offset, bytes)` is called once for each,
        in any order, from several threads. Raises `ObjectMissing`; what `sink` raises ends it."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All keys that start with `prefix`, in byte order, over as many pages as it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a store was seen to do.

    Attributes:
        put_if_absent, compare_and_swap: It heeds `If-None-Match: *` and `If-Match` on PUT, which leases need.
        ranges: It gives exactly the part that was asked for, which restores need.
        conditional_delete: It heeds `If-Match` on DELETE.
        multipart: A large object goes up in parts.
        checksums: It refuses bytes that are not those of their checksum; None where nothing is sent over a wire.
        paging: A listing goes on after its first page; None where there are no pages.
        lies: What speaks against using it at all, in words that follow the store's name.
    """

    put_if_absent: bool
    compare_and_swap: bool
    ranges: bool
    conditional_delete: bool
    multipart: bool
    checksums: bool | None
    paging: bool | None
    lies: tuple[str, ...] = ()

    @property
    def unfit_for_leases(self) -> bool:
        return not (self.put_if_absent and self.compare_and_swap)

    @property
    def missing(self) -> tuple[str, ...]:
        """What it lacks of what it may lack, in words."""
        words = {
            "conditional delete": self.conditional_delete,
            "multipart upload": self.multipart,
            "checksums": self.checksums,
            "paging": self.paging,
        }
        return tuple(word for word, has in words.items() if has is False)


class ObjectMissing(Exception):
    """No object has that key."""


class PreconditionFailed(Exception):
    """The object is not as the conditional write expected; nothing was written."""


class AmbiguousWrite(Exception):
    """The connection broke after the request was sent: the write may or may not have happened."""


# --- ledger -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRow:
    """A slot; `made_at` in seconds since the epoch, `port` a port of 127.0.0.1. One that is `filling` is being made, or
    removed: it is nobody's, and after a crash it goes."""

    id: str
    pool: str
    state: SlotState
    recipe: str
    container: str | None
    port: int | None
    made_at: float
    tier: Tier = "slot"


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantRow:
    """A tenant.

    Attributes:
        step: What was announced last (services/steps.py).
        source: Where the tree in its slot came from.
        base: The generation that the local tree grew from.
        epoch: Our last lease's.
        since, seen, synced: Seconds since the epoch of the last change of state, activity and commit; 0 is never.
        image: Reference of an image that it is held to, instead of its pool's; empty when it is held to none.
        trial: 1 while its container is on trial: if that fails, what it wrote is dropped.
        proven: Id of the image with which it last became active, and which its state suits; empty when none is known.
        metadata: JSON that came with the claim, or empty; never obeyed.
        withheld: The rules by which the local tree was restored, when they left something out of it; else empty.
    """

    id: TenantId
    state: TenantState
    pool: str | None
    slot: str | None
    step: str
    source: str
    base: int
    epoch: int
    error: str
    since: float
    image: str = ""
    trial: int = 0
    seen: float = 0.0
    synced: float = 0.0
    metadata: str = ""
    proven: str = ""
    withheld: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRow:
    """What an operator set for a pool over its workload file; None is nothing. `drained`: no slots, no claims."""

    id: str
    min_size: int | None = None
    max_size: int | None = None
    warmth: Mapping[str, int] | None = None
    image: str | None = None
    drained: bool = False


class Ledger(Protocol):
    """What this host knows of its slots, tenants and pools.

    A change that has returned outlives this process. One that is `durable`, and all before it, outlive a power failure.
    """

    def slots(self, pool: str | None = None) -> Sequence[SlotRow]:
        """All slots, or those of one pool, oldest first."""

    def slot(self, slot: str) -> SlotRow | None: ...

    def add_slot(self, slot: str, pool: str, recipe: str, made_at: float, tier: Tier = "slot") -> None:
        """Announce a slot, before anything of it exists."""

    def slot_ready(self, slot: str, container: str, port: int | None, tenant: TenantId | None = None) -> None:
        """The slot's container waits, as its tier says: for any claim, or for the tenant that it is given at once."""

    def take_slot(
        self, pool: str, recipe: str, tenant: TenantId, tiers: Sequence[Tier] = TIERS[::-1]
    ) -> SlotRow | None:
        """Give the tenant at once the oldest ready slot of the first tier that has one; None when there is none."""

    def retire_slot(self, slot: str) -> bool:
        """ready → filling, so that no claim takes it while it is removed; False when it was not ready any more."""

    def drop_slot(self, slot: str) -> None:
        """Forget a slot, once nothing of it is left."""

    def tenants(self, *states: TenantState, pool: str | None = None) -> Sequence[TenantRow]:
        """Tenants that were ever claimed here, by id: all, or those in one of the states, or of one pool."""

    def tenant(self, tenant: TenantId) -> TenantRow | None: ...

    def begin_claim(self, tenant: TenantId, pool: str, now: float, *, trial: bool = False) -> None:
        """cold, kept, parked or unknown → claiming; why a tree was kept stays until the state changes again."""

    def note(self, tenant: TenantId, *, durable: bool = False, **columns: str | int | float) -> None:
        """Write columns of a tenant's row."""

    def become(
        self,
        tenant: TenantId,
        state: TenantState,
        now: float,
        *,
        step: str = "",
        error: str = "",
        durable: bool = False,
        trial: bool = False,
        proven: str | None = None,
    ) -> None:
        """Change a tenant's state, and what its row says of step and error. A trial ends unless `trial`; `proven` stays
        as it was unless it is given."""

    def pool(self, pool: str) -> PoolRow:
        """What an operator set for a pool."""

    def set_pool(self, pool: str, **columns: Any) -> None:
        """Set `min_size`, `max_size`, `warmth`, `image` or `drained` of a pool; None unsets."""

    def drop_pool(self, pool: str) -> None:
        """Forget what an operator set for a pool."""


# --- probe, secrets ---------------------------------------------------------------------------------------------------


class Prober(Protocol):
    """Asks a container's loopback port."""

    def get(self, port: int, path: str, timeout: float, bearer: str | None = None) -> tuple[int, bytes] | None:
        """HTTP status and the first 64 KiB of the body; None when nothing answers. `bearer` is sent as the token."""


class Revealed(Protocol):
    """A boxed secret whose `repr` and `str` are masked."""

    def reveal(self) -> str: ...


class Secrets(Protocol):
    """Values of a tenant that must not be seen: files on this host."""

    def read(self, tenant: TenantId, names: Sequence[str]) -> Mapping[str, Revealed]:
        """Those of the names that are set for the tenant, or for all tenants."""

    def generate(self, tenant: TenantId, name: str) -> tuple[Revealed, Path]:
        """The tenant's own random value of that name, made at the first call; and the 0600 file that holds it."""


# --- clock ------------------------------------------------------------------------------------------------------------


class Clock(Protocol):
    """Time, injected so that tests own it."""

    def now(self) -> float:
        """Seconds since the epoch; for records, never for decisions."""

    def monotonic(self) -> float:
        """Seconds that only grow; for every decision."""

    def sleep(self, seconds: float) -> None: ...


# --- beside the API ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """A token of the API: `sha256` of its text, its one tenant if its scope is `tenant`, times in seconds since the
    epoch (`expires_at` None is never, `used_at` None is not yet)."""

    id: str
    name: str
    sha256: str
    scope: Literal["admin", "tenant"]
    tenant: str | None
    made_at: float
    expires_at: float | None = None
    used_at: float | None = None


class TokenStore(Protocol):
    """Tokens that outlive the daemon."""

    def all(self) -> Sequence[TokenRow]: ...

    def add(self, row: TokenRow) -> bool:
        """False when the name is taken."""

    def used(self, token: str, at: float) -> None:
        """Note the time of the last use of the token with this id."""

    def remove(self, name: str) -> bool:
        """False when there is none of that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened; `at` in seconds since the epoch, `detail` plain JSON."""

    id: int
    at: float
    kind: str
    tenant: str | None
    pool: str | None
    detail: Mapping[str, Any]


class EventStore(Protocol):
    """The last events, a bounded number."""

    def add(self, at: float, kind: str, tenant: str | None, pool: str | None, detail: Mapping[str, Any]) -> None: ...

    def newest(
        self, limit: int, *, tenant: str | None = None, pool: str | None = None, since: float = 0.0, after: int = 0
    ) -> Sequence[Event]:
        """The newest that fit, oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRow:
    """What an Idempotency-Key stands for: digest of its request, and the answer unless that is under way."""

    request: str
    status: int | None
    body: bytes | None


class AnswerStore(Protocol):
    """Answers by the key of their request."""

    def begin(self, who: str, key: str, request: str, at: float, *, lifetime: float) -> AnswerRow | None:
        """Announce a request; the row that has the key already, if one has. Rows older than `lifetime` seconds go."""

    def finish(self, who: str, key: str, status: int, body: bytes) -> None: ...

    def forget(self, who: str, key: str) -> None: ...


# --- upgrades ---------------------------------------------------------------------------------------------------------

UpgradeState = Literal["running", "paused", "failed", "aborting", "aborted", "done"]
MoveState = Literal["waiting", "sealing", "trying", "soaking", "returning", "returned", "done", "left"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeRow:
    """The last upgrade of a pool.

    Attributes:
        reference, image: The new image as it was named, and its id, which counts: a name may move on meanwhile.
        canary: The first tenant; empty when nobody ran.
        batch: Tenants in a wave; 0 is 1, 2, 4 and so on.
        soak: Seconds that a tenant is watched before it counts.
        switched: The pool's slots are made from the new image, or are about to be.
        error, hint: Why it stopped, and what to do.
        begun, changed: Seconds since the epoch.
    """

    pool: str
    reference: str
    image: str
    state: UpgradeState = "running"
    canary: str = ""
    batch: int = 0
    soak: float = 0.0
    switched: bool = False
    error: str = ""
    hint: str = ""
    begun: float = 0.0
    changed: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveRow:
    """One tenant's way to the new image.

    Attributes:
        state: What was announced last. `waiting`; `sealing`, `trying`, `soaking`: its state is committed, the new image
            started, watched; `done`; `returning`, `returned`: it failed, and the image and state from before come or
            are back; `left`: it did not run any more when its turn came.
        image: Id of the image that it had.
        generation: Sealed before the new image began.
        ports: That it had on the way, and that must come free.
        down_at: When its program was asked to end, in seconds since the epoch.
        outage: Milliseconds from then until it was ready again.
    """

    pool: str
    tenant: TenantId
    wave: int
    state: MoveState = "waiting"
    image: str = ""
    generation: int = 0
    ports: Sequence[int] = ()
    down_at: float = 0.0
    outage: float = 0.0
    error: str = ""


class UpgradeStore(Protocol):
    """Upgrades, as far as they have come; every change outlives a power failure."""

    def upgrade(self, pool: str) -> UpgradeRow | None: ...

    def upgrades(self) -> Sequence[UpgradeRow]: ...

    def begin(self, row: UpgradeRow, waves: Sequence[Sequence[TenantId]]) -> None:
        """Keep a new upgrade with its waves, and forget the one before: all or nothing."""

    def note(self, pool: str, at: float, **columns: Any) -> None:
        """Write `state`, `switched`, `error`, `hint` of a pool's upgrade, and when."""

    def moves(self, pool: str) -> Sequence[MoveRow]:
        """In the order of waves."""

    def move(self, pool: str, tenant: TenantId) -> MoveRow:
        """One tenant's; it was planned before."""

    def plan(self, pool: str, wave: int, tenants: Sequence[TenantId]) -> None:
        """Let tenants wait for a wave, those that had one before too."""

    def note_move(self, pool: str, tenant: TenantId, **columns: Any) -> None:
        """Write columns of one tenant's move."""
