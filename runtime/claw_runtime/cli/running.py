"""The running container of a tenant, for the verbs that hand this process over to Podman."""

import os
from typing import NoReturn

from claw_runtime.cli import output
from claw_runtime.errors import EngineUnavailable, NotClaimed
from claw_runtime.tenancy import tenant_id


def container_of(context: output.Context, tenant: str) -> str:
    """The container's id.

    Raises:
        NotClaimed: The tenant has no running container.
    """
    answer = context.client().get(f"/api/v1/tenants/{tenant_id(tenant)}/status")
    if answer["state"] != "active":
        raise NotClaimed(
            f"tenant {tenant!r} is not claimed",
            why=f"its state is {answer['state']}",
            hint=f"claw-runtime claim {tenant}",
        )
    return str(answer["containerId"])


def become(argv: list[str]) -> NoReturn:
    """Replace this process, so that terminal, signals and exit code (125-127 are Podman's) are the command's own."""
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - an argv list, no shell
    except FileNotFoundError as error:
        raise EngineUnavailable("Podman is not installed", why=str(error), hint="apt-get install podman") from error
