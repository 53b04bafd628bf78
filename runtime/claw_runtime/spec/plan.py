"""The one description of a workload that services use: what its file says, over what its image promises.

The file wins; the contract fills in; sync excludes of both count. A workload without a contract must say by itself
where its state lies, which port it serves and which path tells that it is ready.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from claw_runtime.logs import redact
from claw_runtime.spec import contract
from claw_runtime.spec.contract import Allowed, Limits, Promise
from claw_runtime.spec.loader import Document
from claw_runtime.spec.workload import RESERVED_VOLUMES, TENANT_VARIABLE, WorkloadFile
from claw_runtime.tenancy import TenantId

_T = TypeVar("_T")

STOP_TIMEOUT = 10  # Podman's own default
READY_TIMEOUT = 60.0
EPHEMERAL = ("/tmp", "/var/tmp")  # noqa: S108  (paths in the container)
AFFINITY_TIMEOUT = 600.0
FILL_CONCURRENCY = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class HostBind:
    """A host directory that every container of the workload sees, read-only, at `target`."""

    name: str
    source: Path
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StateMount:
    """A directory of the tenant's own that is kept in its state, at `subdirectory`, and is mounted at `target` as well.

    The state's own mount shows it too. A slot makes it empty, ahead; the claim fills it and never replaces it, since
    the container has that very directory mounted.
    """

    name: str
    subdirectory: str
    target: str
    read_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """A host directory whose files are copied into a tenant's state at its first claim, when it has no state at all.

    `subdirectory` is relative to the state, empty for the state itself.
    """

    source: Path
    subdirectory: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmth:
    """How many slots wait in each tier, and how many released tenants stay `frozen` or keep their `tree`, at most."""

    slot: int = 0
    parked: int = 0
    waiting: int = 0
    prewarmed: int = 0
    frozen: int = 0
    tree: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Slots that wait warm, containers at most, and how long a tenant keeps what it has.

    Attributes:
        min_size: Slots that wait, of all tiers: always the sum of the first four counts of `warmth`.
        idle_timeout: Seconds without traffic until a tenant sleeps, None is never.
        file_idle_ttl: Seconds without a change in its state until a tenant sleeps, None is never.
        affinity_timeout: Seconds after its release in which a tenant finds its frozen container or its tree again; 0
            keeps neither.
        fill_concurrency: Slots that are made at the same time.
    """

    min_size: int
    max_size: int
    warmth: Warmth
    idle_timeout: float | None = None
    file_idle_ttl: float | None = None
    affinity_timeout: float = AFFINITY_TIMEOUT
    fill_concurrency: int = FILL_CONCURRENCY


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """How a running workload is probed: seconds, and how many failures in a row, after `start_period`, are too many."""

    interval: float = 30.0
    timeout: float = 5.0
    retries: int = 3
    start_period: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A command that runs in the tenant's container.

    Attributes:
        timeout: Seconds that each attempt may take.
        on_error: `fail` ends the claim or release with an error, `continue` only logs it, `retry` runs it again, up to
            `retries` times, and then fails.
    """

    command: tuple[str, ...]
    timeout: float = 30.0
    on_error: Literal["fail", "continue", "retry"] = "fail"
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Commands after the workload is ready and before the claim answers, and before a release stops the workload."""

    post_claim: tuple[Hook, ...] = ()
    pre_release: tuple[Hook, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncMapping:
    """A part of the container that the file wants stored. The whole state is stored whatever this says."""

    path: str
    pattern: str | None = None
    direction: Literal["bidirectional", "upload", "download"] = "bidirectional"
    mode: Literal["sync", "copy"] = "sync"


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncPolicy:
    """When the state is stored; `interval` is seconds between two commits of a running tenant, None is none."""

    on_claim: bool = True
    on_release: bool = True
    manual: bool = True
    interval: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Seconds: a tenant runs at least `min_running` before it is put to sleep, stays frozen at least `min_warm`.

    `drain_timeout` is what a program gets to end by itself before it is killed: `Workload.stop_timeout`, as written.
    """

    min_running: float = 0.0
    min_warm: float = 0.0
    drain_timeout: float = float(STOP_TIMEOUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What to run, whole.

    Attributes:
        id: Also the name of the pool.
        command: Arguments for the image's entrypoint; empty means the image's own.
        port: The port that is probed, and published on loopback; None only when `probe_command` tells.
        ready_path: HTTP path that answers 200 when ready, empty when `probe_command` tells; failing parts named in
            `ignore_failing` do not count.
        probe_command: Command that runs in the container and ends with 0 when it is ready; in place of `ready_path`.
        probe: How often, and how patiently, a running container is probed.
        ready_bearer: Name of the value that the probe sends as its bearer token: OpenClaw names failing parts only to
            those who may know, and a request through a published port is not local (measured on 2026.6.11).
        ready_timeout, stop_timeout: Seconds.
        state_target: Where the tenant's state is mounted; `logs_target` likewise, None when there is none.
        values_target: Where the directory with the values file is mounted, None when the image reads none.
        ephemeral: Paths that are a tmpfs.
        environment: Plain variables, known before a tenant is, visible in `podman inspect`.
        values: Allowlisted values that the file gives to every tenant; may hold `${tenantId}`, see `values_for`.
        allowlist: The only names that values may have; empty without a contract.
        exclude: Patterns, as in .gitignore and relative to the state, of what is never stored.
        extra_mounts: Directories within the state that are mounted at a place of their own too.
        seeds: What a tenant without state begins with.
        user: The user that the file names. The process always runs as the host's user, mapped (keep-id).
        tiers: How warm a slot of this workload can wait, coldest first.
        isolation: How tenants are kept apart: `keep-id` is the only way yet.
        runtime: Name of the OCI runtime, None is Podman's own.
        promise: The image's contract, None when there is none.
    """

    id: str
    name: str
    image: str
    command: tuple[str, ...]
    port: int | None
    ready_path: str
    probe_command: tuple[str, ...] | None
    probe: Probe
    ready_bearer: str | None
    ignore_failing: tuple[str, ...]
    ready_timeout: float
    stop_timeout: int
    state_target: str
    logs_target: str | None
    values_target: str | None
    ephemeral: tuple[str, ...]
    read_only: bool
    network: Literal["private", "none"]
    limits: Limits
    environment: Mapping[str, str]
    values: Mapping[str, str] = field(repr=False)
    allowlist: Mapping[str, Allowed]
    exclude: tuple[str, ...]
    binds: tuple[HostBind, ...]
    extra_mounts: tuple[StateMount, ...]
    seeds: tuple[Seed, ...]
    user: str | None
    pool: Pool
    tiers: tuple[str, ...]
    hooks: Hooks
    policy: Policy
    mappings: tuple[SyncMapping, ...]
    sync_policy: SyncPolicy
    isolation: Literal["keep-id"]
    runtime: str | None
    promise: Promise | None = field(repr=False)

    def values_for(self, tenant: TenantId) -> dict[str, str]:
        """The file's allowlisted values with `${tenantId}` filled in."""
        return {name: text.replace(TENANT_VARIABLE, tenant) for name, text in self.values.items()}


def make(document: Document, label: str | None = None) -> Workload:
    """The plan of a workload file and its image.

    Args:
        label: Text of the image's label `io.claw.contract`, None when it carries none; only then is the file that
            `contract:` names read, relative to the workload file.

    Raises:
        InvalidSpec: The contract is not valid, or both together leave something open or contradict.
    """
    file = document.workload
    if label is not None:
        return plan(document, contract.promise(label, file.image))
    if file.contract is not None:
        return plan(document, contract.load(document.path.parent / file.contract))
    return plan(document, None)


def plan(document: Document, promise: Promise | None) -> Workload:
    """Merge a workload file with its image's promise. Raises `InvalidSpec`."""
    file = document.workload
    port, ready_path, state = _required(document, promise)
    environment, values = _split_environment(document, promise)
    logs, secrets = file.volumes.get("logs"), file.volumes.get("secrets")
    health, limits = file.healthcheck, file.deploy.resources.limits
    own = promise.limits if promise else Limits()
    workload = Workload(
        id=file.id,
        name=file.name or file.id,
        image=file.image,
        command=file.command or (),
        port=port,
        ready_path=ready_path,
        probe_command=None,
        probe=Probe(),
        ready_bearer=promise.ready_bearer if promise else None,
        ignore_failing=_either(health.ignore_failing, promise.ignore_failing if promise else ()),
        ready_timeout=_either(health.timeout, promise.ready_timeout if promise else READY_TIMEOUT),
        stop_timeout=promise.stop_timeout if promise else STOP_TIMEOUT,
        state_target=state,
        logs_target=logs.target if logs else promise.logs if promise else None,
        values_target=secrets.target if secrets else promise.values if promise else None,
        ephemeral=promise.ephemeral if promise else EPHEMERAL,
        read_only=file.read_only,
        network=file.network,
        limits=Limits(
            memory=_either(limits.memory, own.memory),
            cpus=_either(limits.cpus, own.cpus),
            pids=_either(limits.pids, own.pids),
        ),
        environment=environment,
        values=values,
        allowlist=promise.allowlist if promise else {},
        exclude=tuple(dict.fromkeys((*(promise.exclude if promise else ()), *file.sync.exclude))),
        binds=_binds(file),
        extra_mounts=(),
        seeds=(),
        user=None,
        pool=Pool(
            min_size=file.pool.min_size,
            max_size=file.pool.max_size,
            warmth=Warmth(slot=file.pool.min_size, tree=file.pool.max_size),
            idle_timeout=file.pool.idle_timeout,
        ),
        tiers=promise.tiers if promise and not file.command else ("slot",),
        hooks=Hooks(),
        policy=Policy(drain_timeout=float(promise.stop_timeout if promise else STOP_TIMEOUT)),
        mappings=(),
        sync_policy=SyncPolicy(),
        isolation="keep-id",
        runtime=None,
        promise=promise,
    )
    _check_targets(document, workload)
    return workload


def _either(ours: _T | None, theirs: _T) -> _T:
    return theirs if ours is None else ours


def _required(document: Document, promise: Promise | None) -> tuple[int, str, str]:
    """Port, ready path and state target, which nobody can guess."""
    file = document.workload
    port = file.ports[0].container if file.ports else file.healthcheck.port
    if port is not None and file.healthcheck.port not in (None, port):
        raise document.refusal(
            ("healthcheck", "port"),
            f"healthcheck.port {file.healthcheck.port} is not the published port {port}",
            why="the workload is probed through the port that it publishes",
            hint="leave healthcheck.port out, or make both the same",
        )
    path = file.healthcheck.path
    state = file.volumes["state"].target if "state" in file.volumes else None
    if promise is not None:
        return _either(port, promise.port), _either(path, promise.ready_path), _either(state, promise.state)
    if port is not None and path is not None and state is not None:
        return port, path, state
    wanted = {"ports": port, "healthcheck.path": path, "volumes.state.target": state}
    missing = " and ".join(name for name, value in wanted.items() if value is None)
    raise document.refusal(
        (),
        f"{missing} missing",
        why=f"the image {file.image} carries no contract that says it",
        hint=f"add {missing}, or name a contract.json with `contract:`",
    )


def _split_environment(document: Document, promise: Promise | None) -> tuple[dict[str, str], dict[str, str]]:
    """Plain variables, and the allowlisted ones, which reach the container as values and not as variables."""
    allowlist = promise.allowlist if promise else {}
    plain: dict[str, str] = {}
    values: dict[str, str] = {}
    for name, text in document.workload.environment.items():
        if name in allowlist:
            values[name] = text
            if allowlist[name].secret:
                redact(text)
        elif TENANT_VARIABLE in text:
            raise document.refusal(
                ("environment", name),
                f"environment.{name} uses {TENANT_VARIABLE}, which it cannot",
                why="a slot and its variables are made before its tenant is known; only values come with the claim",
                hint=f"use one of the image's values: {', '.join(sorted(allowlist)) or 'it has none'}",
            )
        else:
            plain[name] = text
    return plain, values


def _binds(file: WorkloadFile) -> tuple[HostBind, ...]:
    return tuple(
        HostBind(name=name, source=Path(volume.source), target=volume.target)
        for name, volume in file.volumes.items()
        if name not in RESERVED_VOLUMES and volume.source is not None
    )


def _check_targets(document: Document, workload: Workload) -> None:
    """Refuse mounts that hide one another; the file's own were compared already, the contract's were not."""
    targets = {"state": workload.state_target, "logs": workload.logs_target, "secrets": workload.values_target}
    targets |= {f"tmpfs {path}": path for path in workload.ephemeral} | {
        bind.name: bind.target for bind in workload.binds
    }
    for name in document.workload.volumes:
        for other, target in targets.items():
            if other != name and target is not None and _overlap(targets[name] or "", target):
                raise document.refusal(
                    ("volumes", name, "target"),
                    f"volumes.{name} overlaps with {other} at {target}",
                    why="every container of this workload has that path mounted already",
                    hint="choose another target",
                )


def _overlap(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")
