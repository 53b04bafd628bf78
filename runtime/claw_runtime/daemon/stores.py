"""Opens the object store of a daemon: the configured one, or the S3 server that comes with claw."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import structlog

from claw_runtime.errors import ClawError, InvalidSpec, StoreUnavailable
from claw_runtime.objects.open import open_store
from claw_runtime.objects.probe import probe
from claw_runtime.objects.seaweedfs import SeaweedFS
from claw_runtime.ports import AmbiguousWrite, Capabilities, ObjectStore
from claw_runtime.secrets.operator import operator_keys
from claw_runtime.settings import Settings
from claw_runtime.spec.sink import Sink

if TYPE_CHECKING:
    from claw_runtime.objects.s3 import S3Store

log = structlog.get_logger(__name__)

SUPERVISION_PAUSE = 2.0
"""Seconds between two pings of the S3 server that comes with claw."""

BUCKET = "claw"
"""Bucket of the S3 server that comes with claw."""


def encryption_keys(settings: Settings) -> tuple[bytes, ...]:
    return operator_keys(settings.encryption_key_file) if settings.encryption_key_file else ()


def seaweedfs(settings: Settings) -> SeaweedFS:
    """The S3 server that comes with claw, in this data directory; not started."""
    return SeaweedFS(settings.layout.objects)


def foreign_store(settings: Settings, url: str) -> "S3Store":
    """A bucket or prefix that another tool wrote, opened with the keys of the settings. Raises `InvalidSpec`."""
    from claw_runtime.objects.s3 import S3Store

    keys = {name: getattr(settings, name) for name in ("access_key", "secret_key", "session_token")}
    store = open_store(url, endpoint=settings.endpoint, region=settings.region, **keys)
    if not isinstance(store, S3Store):
        raise InvalidSpec(f"not a bucket: {url[:200]}", hint="give a directory as a path")
    return store


@contextmanager
def probed_store(settings: Settings, sink: Sink | None = None) -> Iterator[tuple[ObjectStore, Capabilities]]:
    """The probed object store: that of the settings, else of the workload files, else the S3 server of claw."""
    if settings.bucket:
        store = open_store(
            store_url(settings),
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
    with _joined(server) if settings.services == "units" else serving(server):
        log.info("no bucket is configured: S3 server of claw", endpoint=server.endpoint, data=str(server.home))
        url = f"s3://{BUCKET}?{urlencode({'endpoint': server.endpoint})}"
        store = open_store(url, access_key=server.access_key, secret_key=server.secret_key)
        yield store, _probe(store)


@contextmanager
def _joined(server: SeaweedFS) -> Iterator[None]:
    """The server that its unit runs and supervises."""
    server.join()
    server.make_bucket(BUCKET)
    yield


@contextmanager
def serving(server: SeaweedFS) -> Iterator[None]:
    """Run the server, with its bucket and supervised, until the block ends."""
    server.start()
    try:
        server.make_bucket(BUCKET)
        with _supervised(server):
            yield
    finally:
        server.stop()


@contextmanager
def _supervised(server: SeaweedFS) -> Iterator[None]:
    """Start the server again whenever it ends or hangs, in a thread of its own."""
    stopping = threading.Event()

    def watch() -> None:
        while not stopping.wait(SUPERVISION_PAUSE):
            try:
                if server.supervise():
                    log.warning("the S3 server ended or did not answer: it was started again", endpoint=server.endpoint)
            except ClawError as error:
                log.warning("the S3 server ended or did not answer, and does not start", why=error.why, hint=error.hint)

    thread = threading.Thread(target=watch, name="claw-s3-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def store_url(settings: Settings) -> str:
    """The bucket's URL with the endpoint and region from the settings."""
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
            hint="retry; if it fails again, check the network between this host and the store",
        ) from error
