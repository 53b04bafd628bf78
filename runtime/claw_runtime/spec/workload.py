"""The workload file as a person writes it: pydantic models, frozen, strict, and closed to unknown keys.

Names and shapes follow Compose where Compose has one (`deploy.resources.limits`, `ports`, `volumes`, `healthcheck`).
Values that the image's contract sets may be left out; `plan.py` merges both. Messages here have no position:
`loader.py` puts file, line and column in front. Descriptions are for people: editors show them, and docs/WORKLOAD.md
has them word for word.
"""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from claw_runtime.errors import InvalidTenantId
from claw_runtime.seccomp import profiles
from claw_runtime.spec.ingress import IngressFile
from claw_runtime.spec.lifecycle import HooksFile, PolicyFile, PoolFile
from claw_runtime.spec.shapes import (
    Closed,
    Command,
    Cores,
    Duration,
    Listed,
    Misplaced,
    PlainText,
    Port,
    Size,
    Target,
    Text,
    VariableName,
    Words,
    uses,
)
from claw_runtime.spec.sync import SyncFile
from claw_runtime.spec.zones import mistake
from claw_runtime.tenancy import tenant_id

SMALLEST_MEMORY = 6 * 1024 * 1024  # Podman refuses less
RESERVED_VOLUMES = ("state", "logs", "secrets", "comm")
TENANT_VARIABLE = "${tenantId}"

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,38}[a-z0-9])?")
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}")
_USER = re.compile(r"[a-z0-9_][a-z0-9_-]{0,31}(:[a-z0-9_][a-z0-9_-]{0,31})?")
_PRIVATE = ("private", "bridge", "default")


class VolumeFile(Closed):
    """One mount. `state`, `logs`, `secrets` and `comm` are the tenant's own; other names bring a host directory."""

    target: Target = Field(description="Absolute path in the container.")
    source: str | None = Field(
        default=None, description="Directory of the host, mounted read-only, the same for every tenant."
    )
    read_only: bool | None = Field(
        default=None,
        description="Whether the program can only read it. Default: for `secrets` and host directories.",
    )
    per_tenant: bool = Field(
        default=False,
        description="A directory of the tenant's own, kept with its state, in place of `source`. Always so for `comm`.",
    )
    seed: str | None = Field(
        default=None,
        min_length=1,
        description="Host directory, relative to this file, whose files a tenant begins with: for `state`, `comm` and"
        " `per_tenant`.",
    )

    @field_validator("source")
    @classmethod
    def _check_source(cls, value: str | None) -> str | None:
        if value is not None and (not value.startswith("/") or "/../" in f"{value}/" or "\0" in value):
            raise ValueError(f"{value!r} is not a directory on the host: write an absolute path without '..'")
        return value

    @field_validator("seed")
    @classmethod
    def _check_seed(cls, value: str | None) -> str | None:
        if value is not None and ("/../" in f"/{value}/" or "\0" in value):
            raise ValueError(f"{value!r} is not a directory beside this file: write a path without '..'")
        return value


