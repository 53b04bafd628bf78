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


@dataclass(frozen=True, slots=True, kw_only=True)
class HostBind:
    """A host directory that every container of the workload sees, read-only, at `target`."""

    name: str
    source: Path
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Slots that wait warm, containers at most, and seconds without traffic until a tenant sleeps.

    Nothing sleeps yet: `idle_timeout` is read, for the idle service to come.
    """

    min_size: int
    max_size: int
    idle_timeout: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What to run, whole.

    Attributes:
        id: Also the name of the pool.
        command: Arguments for the image's entrypoint; empty means the image's own.
        port: The port that is probed, and published on loopback.
        ready_path: HTTP path that answers 200 when ready; failing parts named in `ignore_failing` do not count.
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
        promise: The image's contract, None when there is none.
    """

    id: str
    name: str
    image: str
    command: tuple[str, ...]
    port: int
    ready_path: str
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
    pool: Pool
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
        pool=Pool(min_size=file.pool.min_size, max_size=file.pool.max_size, idle_timeout=file.pool.idle_timeout),
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
