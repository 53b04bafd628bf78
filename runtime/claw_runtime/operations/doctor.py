"""Doctor: what would keep this host from running tenants, each with what to do about it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

from claw_runtime.errors import ClawError
from claw_runtime.operations import limit_probe
from claw_runtime.ports import Capabilities, Engine, HostFacts, ObjectStore
from claw_runtime.seccomp import profiles
from claw_runtime.spec import filters, plan
from claw_runtime.spec.loader import Document
from claw_runtime.tenancy import LABEL_CONTRACT
from claw_runtime.units import format_size

Verdict = Literal["ok", "warn", "fail"]

SUBORDINATE_IDS = 65_536
_OF_THE_HOST = 20
"""Kernel keys and inotify instances that the user's own sessions and services take."""

ROOM_WANTED = 10 << 30
"""Bytes: an image, its keep-id copy and some states."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check. `hint` says what to do unless the verdict is ok."""

    check: str
    verdict: Verdict
    detail: str
    hint: str = ""


def examine(
    host: HostFacts,
    engine: Callable[[], Engine],
    store: Callable[[], tuple[ObjectStore, Capabilities] | None],
    documents: Callable[[], Mapping[str, Document]],
    operators: Callable[[], Sequence[bytes]],
    *,
    drop_limits: bool = False,
) -> Iterator[Finding]:
    """All checks, in the order in which a person would repair things.

    Args:
        engine, store, documents, operators: Called when their turn comes; what they raise becomes a finding. The
            store comes with what it was seen to do; None means that no bucket is configured.
        drop_limits: Slots are made without limits that this host cannot enforce.
    """
    yield from _host(host)
    current: Engine | None = None
    if host.podman:
        try:
            current = engine()
            yield from _engine(current)
        except ClawError as error:
            yield _failed("podman answers", error)
    try:
        loaded = documents()
        yield _loaded(loaded)
        yield from _per_user(host, sum(document.workload.pool.max_size for document in loaded.values()))
        yield from map(_filter, loaded.values())
        if current:
            for document in loaded.values():
                yield from _workload(current, document, drop_limits)
    except ClawError as error:
        yield _failed("workloads", error)
        loaded = {}
    if current:
        try:
            yield _limits(current, [document.workload.image for document in loaded.values()])
        except ClawError as error:
            yield _failed("limits", error)
    try:
        yield _store(store())
    except ClawError as error:
        yield _failed("object store", error)
    try:
        if keys := operators():
            told = f"states are encrypted with the first of {len(keys)} operator's keys"
            yield Finding(check="encryption", verdict="ok", detail=told)
    except ClawError as error:
        yield _failed("encryption", error)


def daemon(status: int, said: Mapping[str, Any]) -> Finding:
    """The running daemon, by its answer to `/readyz`: HTTP status (0 for none) and document."""
    if status == 200:
        return Finding(check="running daemon", verdict="ok", detail=f"its engine and {said.get('store', '')} answer")
    detail = ": ".join(str(said[name]) for name in ("title", "detail") if said.get(name)) or f"it answered {status}"
    hint = said.get("hint") or "its log has the reason; it replaces a Podman service or an S3 server that hangs"
    return Finding(check="running daemon", verdict="fail", detail=detail, hint=str(hint))


def router(address: str, here: str, *, answers: bool, loopback: bool) -> Finding:
    """The router of this host.

    Args:
        address: Where it is to listen; `here` describes the one that runs, and is empty without one.
        answers: Whether that one answers.
        loopback: Whether only this host reaches the address.
    """
    check = "router"
    if not here:
        hint = "claw-runtime up starts it; if a daemon runs, claw-runtime status has the reason"
        return Finding(check=check, verdict="warn", detail=f"none runs for {address}", hint=hint)
    if not answers:
        hint = "a running daemon replaces it; without one: claw-runtime router --end"
        return Finding(check=check, verdict="fail", detail=f"it does not answer: {here}", hint=hint)
    if not loopback:
        hint = "set CLAW_INGRESS to a port of 127.0.0.1 behind a proxy with TLS, unless the network is private"
        detail = f"{here}; other machines may reach it, and it has no TLS"
        return Finding(check=check, verdict="warn", detail=detail, hint=hint)
    return Finding(check=check, verdict="ok", detail=here)


def _failed(check: str, error: ClawError) -> Finding:
    return Finding(check=check, verdict="fail", detail=str(error), hint=error.hint)


