"""`pool:`, `hooks:` and `policy:` of the workload file: what waits for tenants, what runs as they come and go."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from claw_runtime.spec.shapes import Closed, Command, Duration, Listed, Misplaced

Count = Annotated[int, Field(ge=0, le=10_000)]

AFFINITY_TIMEOUT = 600.0
FILL_CONCURRENCY = 2
RETRIES = 3


class WarmthFile(Closed):
    """How many slots wait in each tier, coldest first, and how many tenants may be kept after their release."""

    created: Count | None = Field(
        default=None, description="Containers created and not started. Default: what the others leave of `min_size`."
    )
    entrypoint: Count = Field(default=0, description="Started, and the entrypoint waits.")
    interpreter: Count = Field(default=0, description="The image's interpreter waits, with nothing imported.")
    prewarmed: Count = Field(default=0, description="The interpreter waits with the program's modules imported.")
    frozen: Count = Field(
        default=0, description="Released tenants whose own container stays, paused, for `affinity_timeout`."
    )
    tree: Count | None = Field(
        default=None,
        description="Released tenants whose files stay on disk for `affinity_timeout`. Default: `max_size`.",
    )

    @property
    def started(self) -> int:
        """Slots in which a process runs."""
        return self.entrypoint + self.interpreter + self.prewarmed


class PoolFile(Closed):
    """Slots that wait warm, containers at most, and how long a tenant keeps what it has."""

    min_size: Count = Field(
        default=1, description="Slots that wait, of all tiers. Default: 1, or the sum of `warmth` where it has counts."
    )
    max_size: int = Field(
        default=10, ge=1, le=10_000, description="Containers at most, waiting and claimed. Default: 10."
    )
    warmth: WarmthFile = Field(default=WarmthFile(), description="How many slots wait in which tier.")
    idle_timeout: Duration | None = Field(
        default=None, gt=0, description="Time without traffic until a tenant sleeps. Default: never."
    )
    file_idle_ttl: Duration | None = Field(
        default=None, gt=0, description="Time without a change in its state until a tenant sleeps. Default: never."
    )
    affinity_timeout: Duration = Field(
        default=AFFINITY_TIMEOUT,
        description="Time after its release in which a tenant finds its container or files again. Default: 10m.",
    )
    fill_concurrency: int = Field(
        default=FILL_CONCURRENCY, ge=1, le=64, description="Slots that are made at the same time. Default: 2."
    )

    @property
    def slots(self) -> int:
        """Slots that only wait to be started."""
        if self.warmth.created is not None:
            return self.warmth.created
        return max(0, self.min_size - self.warmth.started) if self._says_size or not self.warmth.started else 0

    @property
    def warm(self) -> int:
        """Slots that wait, of all tiers."""
        return self.slots + self.warmth.started

    @property
    def trees(self) -> int:
        """Released trees that are kept."""
        if self.warmth.tree is not None:
            return self.warmth.tree
        return self.max_size if self.affinity_timeout else 0

    @property
    def _says_size(self) -> bool:
        return "min_size" in self.model_fields_set

    @model_validator(mode="after")
    def _check_order(self) -> "PoolFile":
        if self._says_size and self.min_size > self.max_size:
            raise Misplaced(f"min_size {self.min_size} is more than max_size {self.max_size}", "min_size")
        if self._says_size and self.warm != self.min_size:
            raise Misplaced(
                f"min_size is {self.min_size} and the tiers of warmth are {self.warm} together: leave one of them out",
                "min_size",
            )
        if self.warm > self.max_size:
            raise Misplaced(f"{self.warm} slots wait, more than max_size {self.max_size}", "warmth")
        if self.warmth.frozen > self.max_size:
            raise Misplaced(f"{self.warmth.frozen} is more than max_size {self.max_size}", "warmth", "frozen")
        for name, count in (("frozen", self.warmth.frozen), ("tree", self.warmth.tree)):
            if count and not self.affinity_timeout:
                raise Misplaced("affinity_timeout 0 keeps nothing: set a duration", "warmth", name)
        return self


class HookFile(Closed):
    """A command that runs in the tenant's container."""

    command: Command = Field(description="Program and arguments; no shell reads them.")
    timeout: Duration = Field(default=30.0, gt=0, description="Timeout of each attempt. Default: 30s.")
    on_error: Literal["fail", "continue", "retry"] = Field(
        default="fail",
        description="`fail` ends the claim or release with an error, `continue` proceeds, `retry` tries again first."
        " Default: `fail`.",
    )
    retries: int | None = Field(
        default=None, ge=1, le=5, description="How often `retry` tries again, 1 to 5. Default: 3."
    )

    @model_validator(mode="after")
    def _check_retries(self) -> "HookFile":
        if self.retries is not None and self.on_error != "retry":
            raise Misplaced(f"on_error is {self.on_error}: only retry has retries", "retries")
        return self


class HooksFile(Closed):
    """Commands at the two ends of a claim, one after another."""

    post_claim: Annotated[tuple[HookFile, ...], Listed] = Field(
        default=(), description="Run when the program is ready, before the claim answers."
    )
    pre_release: Annotated[tuple[HookFile, ...], Listed] = Field(
        default=(), description="Run before a release stops the program and stores its state."
    )


class PolicyFile(Closed):
    """How patiently a tenant is put to sleep and a program is ended, and what the daemon starts again by itself."""

    min_running: Duration = Field(
        default=0.0, description="Time that a tenant runs at least before it is put to sleep. Default: none."
    )
    min_warm: Duration = Field(
        default=0.0,
        description="Time that a frozen container stays at least, also when room is short. Default: none.",
    )
    drain_timeout: Duration | None = Field(
        default=None,
        gt=0,
        description="Time that a program gets to end by itself. Default: the image's stop timeout, or 10s.",
    )
    on_boot: Literal["previous", "always", "never"] = Field(
        default="previous",
        description="Tenants that the daemon claims after a reboot: those that ran before (`previous`), all that were"
        " claimed and not released (`always`), or none (`never`). Default: `previous`.",
    )
    restart: Literal["never", "on_failure"] = Field(
        default="never",
        description="What follows when the program ends by itself: nothing, or a claim by the daemon unless the exit"
        " code was 0 (`on_failure`). Its state is committed first. Default: `never`.",
    )
