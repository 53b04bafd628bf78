"""Containers and their images, as an engine shows them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

ContainerState = Literal["created", "initialized", "running", "paused", "exited", "other"]

LIVE: frozenset[ContainerState] = frozenset({"running", "paused"})
"""States of a container whose program exists."""

PAUSE_SECONDS = 3.0
"""Seconds for which a command waits for a paused container: longer than a commit pauses one."""
Network = Literal["private", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """One host directory inside the container."""

    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """What to create. Hardening is not an option: every container is cap-drop all, no-new-privileges, and
    knows two users: the host's, as which its program runs, and the owner of the image's files.

    Attributes:
        name: Container name, unique on the host.
        image: Reference of an image that is in the engine's store; nothing is ever pulled.
        command: Arguments for the image's entrypoint; empty means the image's own.
        entrypoint: The program and its first arguments, in place of the image's entrypoint; None leaves that.
        environment: Plain, non-secret variables (they are visible in `podman inspect`).
        tmpfs: Absolute paths that become tmpfs with mode 1777.
        port: Container port published on a free port of 127.0.0.1, or None.
        network: `private` is a network namespace of its own with outbound access; `none` has only loopback.
        memory, cpus, pids: Limits (bytes, cores, processes); None leaves it to the engine. Swap beyond `memory` is
            off. `pids` 0 is no limit, not even the engine's own default.
        stop_timeout: Seconds between SIGTERM and SIGKILL.
        init: Whether a small init is process 1. It reaps orphans, forwards signals, and ends with the program's
            exit code. Otherwise the program itself is process 1.
        runtime: Name of the OCI runtime that isolates it (`crun`, `runc`, `runsc`, `krun`…); None is the engine's own.
        seccomp: Text of the profile of system calls, in the engine's form; None is claw's own `strict`.
        home: Home of the program's user, for programs that look it up instead of reading HOME; empty leaves it to
            the engine.
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
    init: bool = True
    runtime: str | None = None
    seccomp: str | None = None
    home: str = ""
    entrypoint: Sequence[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container as the engine sees it now. `oom_killed`: the kernel killed a process of it at its memory limit; only
    `Engine.inspect` tells."""

    id: str
    name: str
    state: ContainerState
    image_id: str
    labels: Mapping[str, str]
    pid: int = 0
    exit_code: int | None = None
    host_port: int | None = None
    oom_killed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image in the engine's store. `digest` is `sha256:…` of its manifest, `size` bytes on disk.

    `inherits` has the entries of its environment without a value: an engine fills them with variables of its own, so no
    container is created from an image that has one. `home` is HOME of its environment, empty without one.
    """

    id: str
    digest: str
    size: int
    labels: Mapping[str, str]
    names: Sequence[str] = ()
    inherits: Sequence[str] = ()
    home: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What the engine can do here.

    Attributes:
        seccomp: Whether it can filter system calls; without, it creates nothing.
        network: The helper that gives containers a network; empty if it has none.
    """

    version: str
    rootless: bool
    storage_driver: str
    cgroup_version: str
    cgroup_controllers: Sequence[str]
    runtime: str
    seccomp: bool = True
    network: str = "slirp4netns"

    @property
    def enforceable_limits(self) -> frozenset[str]:
        """Those of `memory`, `cpus` and `pids` that the kernel enforces for this user's containers."""
        controllers = {"memory": "memory", "cpus": "cpu", "pids": "pids"}
        return frozenset(limit for limit, name in controllers.items() if name in self.cgroup_controllers)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult:
    """What a command inside a container answered: of each stream the last 1 MiB.

    `timed_out` says that it was killed because its time was over; `exit_code` is 137 then.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    timed_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the processes of a container use now.

    Attributes:
        memory: Bytes. Of kind `cgroup` it is what the kernel charges to the container, page cache included; of kind
            `rss`, where there is no memory controller, the sum of its processes' resident sets, in which a page that
            two of them share counts twice.
        cpu: Seconds of processor time since it started; of kind `rss` without its processes that have ended.
    """

    container: Container
    memory: int
    kind: Literal["cgroup", "rss"]
    cpu: float


class Lines(Protocol):
    """The lines of a container's output, as they come; an iterator that may be closed from any thread."""

    def __iter__(self) -> Iterator[bytes]: ...

    def __next__(self) -> bytes:
        """The next whole line without its newline. Raises `EngineUnavailable` when the engine went away meanwhile."""

    def close(self) -> None:
        """Free the connection; a thread that waits for a line gets the end. May be called twice."""


class Engine(Protocol):
    """Containers and images.

    Every method raises `EngineUnavailable` when the engine does not answer, `EngineFailed` when it refuses.
    """

    def info(self, *, fresh: bool = True) -> EngineInfo:
        """Ask the engine (0.2–0.7 s); not `fresh` is its last answer where there is one, at no cost."""

    def image(self, reference: str) -> Image:
        """Raises `ImageMissing`."""

    def map_image(self, reference: str) -> None:
        """Do once, ahead of time, the slow copy that the first container of an image costs (7–11 s for
        490 MB on native rootless overlay). Raises `ImageMissing`."""

    def create(self, spec: ContainerSpec) -> str:
        """Create a container, started by nobody yet; its id. Raises `ImageMissing`; `EngineFailed` for a limit that is
        not among `EngineInfo.enforceable_limits`, without `EngineInfo.seccomp`, and for an image that `inherits`
        variables."""

    def initialize(self, container: str) -> None:
        """Prepare namespaces, mounts and network, run no code of the image; state becomes `initialized`.

        The port was chosen at `create` and is bound here. Raises `PortTaken` (remove the container and create it
        again), `NotClaimed` when it is gone."""

    def start(self, container: str) -> None:
        """Run a created or initialised container; a running one is fine. Raises `NotClaimed` when it is gone,
        `PortTaken` when it was not initialised before."""

    def stop(self, container: str, timeout: int) -> None:
        """SIGTERM, wait `timeout` seconds, SIGKILL. A container that is gone or ended is fine.

        A paused one gets the signal before it is thawed, so that its program does nothing else first."""

    def pause(self, container: str) -> None:
        """Freeze all processes of a running container; a paused one is fine. Memory and ports stay theirs.

        Raises `NotClaimed` when it is gone, `EngineFailed` when it does not run or this host cannot freeze."""

    def unpause(self, container: str) -> None:
        """Thaw a paused container; a running one is fine. Raises `NotClaimed` when it is gone, `EngineFailed` when it
        does not run."""

    def remove(self, container: str) -> None:
        """Kill and delete at once, from any state. A container that is gone is fine."""

    def inspect(self, container: str) -> Container | None:
        """None when there is none of that id or name."""

    def is_watched(self, container: Container) -> bool | None:
        """Whether the container's process exists, and what works beside it: its monitor and the helper of its port.

        This does not ask the engine, and takes some 50 µs. None when the process cannot be seen: it has ended, or this
        host hides it."""

    def list(self, labels: Mapping[str, str]) -> Sequence[Container]:
        """All containers, in any state, that carry all these labels."""

    def execute(
        self,
        container: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> ExecResult:
        """Run a command in a running container and wait for it: `timeout` seconds, then it and what it started are
        killed. None waits until it ends. If the container is paused, the command begins when it runs again. Raises
        `NotClaimed` when the container is gone, `EngineFailed` when it is paused for `PAUSE_SECONDS` or has ended."""

    def logs(self, container: str, *, tail: int | None = None) -> bytes:
        """Standard output and error of the container so far, the last `tail` lines of it."""

    def lines(
        self, container: str, *, tail: int | None = None, since: float | None = None, follow: bool = False
    ) -> Lines:
        """Lines of standard output and error, in the order in which they came.

        Args:
            tail: Begin with the last so many; None begins with the first.
            since: Leave out what was written before, in seconds since the epoch.
            follow: Follow the log until the container ends or the lines are closed.

        Raises `NotClaimed` when the container is gone."""

    def supervise(self) -> None:
        """Replace a service of the engine's own that runs and does not answer; to be called every few seconds.

        Containers keep running. Calls that wait for the hung service fail; the next ones reach the new one."""

    def ping(self) -> None:
        """A question that costs about a millisecond. Raises `EngineUnavailable` when the engine does not answer it."""

    def stats(self, labels: Mapping[str, str]) -> Sequence[Usage]:
        """What the containers that carry all these labels and have a process use; some milliseconds for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What the host gives its user.

    Attributes:
        podman, init: Paths of programs, None if there is none.
        room: Bytes free for the data.
        keys: Kernel keys that this user may have; a keyring takes one. None if the kernel does not tell.
        selinux: Whether SELinux is enforcing.
        inotify: inotify instances that this user may have, in all containers together. None likewise.
        cgroup_v2: Whether cgroup v2 is the only hierarchy.
    """

    user: str
    uid: int
    podman: str | None
    init: str | None
    subordinate_uids: int
    subordinate_gids: int
    tun: bool
    systemd: bool
    room: int
    writable: bool
    keys: int | None = None
    inotify: int | None = None
    selinux: bool = False
    cgroup_v2: bool = True