def _host(host: HostFacts) -> Iterator[Finding]:
    root = host.uid == 0
    yield Finding(
        check="unprivileged user",
        verdict="fail" if root else "ok",
        detail="this user is root" if root else host.user,
        hint="run claw-runtime as an unprivileged user" if root else "",
    )
    yield Finding(
        check="podman installed",
        verdict="ok" if host.podman else "fail",
        detail=host.podman or "not on PATH",
        hint="" if host.podman else "apt-get install podman",
    )
    yield Finding(
        check="init of containers",
        verdict="ok" if host.init else "fail",
        detail=host.init or "catatonit is not installed: nothing would reap orphaned processes of a tenant",
        hint="" if host.init else "as root: apt-get install catatonit   (or run host/setup.sh)",
    )
    ids = min(host.subordinate_uids, host.subordinate_gids)
    yield Finding(
        check="subordinate ids",
        verdict="ok" if ids >= SUBORDINATE_IDS else "fail",
        detail=f"{host.subordinate_uids} uids, {host.subordinate_gids} gids",
        hint=""
        if ids >= SUBORDINATE_IDS
        else f"as root: usermod --add-subuids 200000-265535 --add-subgids 200000-265535 {host.user}",
    )
    yield Finding(
        check="container network",
        verdict="ok" if host.tun else "warn",
        detail="/dev/net/tun is open" if host.tun else "this user cannot open /dev/net/tun",
        hint=""
        if host.tun
        else "as root: chmod 666 /dev/net/tun   (without it, only workloads with network: none start)",
    )
    if not host.cgroup_v2:
        yield Finding(
            check="cgroup v2",
            verdict="warn",
            detail="the host has cgroup v1: no limit is enforced, no container is frozen, and `install` refuses",
            hint="boot with the kernel parameter systemd.unified_cgroup_hierarchy=1 (the default since Debian 11)",
        )
    if host.selinux:
        yield Finding(
            check="SELinux",
            verdict="warn",
            detail="it is enforcing, and claw's mounts have no labels of their own: containers cannot read their state",
            hint="as root, for the directories CLAW_HOME and CLAW_RUN: semanage fcontext -a -t container_file_t "
            "'DIRECTORY(/.*)?' && restorecon -R DIRECTORY",
        )
    enough = host.writable and host.room >= ROOM_WANTED
    yield Finding(
        check="room for data",
        verdict="ok" if enough else "warn" if host.writable else "fail",
        detail=f"{format_size(host.room)} free" if host.writable else "the data directory is not writable",
        hint="" if enough else "choose another directory with --home or CLAW_HOME",
    )


def _engine(engine: Engine) -> Iterator[Finding]:
    info = engine.info()
    yield Finding(
        check="podman answers", verdict="ok", detail=f"{info.version}, {info.runtime}, cgroup {info.cgroup_version}"
    )
    yield Finding(check="storage driver", verdict="ok", detail=info.storage_driver)
    yield Finding(
        check="rootless",
        verdict="ok" if info.rootless else "fail",
        detail="yes" if info.rootless else "no",
        hint="" if info.rootless else "run Podman as an unprivileged user",
    )
    yield Finding(
        check="system calls",
        verdict="ok" if info.seccomp else "fail",
        detail="Podman filters them (seccomp)"
        if info.seccomp
        else "Podman cannot filter them: no container is created",
        hint="" if info.seccomp else "use a kernel with CONFIG_SECCOMP_FILTER and a Podman with seccomp",
    )
    yield Finding(
        check="network helper",
        verdict="ok" if info.network else "fail",
        detail=info.network or "Podman has none: only workloads with `network: none` start",
        hint="" if info.network else "install passt (Podman 5 or newer) or slirp4netns",
    )


_DELEGATE = "delegate cgroup v2 controllers to this user (systemd does), or start with --limits drop"


def _limits(engine: Engine, references: Sequence[str]) -> Finding:
    """What a container shows of the limits that the engine claims; without an image for it, the claim alone."""
    claimed = engine.info(fresh=False).enforceable_limits
    missing = _names({"memory", "cpus", "pids"} - claimed)
    told = f"not enforceable here: {missing}" if missing else ""
    if not claimed:
        return Finding(check="limits", verdict="warn", detail=told, hint=_DELEGATE)
    image = _smallest(engine, references)
    if image is None:
        detail = told or "memory, cpus and pids, by their controllers; no image of a workload is there to prove it"
        return Finding(check="limits", verdict="warn" if told else "ok", detail=detail, hint=_DELEGATE if told else "")
    try:
        proof = limit_probe.prove(engine, image, claimed)
    except ClawError as error:
        detail = "; ".join(filter(None, [told, f"not proven: {error}"]))
        return Finding(check="limits", verdict="warn", detail=detail, hint=error.hint or _DELEGATE)
    held = f"a container had its limits of {_names(proof.held)}" if proof.held else ""
    lost = f"a container had no limit of {_names(proof.missing)}, although the controllers are there"
    parts = [told, held, lost if proof.missing else ""]
    verdict: Verdict = "fail" if proof.missing else "warn" if told else "ok"
    hint = "" if verdict == "ok" else _DELEGATE
    return Finding(check="limits", verdict=verdict, detail="; ".join(filter(None, parts)), hint=hint)


