"""A whole runtime in memory: real services and ledger over a fake engine and a memory store, in a temporary home.

The workload is emulated where tests need it: `world.write` is what its program does in /state.
"""

import itertools
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

from claw_runtime.concurrency import Workers
from claw_runtime.daemon.assembly import HostObserver, tenant_services
from claw_runtime.db.events import SqliteEvents
from claw_runtime.db.ledger import SqliteLedger
from claw_runtime.db.memory import SqliteMemory
from claw_runtime.db.upgrades import SqliteUpgrades
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.pools.pools import Pools
from claw_runtime.pools.templates import SlotTemplates
from claw_runtime.ports import Fence, NoFence, ObjectStore
from claw_runtime.secrets.files import SecretFiles
from claw_runtime.spec import loader
from claw_runtime.spec.loader import Document
from claw_runtime.state.keyring import Keyring
from claw_runtime.state.plain_view import PlainViews
from claw_runtime.state.repository import Repository
from claw_runtime.state.snapshots.precautions import Precautions
from claw_runtime.state.snapshots.recover import HeadRecovery
from claw_runtime.state.snapshots.snapshots import Snapshots
from claw_runtime.telemetry.events import EventLog
from claw_runtime.tenancy import Layout, TenantId
from claw_runtime.tenants.drives.values import Values
from claw_runtime.tenants.host import Host, logins_of, unexcluded_of
from claw_runtime.upgrades.upgrades import notes
from claw_runtime.workloads.watcher import WorkloadFiles
from fakes.clock import FakeClock
from fakes.engine import FakeEngine

IMAGE = "localhost/small:dev"
WORKLOAD = f"""
id: small
image: {IMAGE}
ports: [{{container: 8080}}]
healthcheck: {{path: /ready, ready_timeout: 5s, ignore_failing: [optional]}}
volumes: {{state: {{target: /state}}, logs: {{target: /logs}}}}
pool: {{min_size: 2, max_size: 3, affinity_timeout: 0}}
"""
_POOL = "pool: {min_size: 2, max_size: 3, affinity_timeout: 0}"
FROZEN = WORKLOAD.replace(_POOL, "pool: {max_size: 3, affinity_timeout: 60s, warmth: {created: 1, frozen: 2, tree: 2}}")
"""Released tenants stay frozen for a minute."""

PARKED = WORKLOAD.replace(_POOL, "pool: {max_size: 3, affinity_timeout: 60s, warmth: {created: 1, tree: 2}}")
"""The trees of released tenants stay parked for a minute."""


@cache
def empty_ledger() -> bytes:
    """The file of a new ledger: hundreds of worlds begin with it, and its migrations take milliseconds each time."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "ledger"
        SqliteLedger(path).close()
        return path.read_bytes()


@cache
def document(text: str) -> Document:
    """What a workload file with this text says: worlds are restarted thousands of times with the same few."""
    return loader.parse(text, Path("small.yaml"))


class ScriptedProber:
    """Answers 200, unless `answers` holds others, which are given first; ports are free if `free` says so, and refuse
    connections if they are in `lost`."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes] | None] = []
        self.free: Callable[[int], bool] = lambda _port: True
        self.lost: set[int] = set()
        self.always: tuple[int, bytes] | None = (200, b"{}")

    def get(self, port: int, path: str, timeout: float, bearer: str | None = None) -> tuple[int, bytes] | None:
        return self.answers.pop(0) if self.answers else self.always

    def refusing(self, ports: Collection[int]) -> frozenset[int]:
        return frozenset(self.lost & set(ports))

    def is_free(self, port: int) -> bool:
        return self.free(port)


