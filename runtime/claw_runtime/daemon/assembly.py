"""The composition root: settings → adapters → services. The only module that makes adapters.

One runtime owns one data directory (a lock says so) and one user's containers that carry its id.
"""

import fcntl
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import structlog

from claw_runtime.access.tokens import Tokens
from claw_runtime.clock import SystemClock
from claw_runtime.db.database import Database
from claw_runtime.db.events import SqliteEvents
from claw_runtime.db.idempotency import SqliteAnswers
from claw_runtime.db.ledger import SqliteLedger
from claw_runtime.db.tokens import SqliteTokens
from claw_runtime.db.upgrades import SqliteUpgrades
from claw_runtime.engine import host
from claw_runtime.engine.imagetool import PodmanImageTool
from claw_runtime.engine.podman import PodmanEngine
from claw_runtime.engine.ports import is_free
from claw_runtime.engine.probe import HttpProber
from claw_runtime.errors import ClawError, DaemonRunning, InvalidSpec, StoreUnavailable
from claw_runtime.fsutil import write_atomic
from claw_runtime.images.build import Images
from claw_runtime.interchange.tar_in import Porting
from claw_runtime.objects.open import open_store
from claw_runtime.objects.probe import probe
from claw_runtime.objects.seaweedfs import SeaweedFS
from claw_runtime.operations import doctor
from claw_runtime.operations.doctor import Finding
from claw_runtime.operations.maintenance import Routine
from claw_runtime.pools.pools import Pools
from claw_runtime.ports import AmbiguousWrite, AnswerStore, Capabilities, Clock, Engine, Ledger, ObjectStore
from claw_runtime.safefs.tree import remove_tree
from claw_runtime.secrets.files import SecretFiles
from claw_runtime.secrets.operator import operator_keys
from claw_runtime.settings import Settings
from claw_runtime.spec import loader
from claw_runtime.spec.loader import Document
from claw_runtime.spec.sink import Sink, common_sink
from claw_runtime.state.history.pins import Pins
from claw_runtime.state.keyring import Vault
from claw_runtime.state.lease.heartbeats import Beats
from claw_runtime.state.plain_view import PlainViews
from claw_runtime.state.repository import Syncing
from claw_runtime.state.snapshots.snapshots import Snapshots
from claw_runtime.state.verify import Verifying
from claw_runtime.telemetry.events import Activity
from claw_runtime.tenancy import Layout
from claw_runtime.tenants.drives.values import Values
from claw_runtime.tenants.purge import Cleaning
from claw_runtime.tenants.tenants import Claims
from claw_runtime.tenants.trees import Trees
from claw_runtime.upgrades.upgrades import Upgrades
from claw_runtime.workloads.registry import Workloads
from claw_runtime.workloads.watcher import WorkloadFiles

if TYPE_CHECKING:
    from claw_runtime.objects.s3 import S3Store

log = structlog.get_logger(__name__)

KEEPER_PAUSE = 5.0
"""Seconds between two looks at the pools when nothing happens."""

TENDING_PAUSE = 5.0
"""Seconds between two looks at tenants whose container ended by itself, or who have rested for long enough."""

PROBE_PAUSE = 1.0
VIEW_PAUSE = 1.0
"""Seconds between two looks whose workload is due to be probed."""

RETRY_KEPT = 30.0
"""Seconds between attempts to commit trees that are kept on this host."""

ROUTINE_PAUSE = 1.0
"""Seconds between two looks whose interval between commits is over."""

TIDY_PAUSE = 20.0
"""Seconds between two looks whose garbage is to be collected; one tenant's at a time."""

LAST_UPLOAD = 20.0
"""Seconds that an upload under way may go on when the daemon ends; one that is cut off is made again later."""

