"""The composition root: settings → adapters → services. The only module that makes adapters.

One runtime owns one data directory (guarded by a lock) and the containers of its user that carry its id.
"""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from claw_runtime.access.tokens import Tokens
from claw_runtime.clock import SystemClock
from claw_runtime.concurrency import Workers
from claw_runtime.daemon import loops
from claw_runtime.daemon.home import load_workloads, locked, make_directories
from claw_runtime.daemon.ingress import router_side
from claw_runtime.daemon.routers import Router
from claw_runtime.daemon.stores import encryption_keys, probed_store
from claw_runtime.db.database import Database
from claw_runtime.db.events import SqliteEvents
from claw_runtime.db.idempotency import SqliteAnswers
from claw_runtime.db.ledger import SqliteLedger
from claw_runtime.db.memory import SqliteMemory
from claw_runtime.db.tokens import SqliteTokens
from claw_runtime.db.upgrades import SqliteUpgrades
from claw_runtime.engine import host as machine
from claw_runtime.engine.podman import PodmanEngine
from claw_runtime.engine.probe import HttpProber
from claw_runtime.errors import ClawError
from claw_runtime.ingress.ingress import Ingress
from claw_runtime.interchange.tar_in import Interchange
from claw_runtime.operations.maintenance import Maintenance
from claw_runtime.operations.services import Services
from claw_runtime.pools.pools import Pools
from claw_runtime.pools.templates import SlotTemplates
from claw_runtime.ports import PODMAN_UNIT, ROUTER_UNIT, AnswerStore, Clock, Engine, Ledger, ObjectStore, Prober
from claw_runtime.reserve import Reserve
from claw_runtime.safefs.removal import remove_tree
from claw_runtime.secrets.files import SecretFiles
from claw_runtime.settings import Settings
from claw_runtime.spec.plan import Workload
from claw_runtime.spec.sink import common_sink
from claw_runtime.state.keyring import Keyring
from claw_runtime.state.lease.heartbeats import Heartbeats
from claw_runtime.state.plain_view import PlainViews
from claw_runtime.state.repository import Repository
from claw_runtime.state.snapshots.precautions import Precautions
from claw_runtime.state.snapshots.recover import HeadRecovery
from claw_runtime.state.snapshots.snapshots import Snapshots
from claw_runtime.state.verify import Verifier
from claw_runtime.systemd.systemctl import Systemctl
from claw_runtime.telemetry.events import EventLog
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants.claim import Claimer
from claw_runtime.tenants.commits import CommitRecords
from claw_runtime.tenants.drives.values import Values
from claw_runtime.tenants.host import Host, limits_of, logins_of, unexcluded_of
from claw_runtime.tenants.liveness import Liveness
from claw_runtime.tenants.locks import Locks
from claw_runtime.tenants.port_watch import PortWatch
from claw_runtime.tenants.purge import Purge
from claw_runtime.tenants.recovery import Recovery
from claw_runtime.tenants.release import Releaser
from claw_runtime.tenants.restarts import Restarts
from claw_runtime.tenants.sleep.standby import Standby
from claw_runtime.tenants.tenants import Tenants
from claw_runtime.tenants.trees import Trees
from claw_runtime.tenants.trials import Trials
from claw_runtime.upgrades.upgrades import Upgrades, notes
from claw_runtime.workloads.registry import Workloads
from claw_runtime.workloads.watcher import WorkloadFiles

log = structlog.get_logger(__name__)

RECOVER_AGAIN = 5.0
"""Seconds between two attempts to recover what a dead daemon left."""

RESTARTS = max(2, os.cpu_count() or 1) + 1
"""Tenants that are claimed after a reboot at the same time: one for each processor, at least two, and one more whose
last claim was short."""

WORKERS = 4
"""Running tenants that are committed at the same time, and tenants that are ended at the same time."""


