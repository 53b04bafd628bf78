"""`ingress:` of the workload file: what reaches a tenant through the router without a credential."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from claw_runtime.spec.shapes import Closed, Listed, Misplaced, Size

LARGEST_BODY = 256 * 1024 * 1024

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


class WebhookFile(Closed):
    """A path that anybody may call. The program checks its callers, by a signature for instance."""

    path: str = Field(
        pattern=r"^/[A-Za-z0-9._~@:/-]*[A-Za-z0-9_~@:-]$",
        max_length=256,
        description="It and everything below it. Choose one that nobody guesses where the service lets you.",
    )
    methods: Annotated[tuple[Method, ...], Listed] = Field(
        default=("POST",), min_length=1, description="HTTP methods. Default: `[POST]`."
    )
    body: Size = Field(default=1 << 20, ge=0, le=LARGEST_BODY, description="Largest body. Default: `1m`.")
    rate: int = Field(default=60, ge=1, le=100_000, description="Requests a minute for one tenant. Default: 60.")

    @field_validator("path")
    @classmethod
    def _check_path(cls, value: str) -> str:
        if any(part in ("", ".", "..") for part in value.split("/")[1:]):
            raise ValueError(f"{value!r} is not a plain path: write it without '.', '..' and '//'")
        return value


class IngressFile(Closed):
    """What reaches a tenant through the router, besides requests with a credential."""

    webhooks: Annotated[tuple[WebhookFile, ...], Listed] = Field(
        default=(), max_length=32, description="Paths that need no credential. Default: none."
    )

    @field_validator("webhooks")
    @classmethod
    def _check_webhooks(cls, value: tuple[WebhookFile, ...]) -> tuple[WebhookFile, ...]:
        for index, one in enumerate(value):
            for other in value[:index]:
                if f"{one.path}/".startswith(f"{other.path}/") or f"{other.path}/".startswith(f"{one.path}/"):
                    raise Misplaced(f"overlaps with {other.path!r}: keep the shorter of both", index, "path")
        return value
