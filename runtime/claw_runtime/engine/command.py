"""Argument lists of podman commands, for verbs that need this terminal or this disk; nothing is run here.

Separate from podman.py, whose import would add 100 ms to each verb.
"""

from collections.abc import Sequence


def exec_argv(
    container: str,
    argv: Sequence[str],
    *,
    interactive: bool,
    tty: bool,
    detach: bool,
    environment: Sequence[str] = (),
    directory: str | None = None,
) -> list[str]:
    """The command that runs `argv` in the container; its exit code is `argv`'s, or 125-127 as podman-exec(1) says."""
    flags = [("--interactive", interactive), ("--tty", tty), ("--detach", detach)]
    given = [flag for flag, wanted in flags if wanted] + [f"--env={pair}" for pair in environment]
    if directory is not None:
        given.append(f"--workdir={directory}")
    return ["podman", "exec", *given, "--", container, *argv]


def port_argv(container: str) -> list[str]:
    """The command that prints `8080/tcp -> 127.0.0.1:40123` for each published port."""
    return ["podman", "port", "--", container]


def copy_in_argv(container: str, source: str, target: str) -> list[str]:
    """The command that copies a file or directory of this host, or a tar from stdin (`-`), into the container.

    Podman resolves `target` in the container's own mount namespace, so that no link in it leads to this host.
    """
    return ["podman", "cp", "--", source, f"{container}:{target}"]


def copy_out_argv(container: str, source: str) -> list[str]:
    """The command that writes a file or directory of the container to stdout, as a tar with links as links."""
    return ["podman", "cp", "--", f"{container}:{source}", "-"]
