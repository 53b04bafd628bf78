"""An engine in memory that behaves as Podman does (measured on 4.3.1), as far as tests/contracts/test_engine.py looks.

Workloads are emulated by hooks: `started` is called with the spec when a container begins to run and may serve on
`engine.inspect(spec.name).host_port`; `ended` when it no longer does. `fail` makes a method raise at its nth call.
"""

import itertools
import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from claw_runtime.engine.refusals import image_missing, refuse_what_cannot_be_enforced
from claw_runtime.errors import EngineFailed, NotClaimed, PortTaken
from claw_runtime.ports import Container, ContainerSpec, EngineInfo, ExecResult, Image

Hook = Callable[[ContainerSpec], None]
Commands = Callable[[ContainerSpec, Sequence[str], Mapping[str, str]], ExecResult]


@dataclass(slots=True)
class _Held:
    """A container and what the engine keeps of it."""

    spec: ContainerSpec
    seen: Container
    log: bytes = b""


class FakeEngine:
    """Implements `ports.Engine`.

    Attributes:
        host: What `info` answers; tests replace it to take controllers away.
        calls: Names of the methods called so far, in order.
        mapped: References that `map_image` was called with.
        exit_codes: Container name → exit code that `stop` reports (0 unless set).
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
        self.mapped: list[str] = []
        self.exit_codes: dict[str, int] = {}
        self._started = started
        self._ended = ended
        self._commands = commands or _everyday_commands
        self._images: dict[str, Image] = {}
        self._by_id: dict[str, Image] = {}  # as in Podman, an image whose name went to another can be found
        self._held: dict[str, _Held] = {}
        self._failures: dict[tuple[str, int], Exception] = {}
        self._counts: Counter[str] = Counter()
        self._ids = itertools.count(1)
        self._lock = threading.RLock()

    # --- what tests arrange ---------------------------------------------------------------------------------------

    def add_image(self, reference: str, *, labels: Mapping[str, str] | None = None) -> Image:
        """Put an image into the store."""
        number = len(self._by_id) + 1
        image = Image(
            id=f"{number:064x}", digest=f"sha256:{number:064x}", size=1000, labels=labels or {}, names=(reference,)
        )
        self._images[reference] = self._by_id[image.id] = image
        return image

    def fail(self, method: str, error: Exception, *, at: int = 1) -> None:
        """Raise `error` instead of doing anything at the `at`th call of `method` from now (1 is the next)."""
        self._failures[method, self._counts[method] + at] = error

    def crash(self, container: str, exit_code: int = 1) -> None:
        """End a running container as if its program had."""
        held = self._find(container)
        assert held is not None
        self._end(held, exit_code)

    def say(self, container: str, text: bytes) -> None:
        """Append to a container's log."""
        held = self._find(container)
        assert held is not None
        held.log += text

    def spec(self, container: str) -> ContainerSpec:
        """What the container was created from."""
        held = self._find(container)
        assert held is not None
        return held.spec

    # --- ports.Engine ---------------------------------------------------------------------------------------------

    def info(self) -> EngineInfo:
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
        image = self._image(spec.image)
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
            held.seen = replace(held.seen, state="running", pid=1, exit_code=None)
            held.log += b"started\n"
        if self._started:
            self._started(held.spec)

    def stop(self, container: str, timeout: int) -> int | None:
        self._note("stop")
        held = self._find(container)
        if held is None:
            return None
        if held.seen.state == "initialized":
            held.seen = replace(held.seen, state="exited", pid=0, exit_code=137)
        elif held.seen.state == "running":
            self._end(held, self.exit_codes.get(held.spec.name, 0))
        return held.seen.exit_code

    def remove(self, container: str) -> None:
        self._note("remove")
        held = self._find(container)
        if held is None:
            return
        if held.seen.state == "running":
            self._end(held, 137)
        del self._held[held.seen.id]

    def inspect(self, container: str) -> Container | None:
        self._note("inspect")
        held = self._find(container)
        return held.seen if held else None

    def list(self, labels: Mapping[str, str]) -> Sequence[Container]:
        self._note("list")
        return [held.seen for held in _all(self._held) if labels.items() <= held.seen.labels.items()]

    def execute(
        self, container: str, argv: Sequence[str], *, environment: Mapping[str, str] | None = None
    ) -> ExecResult:
        self._note("execute")
        held = self._present(container)
        if held.seen.state != "running":
            raise EngineFailed(f"podman refused to run {argv[0]!r} in {container}", why="container state improper")
        return self._commands(held.spec, argv, {**held.spec.environment, **(environment or {})})

    def logs(self, container: str, *, tail: int | None = None) -> bytes:
        self._note("logs")
        lines = self._present(container).log.splitlines(keepends=True)
        return b"".join(lines if tail is None else lines[len(lines) - min(tail, len(lines)) :])

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
        held.seen = replace(held.seen, state="exited", pid=0, exit_code=exit_code)
        if self._ended:
            self._ended(held.spec)


def _all(held: Mapping[str, _Held]) -> tuple[_Held, ...]:
    """A copy, since other threads add and remove; `list` is a method above."""
    return tuple(held.values())


def _everyday_commands(spec: ContainerSpec, argv: Sequence[str], environment: Mapping[str, str]) -> ExecResult:
    """The four programs that the conformance suite calls."""
    if argv[0] == "echo":
        return ExecResult(exit_code=0, stdout=" ".join(argv[1:]).encode() + b"\n", stderr=b"")
    if argv[0] == "env":
        lines = "".join(f"{name}={value}\n" for name, value in environment.items())
        return ExecResult(exit_code=0, stdout=lines.encode(), stderr=b"")
    code = {"true": 0, "false": 1}.get(argv[0], 127)
    return ExecResult(exit_code=code, stdout=b"", stderr=b"not found\n" if code == 127 else b"")


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