class HealthcheckFile(Closed):
    """When a workload is ready, and how it is looked after: by an HTTP path, or by a command in its container."""

    path: str | None = Field(
        default=None, pattern=r"^/[\x21-\x7e]*$", description="`GET` of it answers 200 when the program is ready."
    )
    port: Port | None = Field(default=None, description="Port of `path`. Default: that of `ports`.")
    ignore_failing: Words | None = Field(
        default=None, description="Parts that a 503 may name as failing while the program counts as ready."
    )
    test: Words | None = Field(
        default=None,
        description='In place of `path`: `["CMD", program, argument…]`, or `["CMD-SHELL", line]` for /bin/sh. It runs'
        " in the container and ends with 0 when the program is ready.",
    )
    ready_timeout: Duration | None = Field(
        default=None,
        gt=0,
        description="Time from the start to ready. Default: start_period + retries × (interval + timeout) where one of"
        " these is set, else the image's, else 60s.",
    )
    interval: Duration | None = Field(
        default=None, gt=0, description="Time between two probes of a running tenant. Default: 30s."
    )
    timeout: Duration | None = Field(default=None, gt=0, description="Timeout of one probe. Default: 5s.")
    retries: int | None = Field(
        default=None, ge=1, le=1000, description="Failures in a row that make it unhealthy. Default: 3."
    )
    start_period: Duration | None = Field(
        default=None, description="Time after the start in which failures do not count. Default: 0s."
    )

    @model_validator(mode="after")
    def _check_test(self) -> "HealthcheckFile":
        if self.test is None:
            return self
        if self.path is not None or self.port is not None or self.ignore_failing is not None:
            raise Misplaced("path, port and ignore_failing are of another kind of check: keep them, or test", "test")
        kind, words = (self.test[0], self.test[1:]) if self.test else ("", ())
        if kind == "NONE":
            raise Misplaced("NONE is not a check: the runtime could not tell when a claim is ready", "test")
        if kind not in ("CMD", "CMD-SHELL") or not words or not words[0]:
            raise Misplaced('write it as ["CMD", "program", "argument"] or ["CMD-SHELL", "line"]', "test")
        if kind == "CMD-SHELL" and len(words) > 1:
            raise Misplaced("CMD-SHELL takes one line: use CMD for a list of words", "test", 2)
        return self

    @property
    def command(self) -> tuple[str, ...] | None:
        """`test` as a command."""
        if self.test is None:
            return None
        return self.test[1:] if self.test[0] == "CMD" else ("/bin/sh", "-c", self.test[1])


class PortFile(Closed):
    """A port of the container, published on a free port of 127.0.0.1."""

    container: Port = Field(description="The port that the program listens on.")
    protocol: Literal["tcp"] = Field(default="tcp", description="`tcp`.")


class LimitsFile(Closed):
    """Resource limits of one container. Default: the image's."""

    cpus: Cores | None = Field(default=None, gt=0, le=4096, description="Cores: `2` or `0.5`.")
    memory: Size | None = Field(default=None, description="Memory: `512m` or `2g`, powers of 1024.")
    pids: int | None = Field(default=None, ge=1, le=4_194_304, description="Processes and threads.")

    @field_validator("memory")
    @classmethod
    def _check_memory(cls, value: int | None) -> int | None:
        if value is not None and value < SMALLEST_MEMORY:
            raise ValueError(f"{value} bytes are too little to start: with a unit it is {value}m or {value}g")
        return value


class ResourcesFile(Closed):
    """Compose's level between `deploy` and `limits`."""

    limits: LimitsFile = Field(default=LimitsFile(), description="Resource limits of one container.")


class DeployFile(Closed):
    """Compose's `deploy`."""

    resources: ResourcesFile = Field(default=ResourcesFile(), description="Resources of one container.")


