"""The seams: what the services need of the outside world, as protocols.

An adapter (`engine/`, `objects/`, `db/`) implements one of these; `tests/contracts/` holds one conformance suite for
each, run on the fake and on the real thing. Services never see podman, boto3 or sqlite3.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

ContainerState = Literal["created", "initialized", "running", "paused", "exited", "other"]
Network = Literal["private", "none"]


# --- engine ---------------------------------------------------------------------------------------------------------


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
        memory, cpus, pids: Limits (bytes, cores, processes); None is unlimited.
        stop_timeout: Seconds between SIGTERM and SIGKILL.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult:
    """What a command inside a container answered."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class Engine(Protocol):
    """Containers and images.

    Every method raises `EngineUnavailable` when the engine does not answer, `EngineFailed` when it refuses.
    """

    def info(self) -> EngineInfo: ...

    def image(self, reference: str) -> Image:
        """Raises `ImageMissing`."""

    def map_image(self, reference: str) -> None:
        """Do once, ahead of time, the slow copy that the first keep-id container of an image costs (7–11 s for
        490 MB on native rootless overlay). Raises `ImageMissing`."""

    def create(self, spec: ContainerSpec) -> str:
        """Create a container, started by nobody yet; its id. Raises `ImageMissing`, `PortTaken`."""

    def initialize(self, container: str) -> None:
        """Prepare namespaces, mounts and network, run no code of the image; state becomes `initialized`."""

    def start(self, container: str) -> None:
        """Run a created or initialised container. Raises `NotClaimed` when it is gone."""

    def stop(self, container: str, timeout: int) -> int | None:
        """SIGTERM, wait `timeout` seconds, SIGKILL; the exit code. A container that is gone or ended is fine."""

    def remove(self, container: str) -> None:
        """Kill and delete at once. A container that is gone is fine."""

    def inspect(self, container: str) -> Container | None:
        """None when there is none of that id or name."""

    def list(self, labels: Mapping[str, str]) -> Sequence[Container]:
        """All containers, in any state, that carry all these labels."""

    def execute(self, container: str, argv: Sequence[str], *, environment: Mapping[str, str] | None = None) -> ExecResult:
        """Run a command in a running container and wait for it."""

    def logs(self, container: str, *, tail: int | None = None) -> bytes:
        """Standard output and error of the container so far, the last `tail` lines of it."""

    def exec_argv(self, container: str, argv: Sequence[str], *, interactive: bool, tty: bool, detach: bool) -> list[str]:
        """The host command that runs `argv` in the container with this terminal; for `execvp`."""

    def logs_argv(self, container: str, *, follow: bool, tail: int | None, since: str | None) -> list[str]:
        """The host command that prints the container's log; for `execvp`."""


# --- object store -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """One entry of a listing. `size` in bytes."""

    key: str
    size: int
    etag: str


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

    def delete(self, key: str) -> None:
        """A key that is gone is fine."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All keys that start with `prefix`, in byte order, over as many pages as it takes."""


class ObjectMissing(Exception):
    """No object has that key."""


class PreconditionFailed(Exception):
    """The object is not as the conditional write expected; nothing was written."""


class AmbiguousWrite(Exception):
    """The connection broke after the request was sent: the write may or may not have happened."""


# --- clock --------------------------------------------------------------------------------------------------------------


class Clock(Protocol):
    """Time, injected so that tests own it."""

    def now(self) -> float:
        """Seconds since the epoch; for records, never for decisions."""

    def monotonic(self) -> float:
        """Seconds that only grow; for every decision."""

    def sleep(self, seconds: float) -> None: ...
