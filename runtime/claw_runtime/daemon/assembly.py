"""The composition root: settings → adapters → services. The only module that makes adapters.

One runtime owns one data directory (a lock says so) and one user's containers that carry its id.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from claw_runtime.access.tokens import Tokens
from claw_runtime.clock import SystemClock
from claw_runtime.daemon import loops
from claw_runtime.daemon.home import load_workloads, locked, make_directories, runtime_id
from claw_runtime.daemon.stores import encryption_keys, probed_store
from claw_runtime.db.database import Database
from claw_runtime.db.events import SqliteEvents
from claw_runtime.db.idempotency import SqliteAnswers
from claw_runtime.db.ledger import SqliteLedger
from claw_runtime.db.tokens import SqliteTokens
from claw_runtime.db.upgrades import SqliteUpgrades
from claw_runtime.engine.podman import PodmanEngine
from claw_runtime.engine.ports import is_free
from claw_runtime.engine.probe import HttpProber
from claw_runtime.interchange.tar_in import Interchange
from claw_runtime.operations.maintenance import Maintenance
from claw_runtime.pools.pools import Pools
from claw_runtime.ports import AnswerStore, Clock, Engine, Ledger, ObjectStore
from claw_runtime.safefs.tree import remove_tree
from claw_runtime.secrets.files import SecretFiles
from claw_runtime.settings import Settings
from claw_runtime.spec.sink import common_sink
from claw_runtime.state.history.pins import Pins
from claw_runtime.state.keyring import Keyring
from claw_runtime.state.lease.heartbeats import Heartbeats
from claw_runtime.state.plain_view import PlainViews
from claw_runtime.state.repository import Repository
from claw_runtime.state.snapshots.snapshots import Snapshots
from claw_runtime.state.verify import Verifier
from claw_runtime.telemetry.events import EventLog
from claw_runtime.tenants.drives.values import Values
from claw_runtime.tenants.purge import Purge
from claw_runtime.tenants.tenants import Tenants
from claw_runtime.tenants.trees import Trees
from claw_runtime.upgrades.upgrades import Upgrades
from claw_runtime.workloads.registry import Workloads
from claw_runtime.workloads.watcher import WorkloadFiles

if TYPE_CHECKING:
    pass

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Everything that a face needs, composed."""

    settings: Settings
    engine: Engine
    store: ObjectStore
    ledger: Ledger
    pools: Pools
    claims: Tenants
    syncing: Repository
    snapshots: Snapshots
    views: PlainViews
    vault: Keyring
    activity: EventLog
    workloads: Workloads
    upgrades: Upgrades
    routine: Maintenance
    verifying: Verifier
    cleaning: Purge
    porting: Interchange
    tokens: Tokens
    answers: AnswerStore
    values: Values
    clock: Clock
    stopping: threading.Event
    poked: threading.Event

    def recover(self) -> None:
        """Finish or undo what the last daemon left half done, then make every image ready to start."""
        self.claims.recovery.recover()
        self.upgrades.recover()
        self.pools.recover()
        self.pools.map_images()
        pools = {row.id: row.pool for row in self.ledger.tenants() if row.pool}
        self.views.catch_up(pools, lambda pool: self.pools.last_workload(pool, None, ""))

    def keep(self) -> None:
        """Fill pools, tend tenants and retry kept trees until `stopping`; a claim or release pokes it."""
        loops.keep(self)


@contextmanager
def opened(settings: Settings, workloads: Sequence[Path] = ()) -> Iterator[Runtime]:
    """The runtime of this data directory, until the block ends; containers go on running without it.

    Args:
        workloads: Workload files; none means all `*.yaml` of the workloads directory.

    Raises:
        DaemonRunning: Another daemon has the directory.
        EngineUnavailable, StorageUnusable: Podman cannot be used.
        StoreUnavailable, StoreDenied, BucketMissing, StoreDishonest: The object store cannot be used.
        InvalidSpec: A workload file or setting is not valid, or the operator's key cannot be used.
    """
    layout = settings.layout
    make_directories(layout)
    documents = load_workloads(workloads or sorted(settings.workloads.glob("*.yaml")))
    for document in documents.values():
        for hint in document.hints:
            log.warning("workload file", kind=hint.kind, hint=document.told(hint))
    operators = encryption_keys(settings)
    with locked(layout), probed_store(settings, common_sink(documents)) as (store, capabilities):
        log.info("object store", store=store.url, lacks=list(capabilities.missing))
        remove_tree(layout.scratch)
        engine = PodmanEngine(layout.engine_socket, cgroup_parent=settings.cgroup_parent)
        database = Database(layout.ledger)
        ledger = SqliteLedger(database)
        poked, stopping, clock = threading.Event(), threading.Event(), SystemClock()
        owner = runtime_id(layout)
        activity, secret_files = EventLog(SqliteEvents(database), clock), SecretFiles(layout)
        beats = Heartbeats(store, owner, clock, settings.lease_ttl)
        beats.beat()  # before the first lease, or its owner would be taken for dead
        vault = Keyring(store, operators)
        syncing = Repository(store, owner, clock, layout.scratch, vault, beats=beats)
        views = PlainViews(store, syncing, stopping=stopping)
        pools = Pools(
            engine=engine,
            ledger=ledger,
            layout=layout,
            clock=clock,
            owner=owner,
            documents=documents,
            drop_limits=settings.limits == "drop",
            poke=poked.set,
        )
        pools.look = WorkloadFiles(pools, settings.workloads, workloads).look
        claims = Tenants(
            engine=engine,
            ledger=ledger,
            pools=pools,
            syncing=syncing,
            secrets=secret_files,
            prober=HttpProber(),
            layout=layout,
            clock=clock,
            changed=poked.set,
            record=activity.record,
            committed=views.reflect,
        )
        upgrades = Upgrades(
            engine=engine,
            ledger=ledger,
            pools=pools,
            claims=claims,
            store=SqliteUpgrades(database),
            clock=clock,
            layout=layout,
            is_free=is_free,
            record=activity.record,
        )
        pools.beside = upgrades.notes
        try:
            engine.info()
            yield Runtime(
                settings=settings,
                engine=engine,
                store=store,
                ledger=ledger,
                pools=pools,
                claims=claims,
                syncing=syncing,
                snapshots=Snapshots(
                    syncing=syncing, store=store, clock=clock, still=claims.still, record=activity.record
                ),
                views=views,
                vault=vault,
                activity=activity,
                workloads=Workloads(pools, ledger, None if workloads else settings.workloads, activity.record),
                upgrades=upgrades,
                routine=Maintenance(claims, ledger, clock, pools.interval),
                verifying=Verifier(store, syncing, Pins(store, clock)),
                cleaning=Purge(store, syncing, Trees(layout), claims.still, activity.record),
                porting=Interchange(syncing, layout, claims.still, activity.record),
                tokens=Tokens(SqliteTokens(database), clock),
                answers=SqliteAnswers(database),
                values=Values(secret_files, layout),
                clock=clock,
                stopping=stopping,
                poked=poked,
            )
        finally:
            stopping.set()
            poked.set()
            engine.close()
            ledger.close()