THAWS = 2
"""Frozen tenants that are claimed for clients at the same time; of all others, as many as after a reboot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Everything that the CLI, the API and the proxies need, composed."""

    settings: Settings
    engine: Engine
    store: ObjectStore
    ledger: Ledger
    pools: Pools
    tenants: Tenants
    repository: Repository
    snapshots: Snapshots
    head_recovery: HeadRecovery
    views: PlainViews
    keyring: Keyring
    events: EventLog
    workloads: Workloads
    files: WorkloadFiles
    recovery: Recovery
    restarts: Restarts
    liveness: Liveness
    port_watch: PortWatch
    commits: CommitRecords
    upgrades: Upgrades
    maintenance: Maintenance
    verifier: Verifier
    purge: Purge
    interchange: Interchange
    tokens: Tokens
    answers: AnswerStore
    values: Values
    clock: Clock
    stopping: threading.Event
    poked: threading.Event
    reserve: Reserve
    services: Services
    ingress: Ingress
    router: Router
    pools_recovered: threading.Event = field(default_factory=threading.Event)

    def recover(self, *, wait: bool = True) -> None:
        """Finish or undo what the last daemon left unfinished, then make every image ready to start.

        Args:
            wait: Wait until every tenant is recovered; otherwise the host's workers go on meanwhile.
        """
        self.upgrades.recover()
        self._recover(wait=wait)

    def _recover(self, *, wait: bool) -> None:
        self.restarts.note_boot()
        self.recovery.recover()
        if wait:
            self.recovery.workers.wait()
        self.pools.recover()
        self.pools_recovered.set()
        self.pools.map_images()
        pools = {row.id: row.pool for row in self.ledger.tenants() if row.pool}
        self.views.catch_up(pools, lambda pool: self.pools.last_workload(pool, None, "")[0])

    def recovered(self) -> Mapping[str, int | bool]:
        """How far the recovery since the start has come, and the claims after a reboot: the fields of
        `RecoveryAnswer`."""
        progress, boot = self.recovery.progress(), self.restarts.progress()
        return {
            "tenants": progress.tenants,
            "recovered": progress.recovered,
            "pools_ready": self.pools_recovered.is_set(),
            "to_restart": boot.tenants,
            "restarted": boot.done,
            "restarts_failing": boot.failing,
        }

    def start(self) -> threading.Thread:
        """Start the thread that recovers and then keeps pools and tenants, until `stopping`; the API may answer now.

        After a reboot, or with large trees, the recovery takes long.
        """
        self.upgrades.recover()
        thread = threading.Thread(target=loops.keep, args=(self, self._recover_in_the_end), name="work", daemon=True)
        thread.start()
        return thread

    def _recover_in_the_end(self) -> None:
        """What fails as a whole, because the engine does not answer for instance, is repeated until it succeeds."""
        while not self.stopping.is_set():
            try:
                self._recover(wait=False)
                break
            except ClawError as error:
                log.warning("the recovery failed; it is repeated", error=str(error), hint=error.hint)
            except Exception:
                log.exception("internal error in the recovery; it is repeated")
            self.stopping.wait(RECOVER_AGAIN)

    def keep(self) -> None:
        """Run the background work of pools and tenants until `stopping`; a claim or release wakes it."""
        loops.keep(self)


@dataclass(frozen=True, slots=True)
class HostObserver:
    """Passes what `tenants` did to the event log, the plain views, the reconciler and the router's table."""

    events: EventLog
    views: PlainViews
    poked: threading.Event
    routed: threading.Event = field(default_factory=threading.Event)

    def record(self, kind: str, **facts: Any) -> None:
        """Keep an event."""
        self.events.record(kind, **facts)

    def committed(self, tenant: TenantId, workload: Workload) -> None:
        """Bring the tenant's plain view up to date, if its workload has one."""
        self.views.reflect(tenant, workload)

    def changed(self) -> None:
        """Wake the reconciler, and what gives the router its table."""
        self.poked.set()
        self.routed.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantServices:
    """The parts of `tenants`, composed: `tenants` for other packages, the rest for loops, status and tests."""

    tenants: Tenants
    claimer: Claimer
    releaser: Releaser
    standby: Standby
    recovery: Recovery
    restarts: Restarts
    liveness: Liveness
    port_watch: PortWatch
    commits: CommitRecords
    locks: Locks


def tenant_services(host: Host, repository: Repository, values: Values, prober: Prober) -> TenantServices:
    """Compose the parts of `tenants` on this host."""
    locks, commits = Locks(), CommitRecords(host.observer, host.clock, host.pools.interval)
    releaser = Releaser(host, repository, values, commits)
    standby = Standby(host, releaser, locks)
    claimer = Claimer(host, repository, releaser=releaser, standby=standby, values=values, prober=prober)
    trials = Trials(host, repository, claimer)
    restarts = Restarts(host, trials, locks)
    return TenantServices(
        tenants=Tenants(
            host,
            releaser=releaser,
            standby=standby,
            claimer=claimer,
            trials=trials,
            values=values,
            locks=locks,
        ),
        claimer=claimer,
        releaser=releaser,
        standby=standby,
        recovery=Recovery(host, releaser=releaser, standby=standby, restarts=restarts, values=values, locks=locks),
        restarts=restarts,
        liveness=Liveness(host, values, prober),
        port_watch=PortWatch(host, releaser=releaser, restarts=restarts, values=values, prober=prober, locks=locks),
        commits=commits,
        locks=locks,
    )


NOTHING = ".claw-ready/"
"""A prefix below which there are no objects: listing it asks whether the store answers."""


def services_of(engine: Engine, store: ObjectStore, router: Router, clock: Clock) -> Services:
    """What the daemon depends on, and how it is asked."""
    looks = {"engine": engine.ping, "store": lambda: next(iter(store.list(NOTHING)), None), "router": router.look}
    return Services(clock, looks)


