"""The one description of a workload that services use: what its file says, over what its image promises.

The file overrides the contract; sync excludes of both apply. A workload without a contract must set the state's path,
its port and its readiness path itself.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from claw_runtime.logs import redact
from claw_runtime.spec import contract, filters, mappings, mounts, parts
from claw_runtime.spec.contract import Allowed, Limits, Promise
from claw_runtime.spec.loader import Document
from claw_runtime.spec.mappings import SyncMapping
from claw_runtime.spec.mounts import HostBind, Seed
from claw_runtime.spec.parts import (
    STOP_TIMEOUT,
    Hook,
    Hooks,
    Policy,
    Pool,
    Probe,
    Retention,
    SyncLimits,
    SyncPolicy,
    Warmth,
    Webhook,
)
from claw_runtime.spec.places import StateMount, state_mounts
from claw_runtime.spec.workload import TENANT_VARIABLE, WorkloadFile
from claw_runtime.tenancy import TenantId

__all__ = [
    "Hook",
    "Hooks",
    "HostBind",
    "Policy",
    "Pool",
    "Probe",
    "Retention",
    "Seed",
    "StateMount",
    "SyncLimits",
    "SyncMapping",
    "SyncPolicy",
    "Warmth",
    "Webhook",
    "Workload",
    "make",
    "plan",
]

_T = TypeVar("_T")

READY_TIMEOUT = 60.0
EPHEMERAL = ("/tmp", "/var/tmp")  # noqa: S108  (paths in the container)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A complete workload.

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
        logins: Patterns, likewise, of channels' logins, which a copy for another tenant leaves out.
        webhooks: Paths that need no credential.
        mappings: What happens to parts of the state; `rest` for files that no mapping names.
        extra_mounts: Directories within the state that are mounted at a place of their own too.
        seeds: Files with which a tenant without state starts.
        user: The user that the file names. The process always runs as the host's user, mapped (keep-id).
        tiers: How warm a slot of this workload can wait, coldest first.
        isolation: How tenants are kept apart: `keep-id` is the only way yet.
        init: Whether a small init is process 1.
        runtime: Name of the OCI runtime, None is Podman's own.
        seccomp: Name of one of claw's own profiles of system calls, or the absolute path of another.
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
    logins: tuple[str, ...]
    binds: tuple[HostBind, ...]
    extra_mounts: tuple[StateMount, ...]
    seeds: tuple[Seed, ...]
    user: str | None
    pool: Pool
    tiers: tuple[str, ...]
    hooks: Hooks
    policy: Policy
    webhooks: tuple[Webhook, ...]
    mappings: tuple[SyncMapping, ...]
    rest: Literal["store", "ignore"]
    sync_policy: SyncPolicy
    sync_limits: SyncLimits
    retention: Retention
    isolation: Literal["keep-id"]
    init: bool
    runtime: str | None
    seccomp: str
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
    if port is None and file.ingress.webhooks:
        raise document.refusal(
            ("ingress", "webhooks"),
            "ingress.webhooks without a port",
            why="the router passes requests on to the published port, and this workload has none",
            hint="add ports: [{container: PORT}], or leave webhooks out",
        )
    environment, values = _split_environment(document, promise)
    logs, secrets = file.volumes.get("logs"), file.volumes.get("secrets")
    limits, extra_mounts = file.deploy.resources.limits, state_mounts(file)
    own = promise.limits if promise else Limits()
    stop_timeout = file.policy.drain_timeout or (promise.stop_timeout if promise else STOP_TIMEOUT)
    workload = Workload(
        id=file.id,
        name=file.name or file.id,
        image=file.image,
        command=file.command or (),
        port=port,
        ready_path=ready_path,
        probe_command=file.healthcheck.command,
        probe=parts.probe(file.healthcheck),
        ready_bearer=promise.ready_bearer if promise else None,
        ignore_failing=_either(file.healthcheck.ignore_failing, promise.ignore_failing if promise else ()),
        ready_timeout=parts.patience(file.healthcheck, promise.ready_timeout if promise else READY_TIMEOUT),
        stop_timeout=math.ceil(stop_timeout),
        state_target=state,
        logs_target=logs.target if logs else promise.logs if promise else None,
        values_target=secrets.target if secrets else promise.values if promise else None,
        ephemeral=promise.ephemeral if promise else EPHEMERAL,
        read_only=file.read_only,
        network=file.reach,
        limits=Limits(
            memory=_either(limits.memory, own.memory),
            cpus=_either(limits.cpus, own.cpus),
            pids=_either(limits.pids, own.pids),
        ),
        environment=environment,
        values=values,
        allowlist=promise.allowlist if promise else {},
        exclude=tuple(dict.fromkeys((*(promise.exclude if promise else ()), *file.sync.exclude))),
        logins=tuple(dict.fromkeys((*(promise.logins if promise else ()), *file.sync.logins))),
        binds=mounts.binds(file),
        extra_mounts=extra_mounts,
        seeds=mounts.seeds(document),
        user=file.user,
        pool=parts.pool(file.pool),
        tiers=_tiers(file, promise),
        hooks=parts.hooks(file.hooks),
        policy=Policy(**file.policy.model_dump() | {"drain_timeout": float(stop_timeout)}),
        webhooks=parts.webhooks(file.ingress),
        mappings=mappings.resolved(document, state, extra_mounts),
        rest=file.sync.rest,
        sync_policy=SyncPolicy(interval=file.sync.policy.interval, on_mass_delete=file.sync.policy.on_mass_delete),
        sync_limits=SyncLimits(**file.sync.limits.model_dump()),
        retention=Retention(**file.sync.retention.model_dump()),
        isolation=file.isolation,
        init=file.init,
        runtime=file.runtime,
        seccomp=filters.profile(document),
        promise=promise,
    )
    _check_tiers(document, workload)
    mounts.check(document, _targets(workload))
    return workload


def _either(ours: _T | None, theirs: _T) -> _T:
    return theirs if ours is None else ours


def _required(document: Document, promise: Promise | None) -> tuple[int | None, str, str]:
    """Port, ready path and state target, which have no default; a probe command needs no path and perhaps no port."""
    file = document.workload
    port = file.ports[0].container if file.ports else file.healthcheck.port
    if port is not None and file.healthcheck.port not in (None, port):
        raise document.refusal(
            ("healthcheck", "port"),
            f"healthcheck.port {file.healthcheck.port} is not the published port {port}",
            why="the runtime probes the workload through its published port",
            hint="leave healthcheck.port out, or make both the same",
        )
    tested = file.healthcheck.test is not None
    path = "" if tested else file.healthcheck.path
    state = file.volumes["state"].target if "state" in file.volumes else None
    if promise is not None:
        return _either(port, promise.port), _either(path, promise.ready_path), _either(state, promise.state)
    wanted = {"ports": port or tested or None, "healthcheck.path or .test": path, "volumes.state.target": state}
    if path is not None and state is not None and wanted["ports"]:
        return port, path, state
    missing = " and ".join(name for name, value in wanted.items() if value is None)
    raise document.refusal(
        (),
        f"{missing} missing",
        why=f"the image {file.image} has no contract that sets it",
        hint=f"add {missing}, or name a contract.json with `contract:`",
    )


def _tiers(file: WorkloadFile, promise: Promise | None) -> tuple[str, ...]:
    """The possible tiers: only the image's own first process can wait at the start gate."""
    secrets = file.volumes.get("secrets")
    if promise is None or file.command or (secrets is not None and secrets.target != promise.values):
        return ("created",)
    return promise.tiers


