"""An engine in memory that behaves as Podman does (measured on 4.3.1), as far as tests/contracts/test_engine.py looks.

Workloads are emulated by hooks: `started` is called with the spec when a container begins to run and may serve on
`engine.inspect(spec.name).host_port`; `ended` when it no longer does. `fail` makes a method raise at its nth call.
A container whose command begins with `--park` waits at its start gate (fakes/gates.py) and begins to run when it opens.
"""

import itertools
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from claw_runtime.engine.refusals import (
    image_missing,
    refuse_what_cannot_be_enforced,
    refuse_what_inherits,
    wrong_runtime,
)
from claw_runtime.errors import EngineFailed, EngineUnavailable, NotClaimed, PortTaken
from claw_runtime.ports import (
    PAUSE_SECONDS,
    Container,
    ContainerSpec,
    ContainerState,
    EngineInfo,
    ExecResult,
    Image,
    Lines,
    Usage,
)
from claw_runtime.seccomp import profiles
from fakes import gates

Hook = Callable[[ContainerSpec], None]
Commands = Callable[[ContainerSpec, Sequence[str], Mapping[str, str]], ExecResult]


@dataclass(slots=True)
class _Held:
    """A container and what the engine keeps of it."""

    spec: ContainerSpec
    seen: Container
    log: list[tuple[float, bytes]] = field(default_factory=list)
    waiter: gates.Waiter | None = None