BUCKET = "claw"
"""Bucket of the S3 server that comes with claw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Everything that a face needs, composed."""

    settings: Settings
    engine: Engine
    store: ObjectStore
    ledger: Ledger
    pools: Pools
    claims: Claims
    syncing: Syncing
    snapshots: Snapshots
    views: PlainViews
    vault: Vault
    activity: Activity
    workloads: Workloads
    upgrades: Upgrades
    routine: Routine
    verifying: Verifying
    cleaning: Cleaning
    porting: Porting
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
        # Threads of their own, since one tenant's upload may take hours and no pool may wait for it.
        recovery = self.claims.recovery
        helpers = [
            self._every(lambda: TENDING_PAUSE, "tend", recovery.supervise, recovery.expire),
            self._every(lambda: RETRY_KEPT, "retry", recovery.retry),
            self._every(lambda: PROBE_PAUSE, "probe", self.claims.vitals.look),
            self._every(lambda: self.settings.lease_ttl / 3, "beat", self.syncing.beats.beat),
            self._every(lambda: VIEW_PAUSE, "plain-view", self.views.work_off),
            self._every(lambda: ROUTINE_PAUSE, "commit", self.routine.commit),
            self._every(lambda: TIDY_PAUSE, "collect", self.routine.collect),
            self._every(chain((0.0,), repeat(RETRY_KEPT)).__next__, "upgrade", self.upgrades.bring_home),
        ]
        while not self.stopping.is_set():
            self.poked.clear()
            try:
                self.pools.tick()
            except Exception:
                log.exception("the pool keeper made a mistake and goes on")
            self.poked.wait(KEEPER_PAUSE)
        self.pools.rest()
        self.upgrades.stop(LAST_UPLOAD)
        for helper in helpers:
            helper.join(LAST_UPLOAD)

    def _every(self, pause: Callable[[], float], name: str, *works: Callable[[], None]) -> threading.Thread:
        """Do these again and again, in a thread, until `stopping`."""

        def go() -> None:
            while not self.stopping.wait(pause()):
                for work in works:
                    try:
                        work()
                    except Exception:
                        log.exception("background work made a mistake and goes on", work=name)

        thread = threading.Thread(target=go, name=name, daemon=True)
        thread.start()
        return thread


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
    _make_directories(layout)
    documents = load_workloads(workloads or sorted(settings.workloads.glob("*.yaml")))
    for document in documents.values():
        for hint in document.hints:
            log.warning("workload file", kind=hint.kind, hint=document.told(hint))
    operators = _operators(settings)
    with _locked(layout), _store(settings, common_sink(documents)) as (store, capabilities):
        log.info("object store", store=store.url, lacks=list(capabilities.missing))
        remove_tree(layout.scratch)
        engine = PodmanEngine(layout.engine_socket, cgroup_parent=settings.cgroup_parent)
        database = Database(layout.ledger)
        ledger = SqliteLedger(database)
        poked, stopping, clock = threading.Event(), threading.Event(), SystemClock()
        owner = runtime_id(layout)
        activity, secret_files = Activity(SqliteEvents(database), clock), SecretFiles(layout)
        beats = Beats(store, owner, clock, settings.lease_ttl)
        beats.beat()  # before the first lease, or its owner would be taken for dead
        vault = Vault(store, operators)
        syncing = Syncing(store, owner, clock, layout.scratch, vault, beats=beats)
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
        claims = Claims(
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
                routine=Routine(claims, ledger, clock, pools.interval),
                verifying=Verifying(store, syncing, Pins(store, clock)),
                cleaning=Cleaning(store, syncing, Trees(layout), claims.still, activity.record),
                porting=Porting(syncing, layout, claims.still, activity.record),
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


def examine(settings: Settings, workloads: Sequence[Path] = ()) -> Iterator[Finding]:
    """The doctor's findings for this host; needs no daemon and disturbs none."""
    layout = settings.layout
    with ExitStack() as stack:

        def engine() -> Engine:
            _make_directories(layout)
            socket = layout.run / f"doctor-{os.getpid()}.sock"
            stack.callback(socket.unlink, missing_ok=True)
            return stack.enter_context(PodmanEngine(socket, cgroup_parent=settings.cgroup_parent))

        def documents() -> Mapping[str, Document]:
            return load_workloads(workloads or sorted(settings.workloads.glob("*.yaml")))

        def store() -> tuple[ObjectStore, Capabilities] | None:
            try:
                sink = common_sink(documents())
            except ClawError:  # another finding says so
                sink = None
            return stack.enter_context(_store(settings, sink)) if settings.bucket or sink else None

        yield from doctor.examine(
            host.facts(settings.home),
            engine,
            store,
            documents,
            lambda: _operators(settings),
            drop_limits=settings.limits == "drop",
        )


def _operators(settings: Settings) -> tuple[bytes, ...]:
    return operator_keys(settings.encryption_key_file) if settings.encryption_key_file else ()


@contextmanager
def images(settings: Settings) -> Iterator[Images]:
    """Building, loading and verifying images; needs no daemon."""
    layout = settings.layout
    _make_directories(layout)
    socket = layout.run / f"image-{os.getpid()}.sock"
    try:
        with PodmanEngine(socket, cgroup_parent=settings.cgroup_parent) as engine:
            yield Images(engine, PodmanImageTool(cgroup_parent=settings.cgroup_parent), SystemClock())
    finally:
        socket.unlink(missing_ok=True)


def load_workloads(paths: Sequence[Path]) -> Mapping[str, Document]:
    """Workload files by pool id.

    Raises:
        InvalidSpec: One is not valid, or two have the same id.
    """
    documents: dict[str, Document] = {}
    for path in paths:
        document = loader.load(path)
        if (other := documents.get(document.workload.id)) is not None:
            raise InvalidSpec(
                f"{path}: id {document.workload.id!r} is taken",
                why=f"{other.path} has the same id",
                hint="give each workload an id of its own",
            )
        documents[document.workload.id] = document
    return documents


def runtime_id(layout: Layout) -> str:
    """This runtime's id, made at the first start: the owner in leases and on containers."""
    try:
        return layout.runtime_id.read_text("ascii").strip()
    except FileNotFoundError:
        owner = secrets.token_hex(8)
        write_atomic(layout.runtime_id, owner.encode())
        return owner


def seaweedfs(settings: Settings) -> SeaweedFS:
    """The S3 server that comes with claw, in this data directory; not started."""
    return SeaweedFS(settings.layout.objects)


def foreign_store(settings: Settings, url: str) -> "S3Store":
    """A bucket, or a part of one, that another tool wrote; with the keys of the settings. Raises `InvalidSpec`."""
    from claw_runtime.objects.s3 import S3Store

    keys = {name: getattr(settings, name) for name in ("access_key", "secret_key", "session_token")}
    store = open_store(url, endpoint=settings.endpoint, region=settings.region, **keys)
    if not isinstance(store, S3Store):
        raise InvalidSpec(f"not a bucket: {url[:200]}", hint="name a directory by its path")
    return store


@contextmanager
def _store(settings: Settings, sink: Sink | None = None) -> Iterator[tuple[ObjectStore, Capabilities]]:
    """The object store, probed: of the settings, else of the workload files, else our own S3 server."""
    if settings.bucket:
        store = open_store(
            _store_url(settings),
            access_key=settings.access_key,
            secret_key=settings.secret_key,
            session_token=settings.session_token,
        )
        yield store, _probe(store)
        return
    if sink:
        store = open_store(sink.url, access_key=sink.access_key, secret_key=sink.secret_key)
        yield store, _probe(store)
        return
    server = seaweedfs(settings)
    server.start()
    try:
        server.make_bucket(BUCKET)
        log.info(
            "no bucket is configured: S3 server started", endpoint=server.endpoint, data=str(settings.layout.objects)
        )
        url = f"s3://{BUCKET}?{urlencode({'endpoint': server.endpoint})}"
        store = open_store(url, access_key=server.access_key, secret_key=server.secret_key)
        yield store, _probe(store)
    finally:
        server.stop()


def _store_url(settings: Settings) -> str:
    """The bucket's URL with the endpoint and region that were set beside it."""
    url = settings.bucket or ""
    beside = {"endpoint": settings.endpoint, "region": settings.region}
    options = urlencode({name: value for name, value in beside.items() if value and f"{name}=" not in url})
    if not url.startswith("s3:") or not options:
        return url
    return f"{url}{'&' if '?' in url else '?'}{options}"


def _probe(store: ObjectStore) -> Capabilities:
    try:
        return probe(store)
    except AmbiguousWrite as error:
        raise StoreUnavailable(
            f"the object store {store.url} broke the connection while it was probed",
            why=str(error),
            hint="try again; if it stays so, look at the network between here and there",
        ) from error


def _make_directories(layout: Layout) -> None:
    for directory in (layout.home, layout.run, layout.workloads, layout.slots, layout.tenants):
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ClawError(
                f"{directory} cannot be made", why=error.strerror or "", hint="choose another with --home or CLAW_HOME"
            ) from error
    for directory in (layout.home, layout.run):
        _check_ours(directory)


def _check_ours(directory: Path) -> None:
    """Whoever may rename in it could put a socket or values file of theirs in the place of ours: /tmp is everybody's.

    Raises:
        ClawError: Others own the directory (or the link to it), or may write to it.
    """
    status = directory.stat()
    strangers = {status.st_uid, directory.lstat().st_uid} - {os.geteuid()}
    if status.st_uid in strangers or strangers - {0}:
        why = f"it belongs to user {max(strangers)}"
    elif status.st_mode & 0o022:
        why = f"others may write to it (mode {stat.S_IMODE(status.st_mode):04o})"
    else:
        return
    raise ClawError(
        f"{directory} is not ours alone",
        why=why,
        hint=f"chmod 0700 {directory} if it is yours, or choose another (CLAW_HOME, CLAW_RUN)",
    )


@contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    """Only one daemon per data directory; the lock goes with the process, however it ends."""
    with layout.lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise DaemonRunning(
                f"a daemon already serves {layout.home}",
                why=f"process {file.read().strip() or 'unknown'} holds its lock",
                hint="use that one, or choose another data directory with --home",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
