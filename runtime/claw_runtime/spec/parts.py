"""The parts of a workload that only its file decides: warmth, probes, hooks, storage and timeouts."""

from dataclasses import dataclass
from typing import Literal

from claw_runtime.spec.ingress import IngressFile
from claw_runtime.spec.lifecycle import AFFINITY_TIMEOUT, FILL_CONCURRENCY, RETRIES, HookFile, HooksFile, PoolFile
from claw_runtime.spec.workload import HealthcheckFile

STOP_TIMEOUT = 10  # Podman's own default


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmth:
    """How many slots wait in each tier, and how many released tenants stay `frozen` or keep their `tree`, at most."""

    created: int = 0
    entrypoint: int = 0
    interpreter: int = 0
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
class Webhook:
    """A path, with everything below it, that anybody may call through the router.

    Attributes:
        body: Bytes at most.
        rate: Requests a minute for one tenant.
    """

    path: str
    methods: tuple[str, ...] = ("POST",)
    body: int = 1 << 20
    rate: int = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncPolicy:
    """When the state is stored, besides at a release.

    Attributes:
        interval: Seconds between the beginnings of two commits of a running tenant, None is none.
        on_mass_delete: What a commit does in which most files are gone: `pin` the generation before, or `refuse`.
    """

    interval: float | None = None
    on_mass_delete: Literal["pin", "refuse"] = "pin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Generations that are kept besides pinned ones: the newest, and the last of each of so many hours and days."""

    keep_last: int = 20
    hourly: int = 24
    daily: int = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncLimits:
    """How much one state may be: bytes, entries, and seconds of reading it; None is no limit."""

    size: int | None = None
    files: int | None = None
    time: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Seconds: a tenant runs at least `min_running` before it is put to sleep, stays frozen at least `min_warm`.

    `drain_timeout` is what a program gets to end by itself before it is killed: `Workload.stop_timeout`, as written.
    `on_boot` is which tenants are claimed again after a reboot of the machine, `restart` whether one is whose program
    ended by itself.
    """

    min_running: float = 0.0
    min_warm: float = 0.0
    drain_timeout: float = float(STOP_TIMEOUT)
    on_boot: Literal["previous", "always", "never"] = "previous"
    restart: Literal["never", "on_failure"] = "never"


def probe(health: HealthcheckFile) -> Probe:
    """How a running workload is probed."""
    said = {name: getattr(health, name) for name in ("interval", "timeout", "retries", "start_period")}
    return Probe(**{name: value for name, value in said.items() if value is not None})


def patience(health: HealthcheckFile, default: float) -> float:
    """Seconds until ready: as set, or until Compose would report the container as unhealthy, or the image's."""
    if health.ready_timeout is not None:
        return health.ready_timeout
    if health.interval is None and health.retries is None and health.start_period is None:
        return default
    found = probe(health)
    return found.start_period + found.retries * (found.interval + found.timeout)


def pool(file: PoolFile) -> Pool:
    """The counts and times of a pool, with defaults filled in."""
    warmth = Warmth(
        created=file.slots,
        entrypoint=file.warmth.entrypoint,
        interpreter=file.warmth.interpreter,
        prewarmed=file.warmth.prewarmed,
        frozen=file.warmth.frozen,
        tree=file.trees,
    )
    return Pool(
        min_size=file.warm,
        max_size=file.max_size,
        warmth=warmth,
        idle_timeout=file.idle_timeout,
        file_idle_ttl=file.file_idle_ttl,
        affinity_timeout=file.affinity_timeout,
        fill_concurrency=file.fill_concurrency,
    )


def hooks(file: HooksFile) -> Hooks:
    """The commands at the two ends of a claim."""
    return Hooks(post_claim=tuple(map(_hook, file.post_claim)), pre_release=tuple(map(_hook, file.pre_release)))


def webhooks(file: IngressFile) -> tuple[Webhook, ...]:
    """The paths that need no credential."""
    return tuple(Webhook(path=one.path, methods=one.methods, body=one.body, rate=one.rate) for one in file.webhooks)


def _hook(file: HookFile) -> Hook:
    retries = (file.retries or RETRIES) if file.on_error == "retry" else 0
    return Hook(command=file.command, timeout=file.timeout, on_error=file.on_error, retries=retries)
