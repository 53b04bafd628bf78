"""A fake Podman that outlives daemons: the fake engine in a process of its own, and an adapter that speaks to it.

As with the real one, containers go on when the daemon that made them is killed. A container's program is a tenant's in
small: each start, and each goodbye on SIGTERM, goes into its /state, and the host remembers what it wrote for whom, so
that a test can tell afterwards whether a word was lost or came to somebody else.
"""

import os
import socket
import threading
from collections import defaultdict
from collections.abc import Collection, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from claw_runtime.ports import ContainerSpec
from fakes.engine import FakeEngine
from kill.image import BAD, IMAGE, MARKER, NEXT, SCHEMA

UNHEARD = "was killed while its program ran"
"""The end of a fault: its goodbye was not heard. Where nobody wants to hear it, it is none."""

METHODS = (
    "info image map_image create initialize start stop pause unpause remove "
    "inspect is_watched list execute logs lines stats supervise ping"
)


class HostEngine(FakeEngine):
    """The containers of one host.

    Attributes:
        words: Tenant → file of its /state → what the program wrote there last.
        faults: What should never have happened, in sentences.
    """

    def __init__(self) -> None:
        super().__init__(started=self._begin)
        self._first = self.add_image(IMAGE).id
        self.add_image(NEXT)
        self._bad = self.add_image(BAD).id
        self.words: dict[str, dict[str, str]] = defaultdict(dict)
        self.faults: list[str] = []
        self._begun: dict[str, str] = {}

    def answers(self, port: int) -> bool:
        """Whether the program behind a published port has begun."""
        return any(held.seen.host_port == port and held.spec.name in self._begun for held in list(self._held.values()))

    def stop(self, container: str, timeout: int) -> None:
        held = self._find(container)
        if held and held.seen.state in ("running", "paused") and held.spec.name in self._begun:
            self._write(held.spec, "goodbyes")
        super().stop(container, timeout)

    def remove(self, container: str) -> None:
        held = self._find(container)
        if held and held.seen.state in ("running", "paused") and self._counts_on(held.spec):
            self.faults.append(f"{held.spec.name} {UNHEARD}")
        super().remove(container)

    def _counts_on(self, spec: ContainerSpec) -> bool:
        """Whether every word of a container's program counts: what another image writes on trial may be dropped."""
        return spec.name in self._begun and spec.image == self._first

    def _begin(self, spec: ContainerSpec) -> None:
        if spec.name in self._begun:
            self.faults.append(f"{spec.name} was started twice")
        tenant = _tenant_in(_state(spec))
        self._begun[spec.name] = tenant
        logs = next(bind.source for bind in spec.binds if bind.target == "/logs")
        with (logs / "who").open("a") as file:
            file.write(f"{tenant}\n")
        strangers = set((logs / "who").read_text().split()) - {tenant, ""}
        if tenant and strangers:
            self.faults.append(f"{spec.name} of {tenant} holds logs of {sorted(strangers)}")
        self._write(spec, "starts")
        if spec.image == self._bad:
            (_state(spec) / SCHEMA).write_text("newer")
            self.crash(spec.name)

    def _write(self, spec: ContainerSpec, name: str) -> None:
        """One line more in a file of /state, as the tenant's own program writes it."""
        file, tenant = _state(spec) / name, _tenant_in(_state(spec))
        if self._begun[spec.name] not in ("", tenant):
            self.faults.append(f"{spec.name} began for {self._begun[spec.name]} and holds the state of {tenant}")
        before = file.read_text() if file.exists() else ""
        file.write_text(f"{before}{name}\n")
        if tenant:
            self.words[tenant][name] = f"{self.words[tenant].get(name, before)}{name}\n"


def _state(spec: ContainerSpec) -> Path:
    return next(bind.source for bind in spec.binds if bind.target == "/state")


def _tenant_in(state: Path) -> str:
    marker = state / MARKER
    return marker.read_text() if marker.exists() else ""


class RemoteEngine:
    """`ports.Engine` of a daemon whose containers are kept by an `EngineHost`; made as `PodmanEngine` is."""

    host: str = ""
    """Address of the host."""

    def __init__(self, path: Path, *, cgroup_parent: str | None = None) -> None:
        self._home = str(path.parent.parent)
        self._local = threading.local()

    def close(self) -> None:
        """Containers go on."""

    def ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the `HostEngine` of this home, or read an attribute of it."""
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            plain = socket.socket(socket.AF_UNIX)
            plain.connect(self.host)
            connection = self._local.connection = Connection(plain.detach())
        connection.send((self._home, method, arguments, options))
        failed, answer = connection.recv()
        if failed:
            raise answer
        return answer


def _method(name: str) -> Any:
    def call(self: RemoteEngine, *arguments: Any, **options: Any) -> Any:
        return self.ask(name, *arguments, **options)

    return call


for _name in METHODS.split():
    setattr(RemoteEngine, _name, _method(_name))


class RemoteProber:
    """`ports.Prober`: a program that has begun is ready."""

    def __init__(self, engine: RemoteEngine) -> None:
        self._engine = engine

    def get(self, port: int, path: str, timeout: float, bearer: str | None = None) -> tuple[int, bytes] | None:
        """200 once the program has begun."""
        return (200, b"{}") if self._engine.ask("answers", port) else None

    def refusing(self, ports: Collection[int]) -> frozenset[int]:
        """None: nobody kills the helpers of ports here."""
        return frozenset()

    def is_free(self, port: int) -> bool:
        """Always: the engine's host has no real ports."""
        return True


def serve(address: Path) -> int:
    """Start a host of engines in a child process; its pid. One engine for each home that asks."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen(64)
        if pid := os.fork():
            return pid
        engines: dict[str, HostEngine] = {}
        while True:
            connection = Connection(listener.accept()[0].detach())
            threading.Thread(target=_serve_one, args=(connection, engines), daemon=True).start()


def _serve_one(connection: Connection, engines: dict[str, HostEngine]) -> None:
    while True:
        try:
            home, method, arguments, options = connection.recv()
        except (EOFError, ConnectionError):
            return
        if method == "forget":
            gone = engines.pop(home, None)
            if gone:
                gone.lose()
            answer: tuple[bool, Any] = False, None
        else:
            answer = _call(engines.setdefault(home, HostEngine()), method, arguments, options)
        try:
            connection.send(answer)
        except (BrokenPipeError, ConnectionError):
            return  # its daemon was killed while it waited


def _call(engine: HostEngine, method: str, arguments: Sequence[Any], options: dict[str, Any]) -> tuple[bool, Any]:
    try:
        found = getattr(engine, method)
        answer = found(*arguments, **options) if callable(found) else found
        return False, dict(answer) if isinstance(answer, defaultdict) else answer
    except Exception as error:  # noqa: BLE001 - it is the daemon's to handle
        return True, error
