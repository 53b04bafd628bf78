"""The workload file as a person writes it: pydantic models, frozen, strict, and closed to unknown keys.

Names and shapes follow Compose where Compose has one (`deploy.resources.limits`, `ports`, `volumes`, `read_only`).
What the image's contract already says may be left out; `plan.py` merges both. Messages here have no position:
`loader.py` puts file, line and column in front.
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from claw_runtime import units
from claw_runtime.errors import InvalidTenantId
from claw_runtime.tenancy import tenant_id

SMALLEST_MEMORY = 6 * 1024 * 1024  # Podman refuses less
RESERVED_VOLUMES = ("state", "logs", "secrets")
TENANT_VARIABLE = "${tenantId}"

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,38}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}")


def _cores(value: object) -> object:
    """Compose writes cores as a string."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise ValueError(f"{value!r} is not a number of cores: write it as 2 or 0.5") from None
    return value


def _target(value: str) -> str:
    segments = value.split("/")[1:]
    if not value.startswith("/") or value == "/" or any(part in ("", ".", "..") for part in segments):
        raise ValueError(f"{value!r} is not a path in the container: write it as /state, absolute and without '..'")
    return value


def _variable_name(value: str) -> str:
    if not _VARIABLE.fullmatch(value):
        raise ValueError(f"{value[:60]!r} is not a variable's name: letters, digits and '_' only")
    return value


def _variable_text(value: object) -> str:
    """A number is taken as it was written, when it can be written in one way only."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError("not a text: put quotes around it")  # noqa: TRY004  (pydantic turns only this into a report)
    text = str(value)
    if "\0" in text:
        raise ValueError("holds a NUL character")
    rest = text.replace(TENANT_VARIABLE, "")
    if found := re.search(r"\$\{[^}]*\}?", rest):
        raise ValueError(f"uses {found[0]}: {TENANT_VARIABLE} is the only variable there is")
    return text


class Misplaced(ValueError):
    """A complaint about a part of the value that is being checked; `place` is relative to it."""

    def __init__(self, message: str, *place: str | int) -> None:
        super().__init__(message)
        self.place = place


Duration = Annotated[float, BeforeValidator(units.duration)]
Size = Annotated[int, BeforeValidator(units.size)]
Port = Annotated[int, Field(ge=1, le=65_535)]
VariableName = Annotated[str, AfterValidator(_variable_name)]
VariableText = Annotated[str, BeforeValidator(_variable_text)]
Pattern = Annotated[str, Field(min_length=1, max_length=1024)]


class _Closed(BaseModel):
    """Unknown keys and silent conversions are refused; what was read does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class VolumeFile(_Closed):
    """One mount. `state`, `logs` and `secrets` only say where; any other name brings a host directory, read-only."""

    source: str | None = None
    target: str
    read_only: bool | None = None

    _check_target = field_validator("target")(_target)

    @field_validator("source")
    @classmethod
    def _check_source(cls, value: str | None) -> str | None:
        if value is not None and (not value.startswith("/") or "/../" in f"{value}/" or "\0" in value):
            raise ValueError(f"{value!r} is not a directory on the host: write an absolute path without '..'")
        return value


class HealthcheckFile(_Closed):
    """`GET http://<container>:port/path` answers 200 when the workload is ready.

    Attributes:
        timeout: Seconds from the start to the first 200.
        ignore_failing: Names of parts whose failure does not keep the workload from being ready.
    """

    path: str | None = Field(default=None, pattern=r"^/[\x21-\x7e]*$")
    port: Port | None = None
    timeout: Duration | None = Field(default=None, gt=0)
    ignore_failing: tuple[str, ...] | None = None

    @field_validator("ignore_failing", mode="before")
    @classmethod
    def _tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value


class PortFile(_Closed):
    """A port of the container."""

    container: Port
    protocol: Literal["tcp"] = "tcp"


class LimitsFile(_Closed):
    """What one container may use: cores, bytes, processes."""

    cpus: Annotated[float, BeforeValidator(_cores)] | None = Field(default=None, gt=0, le=4096)
    memory: Size | None = None
    pids: int | None = Field(default=None, ge=1, le=4_194_304)

    @field_validator("memory")
    @classmethod
    def _check_memory(cls, value: int | None) -> int | None:
        if value is not None and value < SMALLEST_MEMORY:
            raise ValueError(f"{value} bytes are too little to start: with a unit it is {value}m or {value}g")
        return value


class ResourcesFile(_Closed):
    """Compose's level between `deploy` and `limits`."""

    limits: LimitsFile = LimitsFile()


class DeployFile(_Closed):
    """Compose's `deploy`."""

    resources: ResourcesFile = ResourcesFile()


class PoolFile(_Closed):
    """How many slots wait warm, how many containers there may be, and seconds without traffic until a tenant sleeps."""

    min_size: int = Field(default=1, ge=0, le=10_000)
    max_size: int = Field(default=10, ge=1, le=10_000)
    idle_timeout: Duration | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _check_order(self) -> "PoolFile":
        if self.min_size > self.max_size:
            raise Misplaced(f"min_size {self.min_size} is more than max_size {self.max_size}", "min_size")
        return self


class SyncFile(_Closed):
    """Patterns, as in .gitignore and relative to the state, of what is never stored."""

    exclude: tuple[Pattern, ...] = ()

    @field_validator("exclude", mode="before")
    @classmethod
    def _tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value


class WorkloadFile(_Closed):
    """The whole file. Its `id` is also the name of its pool."""

    id: str
    image: str
    name: str | None = Field(default=None, min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")
    contract: str | None = Field(default=None, min_length=1)
    command: tuple[str, ...] | None = None
    environment: dict[VariableName, VariableText] = Field(default_factory=dict)
    volumes: dict[str, VolumeFile] = Field(default_factory=dict)
    healthcheck: HealthcheckFile = HealthcheckFile()
    ports: tuple[PortFile, ...] = Field(default=(), max_length=1)
    deploy: DeployFile = DeployFile()
    read_only: bool = True
    network: Literal["private", "none"] = "private"
    pool: PoolFile = PoolFile()
    sync: SyncFile = SyncFile()

    @field_validator("command", "ports", mode="before")
    @classmethod
    def _tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

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

    @field_validator("command")
    @classmethod
    def _check_command(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (not value or not value[0]):
            raise ValueError("the command is empty: leave it out for the image's own")
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


def _check_volume(name: str, volume: VolumeFile) -> None:
    if not _NAME.fullmatch(name):
        raise Misplaced(f"{name[:60]!r} is not a volume's name: lower-case letters, digits, '-' and '_'", name)
    if name in RESERVED_VOLUMES:
        if volume.source is not None:
            raise Misplaced(
                f"the runtime chooses the directory of {name!r} for each tenant: leave it out", name, "source"
            )
        if volume.read_only is not None and volume.read_only != (name == "secrets"):
            state = "writable" if volume.read_only else "read-only"
            raise Misplaced(f"volume {name!r} is always {state}: leave it out", name, "read_only")
    elif volume.source is None:
        raise Misplaced(f"no source: name the host directory that is mounted at {volume.target}", name)
    elif volume.read_only is False:
        raise Misplaced("a directory that all tenants share is mounted read-only: leave it out", name, "read_only")