def _check_tiers(document: Document, workload: Workload) -> None:
    """Refuse a count for slots that could never be made."""
    for tier in ("entrypoint", "interpreter", "prewarmed"):
        if getattr(workload.pool.warmth, tier) and tier not in workload.tiers:
            own = document.workload.command is not None
            raise document.refusal(
                ("pool", "warmth", tier),
                f"pool.warmth.{tier}: no slot of this workload can wait as {tier}",
                why="only the image's own first process can wait, and `command` takes its place"
                if own
                else f"the image {workload.image} offers {', '.join(workload.tiers)}",
                hint="leave `command` out, or the count" if own else "leave the count out, or build the image again",
            )


def _targets(workload: Workload) -> dict[str, str | None]:
    """Every mount point by name."""
    return {
        "state": workload.state_target,
        "logs": workload.logs_target,
        "secrets": workload.values_target,
        **{f"tmpfs {path}": path for path in workload.ephemeral},
        **{bind.name: bind.target for bind in workload.binds},
        **{mount.name: mount.target for mount in workload.extra_mounts},
    }


def _split_environment(document: Document, promise: Promise | None) -> tuple[dict[str, str], dict[str, str]]:
    """Plain variables, and the allowlisted ones, which reach the container as values and not as variables."""
    allowlist = promise.allowlist if promise else {}
    plain: dict[str, str] = {}
    values: dict[str, str] = {}
    for name, written in document.workload.environment.items():
        text = document.workload.filled(written)
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