@contextmanager
def opened(settings: Settings, workloads: Sequence[Path] = (), *, accept_store: bool = False) -> Iterator[Runtime]:
    """The runtime of this data directory, until the block ends; containers keep running after it.

    Args:
        workloads: Workload files; if empty, all `*.yaml` files of the workloads directory.
        accept_store: Use this store even if the tenants' states are in another one.

    Raises:
        DaemonRunning: Another daemon has the data directory or the run directory.
        EngineUnavailable, StorageUnusable: Podman cannot be used.
        StoreUnavailable, StoreDenied, BucketMissing, StoreDishonest: The object store cannot be used.
        RestoreFailed: The object store is not the one that the tenants' states are in.
        InvalidSpec: A workload file or setting is not valid, or the operator's key cannot be used.
    """
    layout = settings.layout
    make_directories(layout)
    documents = load_workloads(workloads or sorted(settings.workloads.glob("*.yaml")))
    for document in documents.values():
        for hint in document.hints:
            log.warning("workload file", kind=hint.kind, hint=document.told(hint))
    operators = encryption_keys(settings)
    with locked(layout) as owner, probed_store(settings, common_sink(documents)) as (store, capabilities):
        log.info("object store", store=store.url, lacks=list(capabilities.missing))
        remove_tree(layout.scratch)
        by_units = settings.services == "units"
        restart = partial(Systemctl().restart, PODMAN_UNIT) if by_units else None
        router = Router(settings.ingress, layout, partial(Systemctl().restart, ROUTER_UNIT) if by_units else None)
        engine = PodmanEngine(layout.engine_socket, cgroup_parent=settings.cgroup_parent, restart=restart)
        reserve = Reserve(layout.reserve)
        database = Database(layout.ledger, reserve)
        ledger = SqliteLedger(database)
        poked, stopping, clock = threading.Event(), threading.Event(), SystemClock()
        events, secret_files = EventLog(SqliteEvents(database), clock), SecretFiles(layout)
        heartbeats = Heartbeats(store, owner, clock, settings.lease_ttl)
        keyring = Keyring(store, operators)
        repository = Repository(store, owner, clock, layout.scratch, keyring, heartbeats, SqliteMemory(database))
        views = PlainViews(store, repository, stopping=stopping)
        templates = SlotTemplates(
            engine=engine,
            ledger=ledger,
            layout=layout,
            owner=owner,
            documents=documents,
            drop_limits=settings.limits == "drop",
        )
        upgrade_store = SqliteUpgrades(database)
        pools = Pools(
            engine=engine,
            ledger=ledger,
            layout=layout,
            clock=clock,
            templates=templates,
            poke=poked.set,
            notes=partial(notes, upgrade_store),
        )
        values, tokens = Values(secret_files, layout), Tokens(SqliteTokens(database), clock, Workers("token", 1))
        side = router_side(settings, ledger=ledger, pools=pools, values=values, tokens=tokens, clock=clock)
        observer = HostObserver(events, views, poked, side.link.changed)
        host = Host(
            engine=engine,
            ledger=ledger,
            pools=pools,
            layout=layout,
            clock=clock,
            observer=observer,
            workers=Workers("end", WORKERS),
            restarts=Workers("restart", RESTARTS),
            fence=side.link,
            boot=machine.boot,
        )
        prober = HttpProber()
        services = tenant_services(host, repository, values, prober)
        tenants = services.tenants
        try:
            log.info("store recognised", id=repository.store_id.open(accept=accept_store))
            heartbeats.beat()  # before the first lease, or other runtimes would count its owner as gone
            engine.info()
            yield Runtime(
                settings=settings,
                engine=engine,
                store=store,
                ledger=ledger,
                pools=pools,
                tenants=tenants,
                repository=repository,
                snapshots=Snapshots(
                    repository=repository,
                    store=store,
                    clock=clock,
                    still=tenants.still,
                    record=events.record,
                    precautions=Precautions(
                        logins=partial(logins_of, host),
                        secrets=values.not_shared,
                        unexcluded=partial(unexcluded_of, host),
                    ),
                ),
                head_recovery=HeadRecovery(repository, store, clock, tenants.exclusive, events.record),
                views=views,
                keyring=keyring,
                events=events,
                workloads=Workloads(pools, ledger, None if workloads else settings.workloads, events.record),
                files=WorkloadFiles(pools, settings.workloads, workloads),
                recovery=services.recovery,
                restarts=services.restarts,
                liveness=services.liveness,
                port_watch=services.port_watch,
                commits=services.commits,
                upgrades=Upgrades(host, tenants=tenants, store=upgrade_store, prober=prober),
                maintenance=Maintenance(tenants, ledger, clock, pools.interval, Workers("commit", WORKERS)),
                verifier=Verifier(store, repository),
                purge=Purge(store, repository, Trees(layout), tenants.still, events.record),
                interchange=Interchange(
                    repository,
                    layout,
                    tenants.still,
                    events.record,
                    selection=partial(unexcluded_of, host),
                    limits=partial(limits_of, host),
                ),
                tokens=tokens,
                answers=SqliteAnswers(database),
                values=values,
                clock=clock,
                stopping=stopping,
                poked=poked,
                reserve=reserve,
                ingress=side.ingress(
                    tenants, events.record, thaws=Workers("thaw", THAWS), claims=Workers("wake", RESTARTS)
                ),
                services=services_of(engine, store, router, clock),
                router=router,
            )
        finally:
            stopping.set()
            poked.set()
            engine.close()
            ledger.close()
