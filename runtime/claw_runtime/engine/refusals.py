"""Turns Podman's answers into errors of errors.py, by their text: 4.3.1 answers almost every error with 500."""

import re
from collections.abc import Iterable, Sequence

from claw_runtime.errors import (
    ClawError,
    DiskFull,
    EngineFailed,
    EngineUnavailable,
    ImageMissing,
    NotClaimed,
    PortTaken,
)
from claw_runtime.ports import ContainerSpec, EngineInfo

_NOT_RUNNING = ("container state improper", "is paused")
_PORT = re.compile(r":(\d{1,5})\b")


def refusal(operation: str, subject: str, status: int | None, message: str, *, image: str = "") -> ClawError:
    """The error for one failed API call.

    Args:
        operation: The operation that failed, a verb such as `start`.
        subject: The container or image of the operation.
        status: HTTP status; None when there was no answer at all.
        message: Podman's message.
        image: The image for a new container, if it is not the subject.
    """
    facts = {"operation": operation, "subject": subject, "status": status}
    lowered = message.lower()
    if status is None:
        return EngineUnavailable(
            f"podman did not answer: {operation} {subject}",
            why=message,
            hint="retry in 20 s: a service that ended or hangs is replaced; else run `podman info` as this user",
            **facts,
        )
    if "image not known" in lowered or "no such image" in lowered or "failed to find image" in lowered:
        return image_missing(image or subject)
    if status == 404 or "no such container" in lowered:
        return NotClaimed(
            f"container {subject} is gone", why=message, hint="claim the tenant again to get a new container", **facts
        )
    if "address already in use" in lowered or "port is already allocated" in lowered:
        port = _PORT.search(message)
        return PortTaken(
            f"the port for {subject} is held by another process",
            why=message,
            hint="Podman chose the port when the container was created: remove the container and create it again",
            port=int(port[1]) if port else None,
            **facts,
        )
    if "disk quota exceeded" in lowered and ("keyring" in lowered or "session key" in lowered):
        return EngineFailed(
            f"no kernel key is left to {operation} {subject}",
            why=f"a container with a keyring takes one of this user's keys, kernel.keys.maxkeys: {message}",
            hint="as root: sysctl -w kernel.keys.maxkeys=20000 kernel.keys.maxbytes=2000000   (or run host/setup.sh)",
            **facts,
        )
    if "no space left on device" in lowered or "disk quota exceeded" in lowered:
        return DiskFull(f"no room to {operation} {subject}", why=message, hint="free space in Podman's store", **facts)
    return EngineFailed(f"podman refused to {operation} {subject}", why=message, hint=_hint(lowered), **facts)


def refuses_state(error: EngineFailed) -> bool:
    """Whether Podman refused because the container was paused, or did not run, at that moment."""
    return any(words in error.why.lower() for words in _NOT_RUNNING)


def meets_an_end(message: str) -> bool:
    """Whether Podman answered 500 because a process ended while it read of it: `/proc` then answers ESRCH.

    Podman takes a missing file for the end of the container, but not this (4.3.1: "read /proc/14666/cgroup: no such
    process", seen once). An answer about several containers fails as a whole.
    """
    return "no such process" in message.lower()


def podman_missing() -> EngineUnavailable:
    """The error for a host without Podman."""
    return EngineUnavailable(
        "podman is not installed",
        why="there is no `podman` on PATH",
        hint="install it (on Debian: apt-get install podman, or run host/setup.sh)",
    )


def podman_fails(said: str) -> EngineUnavailable:
    """The error for a Podman that fails at every command; `said` is its output."""
    return EngineUnavailable(
        "podman does not work",
        why=(said.strip().splitlines() or ["it gave no reason"])[-1],
        hint="run `podman info` as this user and fix the errors that it reports",
    )


def image_missing(reference: str) -> ImageMissing:
    """The error for a missing image; claw never pulls images."""
    return ImageMissing(
        f"there is no image {reference}",
        why="it is not in this user's Podman store, and claw never pulls",
        hint="build or load it: claw-runtime image build, or claw-runtime image load FILE",
        reference=reference,
    )


def refuse_what_cannot_be_enforced(spec: ContainerSpec, info: EngineInfo) -> None:
    """Refuse a limit, or a profile of system calls, that the kernel would not enforce.

    Raises:
        EngineFailed: The spec has a limit whose cgroup controller this user does not have; Podman cannot filter calls.
    """
    if not info.seccomp:
        raise EngineFailed(
            f"this host cannot filter the system calls of {spec.name}",
            why="the kernel or Podman is built without seccomp, and Podman would leave the filter out",
            hint="use a kernel with CONFIG_SECCOMP_FILTER and a Podman with seccomp; no container starts without",
        )
    wanted = {"memory": spec.memory, "cpus": spec.cpus, "pids": spec.pids}
    missing = [name for name, value in wanted.items() if value and name not in info.enforceable_limits]
    if missing:
        names = ", ".join(missing)
        raise EngineFailed(
            f"this host cannot enforce the limit on {names} of {spec.name}",
            why=f"cgroup controllers of this user: {' '.join(info.cgroup_controllers) or 'none'}",
            hint="delegate the controllers to this user (systemd: Delegate=yes), or drop limits: up --limits drop",
            limits=missing,
        )


def inherited(environment: Iterable[str]) -> tuple[str, ...]:
    """The entries of an image's environment that have no value."""
    return tuple(entry for entry in environment if "=" not in entry)


def refuse_what_inherits(image: str, entries: Sequence[str]) -> None:
    """Refuse an image whose environment Podman would fill with variables of its own process: `NAME`, or `NAM*` for all
    that begin so.

    Raises:
        EngineFailed: There is such an entry.
    """
    if entries:
        raise EngineFailed(
            f"the image {image} cannot be used",
            why=f"its environment has {entries[0][:60]!r} without a value; Podman would put this host's value there",
            hint="build the image again with ENV NAME=value, or with NAME= for an empty value",
            entries=list(entries),
        )


def wrong_runtime(runtime: str, why: str) -> EngineFailed:
    """The error for a container that Podman created with another OCI runtime than the requested one."""
    return EngineFailed(
        f"podman cannot isolate a container with {runtime}",
        why=why,
        hint="install that OCI runtime, and name it in containers.conf, [engine.runtimes]; or remove `runtime:` from "
        "the workload file",
        runtime=runtime,
    )


def _hint(message: str) -> str:
    if "container-init binary not found" in message:
        return "install catatonit, the init of containers (on Debian: apt-get install catatonit, or run host/setup.sh)"
    if "is already in use" in message:
        return "an earlier container has that name: remove it first"
    if "pause" in message and "cgroup" in message:
        return "freezing needs cgroup v2 and a cgroup of this user's own: a systemd user session, or CLAW_CGROUP_PARENT"
    if any(words in message for words in _NOT_RUNNING):
        return "it is paused, has ended, or never started: run claw-runtime status"
    if "seccomp" in message:
        return "correct the profile that `seccomp` in the workload file names, or use strict"
    if "slirp4netns" in message or "pasta" in message:
        return "install slirp4netns or, for Podman 5, passt, and make /dev/net/tun writable to this user"
    if "cgroup" in message:
        return "see which cgroup controllers this user has: podman info -f '{{.Host.CgroupControllers}}'"
    return "run `podman info` as this user; the daemon's log has the whole call"