class World:
    """One host. `restart` is what a SIGKILL and a new daemon are: all memory is lost, disk and containers stay.

    Attributes:
        text: The workload file that the next `restart` finds; tests may replace it.
        boot: The machine's present boot; another text is a reboot, after which `engine.lose` takes the containers.
        fence: What holds the requests of tenants' clients.
        threads: Of the workers that the next `restart` makes; 0 does their work at once.
    """

    boot = "first"
    threads = 0
    fence: Fence = NoFence()

    def __init__(
        self,
        home: Path,
        *,
        store: ObjectStore | None = None,
        workload: str = WORKLOAD,
        owner: str = "host-a",
        operators: Sequence[bytes] = (),
    ) -> None:
        self.layout = Layout(home=home / "home", run=home / "run")
        self.store = store or MemoryStore()
        self.owner, self.operators = owner, operators
        self.poked = threading.Event()
        self.files: WorkloadFiles | None = None
        self.engine = FakeEngine()
        self.engine.add_image(IMAGE)
        self.prober = ScriptedProber()
        self.clock = FakeClock()
        self.text = workload
        self._names = itertools.count()
        self.restart()

    def restart(self) -> None:
        """A new daemon over what the last one left."""
        if hasattr(self, "ledger"):
            self.ledger.close()
        if not self.layout.ledger.exists():
            self.layout.ledger.parent.mkdir(parents=True, exist_ok=True)
            self.layout.ledger.write_bytes(empty_ledger())
        self.ledger = SqliteLedger(self.layout.ledger)
        self.events = EventLog(SqliteEvents(self.ledger.database), self.clock)
        self.keyring = Keyring(self.store, self.operators)
        self.repository = Repository(
            self.store,
            self.owner,
            self.clock,
            self.layout.home / "scratch",
            self.keyring,
            memory=SqliteMemory(self.ledger.database),
        )
        self.views = PlainViews(self.store, self.repository)
        self.pools = pools_of(self, document(self.text))
        self.host = Host(
            engine=self.engine,
            ledger=self.ledger,
            pools=self.pools,
            layout=self.layout,
            clock=self.clock,
            observer=HostObserver(self.events, self.views, self.poked),
            workers=Workers("end", self.threads),
            restarts=Workers("restart", self.threads),
            fence=self.fence,
            boot=lambda: self.boot,
        )
        values = Values(SecretFiles(self.layout), self.layout)
        services = tenant_services(self.host, self.repository, values, self.prober)
        self.tenants, self.claimer, self.releaser = services.tenants, services.claimer, services.releaser
        self.recovery, self.liveness, self.standby = services.recovery, services.liveness, services.standby
        self.locks, self.commits, self.restarts = services.locks, services.commits, services.restarts
        self.port_watch = services.port_watch
        self.head_recovery = HeadRecovery(
            self.repository, self.store, self.clock, self.tenants.exclusive, self.events.record
        )
        self.snapshots = Snapshots(
            repository=self.repository,
            store=self.store,
            clock=self.clock,
            still=self.tenants.still,
            record=self.events.record,
            precautions=Precautions(
                logins=partial(logins_of, self.host),
                secrets=values.not_shared,
                unexcluded=partial(unexcluded_of, self.host),
            ),
        )

    def recover(self) -> None:
        """What `up` does first."""
        self.restarts.note_boot()
        self.recovery.recover()
        self.pools.recover()

    def keep(self) -> None:
        """One pass of the daemon's loop."""
        if self.files:
            self.files.look()
        self.pools.keep()

    def close(self) -> None:
        self.ledger.close()

    # --- what tests do and look at ---

    def state(self, tenant: str) -> Path:
        """The tenant's live /state."""
        row = self.ledger.tenant(TenantId(tenant))
        assert row is not None
        assert row.slot is not None
        return self.layout.slot(row.slot).state

    def write(self, tenant: str, files: Mapping[str, str]) -> None:
        """What the tenant's program writes into /state."""
        for name, text in files.items():
            path = self.state(tenant) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def saved(self, tenant: str) -> dict[str, str]:
        """Files of the tenant's newest generation in the store."""
        manifest = self.repository.generations.manifest(TenantId(tenant))
        names = [entry.path for entry in manifest.entries if entry.type == "f"]
        return {name: b"".join(self.repository.generations.read(TenantId(tenant), name)).decode() for name in names}

    def kept(self, tenant: str) -> dict[str, str]:
        """Files of the tenant's kept tree; empty when there is none."""
        root = self.layout.kept_tree(TenantId(tenant))
        return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}

    def row_state(self, tenant: str) -> str:
        row = self.ledger.tenant(TenantId(tenant))
        return row.state if row else "unknown"

    def leftovers(self) -> list[str]:
        """Slots, directories and containers that belong to nobody."""
        rows = {slot.id for slot in self.ledger.slots()}
        directories = {path.name for path in (self.layout.home / "slots").glob("*")}
        containers = {found.labels["io.claw.slot"] for found in self.engine.list(self.pools.owner_labels)}
        staging = [str(path) for path in self.layout.home.glob("tenants/*/staging")]
        return sorted((directories ^ rows) | (containers ^ rows)) + staging


def pools_of(world: World, *documents: Document, drop_limits: bool = False) -> Pools:
    """The pools of a world's engine and ledger, for these workload files."""
    templates = SlotTemplates(
        engine=world.engine,
        ledger=world.ledger,
        layout=world.layout,
        owner=world.owner,
        documents={document.workload.id: document for document in documents},
        drop_limits=drop_limits,
    )
    return Pools(
        engine=world.engine,
        ledger=world.ledger,
        layout=world.layout,
        clock=world.clock,
        templates=templates,
        notes=partial(notes, SqliteUpgrades(world.ledger.database)),
    )
