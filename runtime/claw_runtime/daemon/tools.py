"""Functions that need no daemon: examine the host, build and verify images."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path

from claw_runtime import unix_http
from claw_runtime.clock import SystemClock
from claw_runtime.daemon.home import load_workloads, make_directories
from claw_runtime.daemon.stores import encryption_keys, probed_store
from claw_runtime.engine import host
from claw_runtime.engine.imagetool import PodmanImageTool
from claw_runtime.engine.podman import PodmanEngine
from claw_runtime.errors import ClawError
from claw_runtime.images.build import Images
from claw_runtime.operations import doctor
from claw_runtime.operations.doctor import Finding
from claw_runtime.ports import Capabilities, Engine, ObjectStore
from claw_runtime.reserve import is_given_up
from claw_runtime.router import presence, process
from claw_runtime.settings import Settings
from claw_runtime.spec.loader import Document
from claw_runtime.spec.sink import common_sink
from claw_runtime.tenancy import Layout
from claw_runtime.units import format_duration

_DAEMON_SECONDS = 15.0


def examine(settings: Settings, workloads: Sequence[Path] = ()) -> Iterator[Finding]:
    """The doctor's findings for this host; needs no daemon and does not disturb a running one."""
    layout = settings.layout
    with ExitStack() as stack:

        def engine() -> Engine:
            make_directories(layout)
            socket = layout.run / f"doctor-{os.getpid()}.sock"
            stack.callback(socket.unlink, missing_ok=True)
            return stack.enter_context(PodmanEngine(socket, cgroup_parent=settings.cgroup_parent))

        def documents() -> Mapping[str, Document]:
            return load_workloads(workloads or sorted(settings.workloads.glob("*.yaml")))

        def store() -> tuple[ObjectStore, Capabilities] | None:
            try:
                sink = common_sink(documents())
            except ClawError:  # another finding reports it
                sink = None
            return stack.enter_context(probed_store(settings, sink)) if settings.bucket or sink else None

        yield from _daemon(layout)
        yield from router(settings)
        yield from doctor.examine(
            host.facts(settings.home),
            engine,
            store,
            documents,
            lambda: encryption_keys(settings),
            drop_limits=settings.limits == "drop",
        )
        if is_given_up(layout.reserve):
            yield Finding(
                check="disk reserve",
                verdict="fail",
                detail="the disk of the data directory was full: the reserve of 8 MiB was given up",
                hint="free space; the daemon makes it again when 64 MiB are free (docs/RUNBOOK.md)",
            )


def _daemon(layout: Layout) -> Iterator[Finding]:
    """What a running daemon says of the services that it uses; nothing where none runs."""
    try:
        connection = unix_http.connected(layout.api_socket, within=1, timeout=_DAEMON_SECONDS)
    except OSError:
        return
    try:
        with connection:
            answer = unix_http.ask(connection, "GET", "/readyz")
            status, said = answer.status, json.loads(b"".join(answer.pieces()) or b"{}")
            answer.close()
    except (OSError, ValueError) as error:
        status, said = 0, {"title": f"it does not answer within {_DAEMON_SECONDS:g} s", "detail": str(error)}
    yield doctor.daemon(status, said)


def router(settings: Settings) -> Iterator[Finding]:
    """The router, where one is to run."""
    if settings.ingress is None:
        return
    there, here = presence.present(settings.layout.router_lock), ""
    if there is not None:
        age = format_duration(max(1, round(time.time() - there.since)))
        here = f"{there.address}, process {there.pid}, for {age}"
    yield doctor.router(
        process.shown(settings.ingress),
        here,
        answers=there is not None and process.answers(there),
        loopback=ip_address(settings.ingress[0]).is_loopback,
    )


@contextmanager
def images(settings: Settings) -> Iterator[Images]:
    """Building, loading and verifying images; needs no daemon."""
    layout = settings.layout
    make_directories(layout)
    socket = layout.run / f"image-{os.getpid()}.sock"
    try:
        with PodmanEngine(socket, cgroup_parent=settings.cgroup_parent) as engine:
            yield Images(engine, PodmanImageTool(cgroup_parent=settings.cgroup_parent), SystemClock())
    finally:
        socket.unlink(missing_ok=True)