def _smallest(engine: Engine, references: Sequence[str]) -> str | None:
    """The smallest of these images, which the first container copies quickest; None if none can be used."""
    sizes: dict[str, int] = {}
    for reference in references:
        with suppress(ClawError):
            image = engine.image(reference)
            if not image.inherits:
                sizes[reference] = image.size
    return min(sizes, key=lambda one: sizes[one], default=None)


def _names(limits: Iterable[str]) -> str:
    return ", ".join(sorted(limits))


def _loaded(documents: Mapping[str, Document]) -> Finding:
    return Finding(
        check="workloads",
        verdict="ok" if documents else "warn",
        detail=", ".join(documents) or "none",
        hint="" if documents else "name a workload file: claw-runtime up docs/examples/openclaw/workload.yaml",
    )


def _filter(document: Document) -> Finding:
    check = f"seccomp of {document.workload.id}"
    try:
        text = filters.require(document)
    except ClawError as error:
        return _failed(check, error)
    name = filters.profile(document)
    if profiles.permissive(text):
        hint = "use strict, or set its defaultAction to SCMP_ACT_ERRNO and name the calls that are allowed"
        return Finding(check=check, verdict="warn", detail=f"{name} allows every call that it does not name", hint=hint)
    return Finding(check=check, verdict="ok", detail=name)


def _per_user(host: HostFacts, most: int) -> Iterator[Finding]:
    """What the kernel counts for all containers of a user together, against the sum of the pools' `max_size`."""
    limits = (
        ("kernel keys", host.keys, "kernel.keys.maxkeys", "kernel.keys.maxkeys=20000 kernel.keys.maxbytes=2000000"),
        ("inotify instances", host.inotify, "fs.inotify.max_user_instances", "fs.inotify.max_user_instances=8192"),
    )
    for check, limit, name, better in limits:
        if limit is None:
            continue
        enough = limit >= most + _OF_THE_HOST
        yield Finding(
            check=check,
            verdict="ok" if enough else "warn",
            detail=f"{limit} for this user ({name}), {most} containers at most",
            hint=""
            if enough
            else f"as root: sysctl -w {better}   (or run host/setup.sh), since each container may take one",
        )


def _workload(engine: Engine, document: Document, drop_limits: bool) -> Iterator[Finding]:
    reference = document.workload.image
    check = f"image of {document.workload.id}"
    try:
        image = engine.image(reference)
    except ClawError as error:
        yield _failed(check, error)
        return
    if image.inherits:
        yield Finding(
            check=check,
            verdict="fail",
            detail=f"{reference} has {image.inherits[0][:60]!r} in its environment without a value: it is refused",
            hint="build it again with ENV NAME=value, so that no variable of this host gets into a container",
        )
        return
    kind = "with a contract" if LABEL_CONTRACT in image.labels else "without a contract"
    yield Finding(check=check, verdict="ok", detail=f"{reference}, {format_size(image.size)}, {kind}")
    try:
        workload = plan.make(document, image.labels.get(LABEL_CONTRACT))
    except ClawError as error:
        yield _failed(f"plan of {document.workload.id}", error)
        return
    limits = {name for name, value in asdict(workload.limits).items() if value is not None}
    missing = ", ".join(sorted(limits - engine.info(fresh=False).enforceable_limits))
    if missing:
        yield _unenforced(document.workload.id, missing, drop_limits)


def _unenforced(pool: str, missing: str, drop_limits: bool) -> Finding:
    check = f"limits of {pool}"
    if drop_limits:
        hint = "its tenants can use all of this host; to enforce limits, delegate cgroup v2 controllers to this user"
        return Finding(check=check, verdict="warn", detail=f"dropped: {missing}", hint=hint)
    hint = (
        "remove them from the workload file, delegate cgroup v2 controllers to this user, or start with --limits drop"
    )
    return Finding(check=check, verdict="fail", detail=f"slots with {missing} cannot be created", hint=hint)


def _store(probed: tuple[ObjectStore, Capabilities] | None) -> Finding:
    if probed is None:
        return Finding(
            check="object store",
            verdict="warn",
            detail="no bucket is configured: `up` starts its own S3 server on this disk",
            hint="set CLAW_BUCKET, so that states survive the loss of this disk",
        )
    store, capabilities = probed
    lacks = f"; it lacks {', '.join(capabilities.missing)}" if capabilities.missing else ""
    return Finding(
        check="object store",
        verdict="warn" if lacks else "ok",
        detail=f"{store.url}: reachable, conditional writes are honoured{lacks}",
        hint="docs/CONFORMANCE.md explains the effects" if lacks else "",
    )
