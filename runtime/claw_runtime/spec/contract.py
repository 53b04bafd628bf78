"""The part of an image's contract that the runtime needs to create, probe, stop and store a slot.

The text is the value of the image's label `io.claw.contract`, or a file; `claw_entrypoint.contract` checks it,
so that the runtime and the image's own first process can never read it differently.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from claw_entrypoint import contract as image_contract
from claw_entrypoint.document import loads
from claw_entrypoint.errors import ContractError

from claw_runtime import units
from claw_runtime.errors import InvalidSpec
from claw_runtime.spec.shapes import gitignore

MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """One name of the values allowlist. `need` is `required`, `optional` or `generated`."""

    need: str
    secret: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one container may use: bytes, cores, processes; None is unlimited."""

    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What the image promises.

    Attributes:
        application, version: Of the program inside, such as `openclaw` and `2026.6.11`.
        argv: The gateway's command; the image's entrypoint runs it by itself.
        port: The gateway's port.
        live_path, ready_path: HTTP paths on it; readiness ignores the parts named in `ignore_failing`.
        ready_bearer: Name of the value that the ready probe sends as its bearer token, None when it sends none.
        ready_timeout, stop_timeout: Seconds.
        state, logs, values: Absolute paths in the container, None where the image has no such volume.
        ephemeral: Paths that are a tmpfs in every container.
        allowlist: The only names that a tenant's values may have.
        exclude: Patterns, as in .gitignore and relative to `state`, of what is never stored.
        logins: Patterns, likewise, of the channels' logins: a program that has them is that user to the channel.
        plugins: Ids of the plugins that are baked into the image.
        tiers: How warm a slot of it can wait, coldest first: of `created`, `entrypoint`, `interpreter`, `prewarmed`.
        capabilities: What the image says it can do (`read_only_root`, `network_none`, …).
    """

    name: str
    image: str
    application: str
    version: str
    argv: tuple[str, ...]
    port: int
    live_path: str
    ready_path: str
    ready_bearer: str | None
    ignore_failing: tuple[str, ...]
    ready_timeout: float
    stop_timeout: int
    state: str
    logs: str | None
    values: str | None
    ephemeral: tuple[str, ...]
    allowlist: Mapping[str, Allowed]
    exclude: tuple[str, ...]
    limits: Limits
    logins: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    tiers: tuple[str, ...] = ("created",)
    capabilities: Mapping[str, bool] = field(default_factory=dict)


def promise(text: str, origin: str) -> Promise:
    """Read a contract.

    Args:
        text: The JSON text.
        origin: The source of the text for messages: an image's reference or a path.

    Raises:
        InvalidSpec: It is not JSON or not a contract, or promises less than a slot needs.
    """
    try:
        contract = image_contract.parse(loads(text))
    except ContractError as error:
        raise InvalidSpec(f"{origin}: {error.brief}", hint=error.hint) from error
    except ValueError as error:
        raise _refusal(origin, "contract is not JSON", str(error)) from error
    port = contract.ports.get("gateway")
    if port is None or port > 65_535:
        raise _refusal(origin, "contract /ports/gateway: is not a port", "the runtime probes and publishes that port")
    state = _one_volume(contract, "state", origin)
    if state is None:
        raise _refusal(origin, "contract /volumes: none is of kind state", "a tenant's state needs a location")
    return Promise(
        name=contract.name,
        image=contract.image,
        application=contract.application,
        version=contract.version,
        argv=contract.exec.argv,
        port=port,
        live_path=contract.probes.live,
        ready_path=contract.probes.ready,
        ready_bearer=contract.probes.bearer or None,
        ignore_failing=contract.probes.ignore_failing,
        ready_timeout=float(contract.probes.timeout),
        stop_timeout=contract.stop.timeout,
        state=state,
        logs=_one_volume(contract, "logs", origin),
        values=_one_volume(contract, "values", origin),
        ephemeral=_volumes(contract, "ephemeral"),
        allowlist={name: Allowed(need=value.need, secret=value.secret) for name, value in contract.values.items()},
        exclude=_patterns(contract.sync_exclude, "exclude", origin),
        logins=_patterns(contract.sync_logins, "logins", origin),
        limits=_limits(contract.limits, origin),
        plugins=tuple(plugin.id for plugin in contract.plugins),
        tiers=_tiers(contract),
        capabilities=dict(contract.capabilities),
    )


def load(path: Path) -> Promise:
    """Read a contract file. Raises `InvalidSpec` as `promise` does, or when it cannot be read."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSpec(
            f"{path}: cannot be read as a contract", why=str(error), hint="correct `contract:` in the workload file"
        ) from error
    return promise(text, str(path))


def _refusal(origin: str, what: str, why: str) -> InvalidSpec:
    return InvalidSpec(f"{origin}: {what}", why=why, hint="correct the contract and rebuild the image")


def _patterns(lines: tuple[str, ...], key: str, origin: str) -> tuple[str, ...]:
    for number, line in enumerate(lines):
        try:
            gitignore(line)
        except ValueError as error:
            raise _refusal(origin, f"contract /sync/{key}/{number}: {error}", "it would match nothing") from error
    return lines


def _volumes(contract: image_contract.Contract, kind: str) -> tuple[str, ...]:
    return tuple(path for path, volume in contract.volumes.items() if volume.kind == kind)


def _one_volume(contract: image_contract.Contract, kind: str, origin: str) -> str | None:
    paths = _volumes(contract, kind)
    if len(paths) > 1:
        raise _refusal(
            origin, f"contract /volumes: {len(paths)} are of kind {kind}", f"{' and '.join(paths)} cannot be one"
        )
    return paths[0] if paths else None


def _tiers(contract: image_contract.Contract) -> tuple[str, ...]:
    """The tiers of an image: without a volume of values, which holds the start gate, only `created`."""
    if not _volumes(contract, "values"):
        return ("created",)
    return ("created", "entrypoint", "interpreter", "prewarmed") if contract.prewarm else ("created", "entrypoint")


def _limits(limits: Mapping[str, object], origin: str) -> Limits:
    memory, cpus, pids = limits.get("memory"), limits.get("cpus"), limits.get("pids")
    unknown = sorted(limits.keys() - {"memory", "cpus", "pids"})
    if unknown:
        raise _refusal(origin, f"contract /limits/{unknown[0]}: is not a limit", "the limits are memory, cpus and pids")
    if cpus is not None and (isinstance(cpus, bool) or not isinstance(cpus, (int, float)) or cpus <= 0):
        raise _refusal(origin, "contract /limits/cpus: is not a number of cores", f"it is {cpus!r}")
    if pids is not None and (isinstance(pids, bool) or not isinstance(pids, int) or pids <= 0):
        raise _refusal(origin, "contract /limits/pids: is not a number of processes", f"it is {pids!r}")
    try:
        return Limits(
            memory=None if memory is None else units.size(memory), cpus=None if cpus is None else float(cpus), pids=pids
        )
    except ValueError as error:
        raise _refusal(origin, "contract /limits/memory: is not a size", str(error)) from error
