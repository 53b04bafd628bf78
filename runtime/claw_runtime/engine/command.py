"""Podman's own command line, for what needs this terminal: argument lists for `execvp`, nothing is run here.

Apart from podman.py, whose import costs 100 ms that a person at a prompt would feel.
"""

from collections.abc import Sequence


def exec_argv(container: str, argv: Sequence[str], *, interactive: bool, tty: bool, detach: bool) -> list[str]:
    """The command that runs `argv` in the container; its exit code is `argv`'s, or 125-127 as podman-exec(1) says."""
    flags = [("--interactive", interactive), ("--tty", tty), ("--detach", detach)]
    return ["podman", "exec", *(flag for flag, wanted in flags if wanted), "--", container, *argv]


def logs_argv(container: str, *, follow: bool, tail: int | None, since: str | None) -> list[str]:
    """The command that prints the container's log."""
    argv = ["podman", "logs"]
    if follow:
        argv.append("--follow")
    if tail is not None:
        argv.append(f"--tail={tail}")
    if since is not None:
        argv.append(f"--since={since}")
    return [*argv, "--", container]