class FakeEngine:
    """Implements `ports.Engine`.

    Attributes:
        started: Called with the spec of a container that begins to run; tests may replace it.
        ended: Likewise, of one that no longer runs.
        commands: What `execute` answers, by spec, argv and environment.
        host: What `info` answers; tests replace it to take controllers away.
        calls: Names of the methods called so far, in order.
        mapped: References that `map_image` was called with.
        exit_codes: Container name → exit code that `stop` reports (0 unless set).
        opened: Container name → what values.json held when its gate was opened.
        deaf: Set it, and what parks never comes to its gate: it still prepares itself.
        memory: Bytes that `stats` says of each container.
        unwatched: Ids of containers whose monitor was killed.
    """

    def __init__(
        self, *, started: Hook | None = None, ended: Hook | None = None, commands: Commands | None = None
    ) -> None:
        self.host = EngineInfo(
            version="0.0.0",
            rootless=True,
            storage_driver="overlay",
            cgroup_version="v2",
            cgroup_controllers=("cpu", "memory", "pids"),
            runtime="fake",
        )
        self.calls: list[str] = []
        self.silent = ""
        self.mapped: list[str] = []
        self.exit_codes: dict[str, int] = {}
        self.opened: dict[str, bytes] = {}
        self.deaf = False
        self.memory = 4 << 20
        self.unwatched: set[str] = set()
        self.started = started
        self.ended = ended
        self.commands = commands or _everyday_commands
        self._images: dict[str, Image] = {}
        self._by_id: dict[str, Image] = {}  # as in Podman, an image whose name went to another can be found
        self._held: dict[str, _Held] = {}
        self._failures: dict[tuple[str, int], Exception] = {}
        self._counts: Counter[str] = Counter()
        self._ids = itertools.count(1)
        self._lock = threading.RLock()
        self._said = threading.Condition(self._lock)

    # --- what tests arrange ---------------------------------------------------------------------------------------

    def add_image(
        self,
        reference: str,
        *,
        labels: Mapping[str, str] | None = None,
        inherits: Sequence[str] = (),
        home: str = "",
    ) -> Image:
        """Put an image into the store."""
        number = len(self._by_id) + 1
        image = Image(
            id=f"{number:064x}",
            digest=f"sha256:{number:064x}",
            size=1000,
            labels=labels or {},
            names=(reference,),
            inherits=inherits,
            home=home,
        )
        self._images[reference] = self._by_id[image.id] = image
        return image

    def remove_image(self, reference: str) -> None:
        """Take an image out of the store: neither its name nor its id finds it any more."""
        del self._by_id[self._images.pop(reference).id]

    def fail(self, method: str, error: Exception, *, at: int = 1) -> None:
        """Raise `error` instead of doing anything at the `at`th call of `method` from now (1 is the next)."""
        self._failures[method, self._counts[method] + at] = error

    def heal(self) -> None:
        """Forget every `fail` that has not been raised yet."""
        self._failures.clear()

    def crash(self, container: str, exit_code: int = 1, *, oom: bool = False) -> None:
        """End a running container as if its program had, or as if the kernel had killed it at its memory limit."""
        held = self._present(container)
        held.seen = replace(held.seen, oom_killed=oom)
        self._end(held, 137 if oom else exit_code)

    def lose(self, *containers: str) -> None:
        """Let containers vanish behind everybody's back, as at a reboot; without a name, all of them."""
        for held in _all(self._held):
            if not containers or held.seen.id in containers or held.seen.name in containers:
                self._forget(held)

    def say(self, container: str, text: bytes) -> None:
        """Append lines to a container's log."""
        held = self._present(container)
        with self._said:
            held.log += [(time.time(), line) for line in text.splitlines()]
            self._said.notify_all()

    def age_log(self, container: str, seconds: float, *, but: int = 0) -> None:
        """Make the lines of a container's log older, except the last `but` ones."""
        held = self._present(container)
        with self._said:
            end = len(held.log) - but
            held.log[:end] = [(at - seconds, line) for at, line in held.log[:end]]

    def spec(self, container: str) -> ContainerSpec:
        """What the container was created from."""
        return self._present(container).spec

    # --- ports.Engine ---------------------------------------------------------------------------------------------

    def info(self, *, fresh: bool = True) -> EngineInfo:
        if fresh:
            self._note("info")
        return self.host

    def image(self, reference: str) -> Image:
        self._note("image")
        return self._image(reference)

    def map_image(self, reference: str) -> None:
        self._note("map_image")
        self._image(reference)
        self.mapped.append(reference)

    def create(self, spec: ContainerSpec) -> str:
        self._note("create")
        refuse_what_cannot_be_enforced(spec, self.host)
        if spec.runtime not in (None, self.host.runtime):
            raise wrong_runtime(spec.runtime, f"there is only {self.host.runtime}")
        image = self._image(spec.image)
        refuse_what_inherits(spec.image, image.inherits)
        try:
            json.loads(_profile(spec))
        except ValueError as error:
            raise EngineFailed(f"podman refused to create {spec.name}", why=f"seccomp profile: {error}") from error
        for bind in spec.binds:
            if not bind.source.exists():
                raise EngineFailed(f"podman refused to create {spec.name}", why=f"statfs {bind.source}")
        with self._lock:
            if self._find(spec.name):
                raise EngineFailed(f"podman refused to create {spec.name}", why="that name is already in use")
            identity = f"{next(self._ids):064x}"
            published = spec.port is not None and spec.network == "private"
            self._held[identity] = _Held(
                spec,
                Container(
                    id=identity,
                    name=spec.name,
                    state="created",
                    image_id=image.id,
                    labels={**image.labels, **spec.labels},
                    host_port=_free_port() if published else None,
                ),
            )
        return identity

    def initialize(self, container: str) -> None:
        self._note("initialize")
        held = self._present(container)
        if held.seen.state == "created":
            _require_free(held.seen.host_port)
            held.seen = replace(held.seen, state="initialized", pid=1)

    def start(self, container: str) -> None:
        self._note("start")
        held = self._present(container)
        with self._lock:
            if held.seen.state == "running":
                return
            if held.seen.state != "initialized":
                _require_free(held.seen.host_port)
            held.seen = replace(held.seen, state="running", pid=1, exit_code=None, oom_killed=False)
            if held.spec.entrypoint is None:
                self.say(container, b"started\n")
        if held.spec.entrypoint is not None:
            return  # a program of the image, and not the workload's
        if held.spec.command and held.spec.command[0] == "--park":
            self._park(held)
        elif self.started:
            self.started(held.spec)

    def stop(self, container: str, timeout: int) -> None:
        self._note("stop")
        held = self._find(container)
        if held is None:
            return
        if held.seen.state == "initialized":
            held.seen = replace(held.seen, state="exited", pid=0, exit_code=137)
        elif held.seen.state in ("running", "paused"):
            self._end(held, self.exit_codes.get(held.spec.name, 0))

    def pause(self, container: str) -> None:
        self._turn("pause", container, "running", "paused")

    def unpause(self, container: str) -> None:
        self._turn("unpause", container, "paused", "running")

    def _turn(self, verb: str, container: str, before: ContainerState, after: ContainerState) -> None:
        self._note(verb)
        held = self._present(container)
        with self._lock:
            if held.seen.state not in (before, after):
                raise EngineFailed(f"podman refused to {verb} {container}", why="container state improper")
            held.seen = replace(held.seen, state=after)

    def remove(self, container: str) -> None:
        self._note("remove")
        held = self._find(container)
        if held is not None:
            self._forget(held)

    def inspect(self, container: str) -> Container | None:
        self._note("inspect")
        held = self._find(container)
        return held.seen if held else None

    def is_watched(self, container: Container) -> bool | None:
        held = self._held.get(container.id)
        return container.id not in self.unwatched if held and held.seen.pid else None

    def list(self, labels: Mapping[str, str]) -> Sequence[Container]:
        self._note("list")
        return [held.seen for held in _all(self._held) if labels.items() <= held.seen.labels.items()]

    def execute(
        self,
        container: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> ExecResult:
        self._note("execute")
        held, deadline = self._present(container), time.monotonic() + PAUSE_SECONDS
        while held.seen.state == "paused" and time.monotonic() < deadline:
            time.sleep(0.01)
        if held.seen.state != "running":
            raise EngineFailed(f"podman refused to run {argv[0]!r} in {container}", why="container state improper")
        if argv[0] == "sleep" and timeout is not None and float(argv[1]) > timeout:
            return ExecResult(exit_code=137, stdout=b"", stderr=b"", timed_out=True)
        return self.commands(held.spec, argv, {**held.spec.environment, **(environment or {})})

    def logs(self, container: str, *, tail: int | None = None) -> bytes:
        self._note("logs")
        lines = [line + b"\n" for _, line in self._present(container).log]
        return b"".join(lines if tail is None else lines[len(lines) - min(tail, len(lines)) :])

    def lines(
        self, container: str, *, tail: int | None = None, since: float | None = None, follow: bool = False
    ) -> Lines:
        self._note("lines")
        held = self._present(container)
        begin = 0 if tail is None else max(0, len(held.log) - tail)
        return _Lines(held, self._said, begin, since or 0.0, follow and held.seen.state in ("running", "paused"))

    def supervise(self) -> None:
        """Nothing of a fake hangs; and no call, since a loop makes it at any time."""

    def ping(self) -> None:
        """No call either: a loop makes it at any time."""
        if self.silent:
            raise EngineUnavailable("Podman's service does not answer", why=self.silent)

    def stats(self, labels: Mapping[str, str]) -> Sequence[Usage]:
        self._note("stats")
        alive = [held.seen for held in _all(self._held) if held.seen.pid and labels.items() <= held.seen.labels.items()]
        return [Usage(container=seen, memory=self.memory, kind="rss", cpu=0.5) for seen in alive]

    # --- inside ---------------------------------------------------------------------------------------------------

    def _note(self, method: str) -> None:
        with self._lock:
            self.calls.append(method)
            self._counts[method] += 1
            error = self._failures.pop((method, self._counts[method]), None)
        if error:
            raise error

    def _image(self, reference: str) -> Image:
        found = self._images.get(reference) or self._by_id.get(reference)
        if found is None:
            raise image_missing(reference)
        return found

    def _find(self, container: str) -> _Held | None:
        return next((held for held in _all(self._held) if container in (held.seen.id, held.seen.name)), None)

    def _present(self, container: str) -> _Held:
        held = self._find(container)
        if held is None:
            raise NotClaimed(f"container {container} is gone")
        return held

    def _end(self, held: _Held, exit_code: int) -> None:
        if held.waiter:
            held.waiter.end()
        with self._said:
            held.seen = replace(held.seen, state="exited", pid=0, exit_code=exit_code)
            self._said.notify_all()
        if self.ended:
            self.ended(held.spec)

    def _forget(self, held: _Held) -> None:
        if held.seen.state in ("running", "paused"):
            self._end(held, 137)
        self._held.pop(held.seen.id, None)

    def _park(self, held: _Held) -> None:
        """Come to the start gate. Without one, the entrypoint ends with its code for a seed that failed."""
        values = gates.at([bind.source for bind in held.spec.binds])
        if values is None:
            self._end(held, 78)
        elif not self.deaf:
            held.waiter = gates.Waiter(values, lambda found: self._open(held, found))

    def _open(self, held: _Held, values: bytes) -> None:
        self.opened[held.spec.name] = values
        if self.started:
            self.started(held.spec)


class _Lines:
    """Implements `ports.Lines` on a log in memory."""

    def __init__(self, held: _Held, said: threading.Condition, begin: int, since: float, follow: bool) -> None:
        self._held, self._said, self._at, self._since, self._follow = held, said, begin, since, follow
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with self._said:
            while not self._closed:
                if self._at < len(self._held.log):
                    written, line = self._held.log[self._at]
                    self._at += 1
                    if written >= self._since:
                        return line
                elif self._follow and self._held.seen.state in ("running", "paused"):
                    self._said.wait()
                else:
                    break
        raise StopIteration

    def close(self) -> None:
        with self._said:
            self._closed = True
            self._said.notify_all()


def _all(held: Mapping[str, _Held]) -> tuple[_Held, ...]:
    """A copy, since other threads add and remove; `list` is a method above."""
    return tuple(held.values())


def _everyday_commands(spec: ContainerSpec, argv: Sequence[str], environment: Mapping[str, str]) -> ExecResult:
    """The programs that the conformance suite calls."""
    if argv[0] == "echo":
        return ExecResult(exit_code=0, stdout=" ".join(argv[1:]).encode() + b"\n", stderr=b"")
    if argv[0] == "env":
        lines = "".join(f"{name}={value}\n" for name, value in environment.items())
        return ExecResult(exit_code=0, stdout=lines.encode(), stderr=b"")
    if argv[:2] == ["sh", "-c"] and "memory.max" in argv[2]:
        return ExecResult(exit_code=0, stdout=_control_group(spec), stderr=b"")
    namespaces = 0 if '"unshare"' in _profile(spec) else 1
    code = {"true": 0, "false": 1, "unshare": namespaces}.get(argv[0], 127)
    return ExecResult(exit_code=code, stdout=b"", stderr=b"not found\n" if code == 127 else b"")


def _control_group(spec: ContainerSpec) -> bytes:
    """What the probe of limits reads in a container whose limits hold, after it tried to make too many processes."""
    lines = [
        f"memory.max {spec.memory or 'max'}",
        f"cpu.max {int(spec.cpus * 100_000) if spec.cpus else 'max'} 100000",
        f"pids.max {spec.pids or 'max'}",
        f"pids.events max {9 if spec.pids else 0}",
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def _profile(spec: ContainerSpec) -> str:
    return profiles.text() if spec.seccomp is None else spec.seccomp


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _require_free(port: int | None) -> None:
    if port is None:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise PortTaken(f"port {port} is held by another process", why=str(error), port=port) from error
