"""The running container of a tenant, and the podman command for verbs that need this terminal or this disk."""

import os
import subprocess
import time
from typing import IO, NoReturn

from claw_runtime.cli import output
from claw_runtime.errors import Conflict, EngineFailed, EngineUnavailable

PATIENCE = 5.0
"""Seconds to wait for a container that may run in a moment: longer than a commit pauses one."""
_PAUSE = 0.1


def container_of(context: output.Context, tenant: str) -> str:
    """The container's id, for a command that begins in it at once.

    Raises:
        NotClaimed: The tenant has no running container.
        Conflict: For `PATIENCE` seconds it was being claimed or released, or its container was paused for a commit.
    """
    client, until = context.client(), time.monotonic() + PATIENCE
    while True:
        try:
            return str(client.get(f"/api/v1/tenants/{tenant}/container")["containerId"])
        except Conflict:
            if time.monotonic() >= until:
                raise
            time.sleep(_PAUSE)


def become(argv: list[str]) -> NoReturn:
    """Replace this process, so that terminal, signals and exit code (125-127 are Podman's) are the command's own."""
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - an argv list, no shell
    except FileNotFoundError as error:
        raise no_podman(error) from error


def answer(argv: list[str]) -> bytes:
    """The output of the command. Raises `EngineUnavailable`, `EngineFailed`."""
    return run(argv, stdout=subprocess.PIPE)


def run(argv: list[str], *, stdin: int | None = subprocess.DEVNULL, stdout: int | None = subprocess.DEVNULL) -> bytes:
    """Run the command and wait for it. Raises `EngineUnavailable`, `EngineFailed`."""
    with started(argv, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE) as podman:
        printed, said = podman.communicate()
    if podman.returncode:
        raise refused(argv, said)
    return printed or b""


def started(
    argv: list[str],
    *,
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | None = subprocess.PIPE,
    stderr: int | IO[bytes] | None = None,
) -> "subprocess.Popen[bytes]":
    """The command, running. Raises `EngineUnavailable`."""
    try:
        return subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=stderr)
    except FileNotFoundError as error:
        raise no_podman(error) from error


def refused(argv: list[str], stderr: bytes) -> EngineFailed:
    """The error for a failed podman command, with its message."""
    why = stderr.decode("utf-8", "replace").strip().removeprefix("Error: ")
    return EngineFailed(f"podman {argv[1]} failed", why=why, hint="run claw-runtime doctor to check Podman")


def no_podman(error: OSError) -> EngineUnavailable:
    """The error for a missing podman command."""
    return EngineUnavailable("Podman is not installed", why=str(error), hint="apt-get install podman")