class WorkloadFile(Closed):
    """What to run for each tenant, and how many wait for one."""

    id: str = Field(description="Name of the workload and of its pool: lower-case letters, digits and `-`.")
    image: str = Field(description="An image in Podman's store. Nothing is ever pulled.")
    name: str | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        pattern=r"^[^\x00-\x1f\x7f]*$",
        description="Display name. Default: the id.",
    )
    contract: str | None = Field(
        default=None,
        min_length=1,
        description="File, relative to this one, with the contract of an image that carries none.",
    )
    command: Command | None = Field(
        default=None, description="In place of the image's own command. No slot of it waits warmer than `created`."
    )
    variables: dict[VariableName, PlainText] = Field(
        default_factory=dict,
        description="Texts that `environment` can use as `${name}`; no other source provides them.",
    )
    environment: dict[VariableName, Text] = Field(
        default_factory=dict,
        description="Variables of the program. Those that the image's contract allows are values: they come with the"
        " claim, and may use `${tenantId}`.",
    )
    volumes: dict[str, VolumeFile] = Field(default_factory=dict, description="Mounts by name.")
    healthcheck: HealthcheckFile = Field(
        default=HealthcheckFile(), description="When it is ready. Default: the image's."
    )
    ports: Annotated[tuple[PortFile, ...], Listed] = Field(
        default=(), max_length=1, description="The port that is published, at most one. Default: the image's."
    )
    deploy: DeployFile = Field(default=DeployFile(), description="Limits, in Compose's shape.")
    read_only: bool = Field(default=True, description="Whether the image's own files cannot be changed. Default: true.")
    user: str | None = Field(
        default=None, description="Never `0` or `root`. The program always runs as the host's user, mapped."
    )
    network: Literal["private", "none"] = Field(
        default="private", description="`private` is a network of its own with a way out, `none` only loopback."
    )
    network_mode: str | None = Field(
        default=None, description="Compose's word for `network`: `bridge` is `private`, and there is `none`."
    )
    networks: Words | None = Field(default=None, description="Compose's list for `network`: `[default]` is `private`.")
    isolation: Literal["keep-id"] = Field(
        default="keep-id", description="How a container's users map to the host's: `keep-id`."
    )
    init: bool = Field(
        default=True,
        description="Compose's `init`: a small init is process 1, reaps orphans and forwards signals. `false` is for"
        " images that bring their own and insist on being process 1, such as s6-overlay.",
    )
    runtime: str | None = Field(
        default=None,
        pattern=r"^[a-z][a-z0-9_.-]{0,31}$",
        description="Name of an OCI runtime that Podman knows, such as `crun`. Default: Podman's own.",
    )
    seccomp: str = Field(
        default=profiles.DEFAULT,
        min_length=1,
        description="System calls that the program may make: `strict`, `browser`, or the path of a profile, relative"
        " to this file. Default: `strict`.",
    )
    pool: PoolFile = Field(default=PoolFile(), description="The slots that wait for tenants.")
    hooks: HooksFile = Field(default=HooksFile(), description="Commands that run at claim and at release.")
    policy: PolicyFile = Field(default=PolicyFile(), description="Timeouts for sleeping tenants and ending programs.")
    ingress: IngressFile = Field(
        default=IngressFile(), description="What reaches a tenant through the router without a credential."
    )
    sync: SyncFile = Field(default=SyncFile(), description="Where and when states are stored.")

    @property
    def reach(self) -> Literal["private", "none"]:
        """The network, from whichever of the three keys sets it."""
        words = self.networks if self.networks is not None else (self.network_mode or self.network,)
        return "private" if words[0] in _PRIVATE else "none"

    def filled(self, text: str) -> str:
        """A text of `environment` with the file's own variables filled in; `${tenantId}` stays."""
        return re.sub(r"\$\{([^}]*)\}", lambda found: self.variables.get(found[1], found[0]), text)

    @field_validator("id")
    @classmethod
    def _check_id(cls, value: str) -> str:
        try:
            return tenant_id(value)
        except InvalidTenantId as error:
            raise ValueError(f"{value[:60]!r} is not an id: {error.why}") from None

    @field_validator("image")
    @classmethod
    def _check_image(cls, value: str) -> str:
        if not _REFERENCE.fullmatch(value):
            raise ValueError(f"{value[:60]!r} is not an image: write it as localhost/name:tag")
        return value

    @field_validator("user", mode="before")
    @classmethod
    def _check_user(cls, value: object) -> object:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            return value
        if not _USER.fullmatch(value):
            raise ValueError(f"{value[:60]!r} is not a user: write a name or a number")
        if value.split(":")[0].lstrip("0") in ("", "root"):
            raise ValueError(f"{value!r} cannot be: no container runs as root, not even as a root of its own")
        return value

    @field_validator("seccomp")
    @classmethod
    def _check_seccomp(cls, value: str) -> str:
        if "\0" in value or not (value in profiles.OWN or "/" in value or value.endswith(".json")):
            known = ", ".join(profiles.OWN)
            raise ValueError(f"{value[:60]!r} is not a profile: write {known}, or a path such as ./profile.json")
        return value

    @field_validator("variables")
    @classmethod
    def _check_variables(cls, value: dict[str, str]) -> dict[str, str]:
        if "tenantId" in value:
            raise Misplaced("tenantId is the tenant's id and nothing else: choose another name", "tenantId")
        return value

    @field_validator("network_mode", "networks")
    @classmethod
    def _check_network(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        words = (value,) if isinstance(value, str) else value or ()
        for word in words:
            if why := _refused_network(word):
                raise ValueError(f"{word[:60]!r} cannot be: {why}")
        if not words and value is not None:
            raise ValueError("an empty list has no meaning: use [default] or [none]")
        if len({word in _PRIVATE for word in words}) > 1:
            raise ValueError("a container has one network: keep only one of them")
        return value

    @field_validator("volumes")
    @classmethod
    def _check_volumes(cls, value: dict[str, VolumeFile]) -> dict[str, VolumeFile]:
        targets: dict[str, str] = {}
        for name, volume in value.items():
            _check_volume(name, volume)
            for other, target in targets.items():
                if f"{volume.target}/".startswith(f"{target}/") or f"{target}/".startswith(f"{volume.target}/"):
                    raise Misplaced(f"overlaps with volume {other!r} at {target}", name, "target")
            targets[name] = volume.target
        return value

    @model_validator(mode="after")
    def _check_whole(self) -> "WorkloadFile":
        said = [key for key in ("network", "network_mode", "networks") if key in self.model_fields_set]
        if len(said) > 1:
            raise Misplaced(f"{said[0]} sets the same: keep {said[0]}", said[1])
        for name, text in self.environment.items():
            for written, variable in uses(text):
                if not written.endswith("}"):
                    raise Misplaced(f"uses {written}, which is not closed", "environment", name)
                if variable != "tenantId" and variable not in self.variables:
                    raise Misplaced(
                        f"uses {written}, which is not declared: there are {TENANT_VARIABLE} and what `variables:` of"
                        " this file declares; the daemon's own environment is never read",
                        "environment",
                        name,
                    )
        zone = self.filled(self.environment.get("TZ", ""))
        if TENANT_VARIABLE not in zone and (wrong := mistake(zone)):
            raise Misplaced(wrong, "environment", "TZ")
        return self


def _refused_network(word: str) -> str:
    """Why a network of Compose is refused; empty when it is accepted."""
    if word in (*_PRIVATE, "none"):
        return ""
    if word == "host":
        return "every tenant would reach what listens on this host's loopback, and take each other's ports"
    if word.startswith(("container:", "service:", "ns:")):
        return "a tenant shares its network with nobody"
    return "a network that containers share lets tenants reach one another; write private (or bridge), or none"


def _check_volume(name: str, volume: VolumeFile) -> None:
    if not _NAME.fullmatch(name):
        raise Misplaced(f"{name[:60]!r} is not a volume's name: lower-case letters, digits, '-' and '_'", name)
    ours = name == "comm" or volume.per_tenant
    if volume.seed is not None and name != "state" and not ours:
        raise Misplaced("only a tenant's own files have a seed: state, comm, and what is per_tenant", name, "seed")
    if name in RESERVED_VOLUMES:
        if volume.source is not None:
            raise Misplaced(
                f"the runtime chooses the directory of {name!r} for each tenant: leave it out", name, "source"
            )
        if name != "comm" and volume.per_tenant:
            raise Misplaced(f"volume {name!r} is the tenant's own already: leave it out", name, "per_tenant")
        if name != "comm" and volume.read_only is not None and volume.read_only != (name == "secrets"):
            state = "writable" if volume.read_only else "read-only"
            raise Misplaced(f"volume {name!r} is always {state}: leave it out", name, "read_only")
    elif ours:
        if volume.source is not None:
            raise Misplaced("a host directory is not a tenant's own: keep source or per_tenant", name, "source")
    elif volume.source is None:
        raise Misplaced(f"no source: name the host directory that is mounted at {volume.target}", name)
    elif volume.read_only is False:
        raise Misplaced("a directory that all tenants share is mounted read-only: leave it out", name, "read_only")
