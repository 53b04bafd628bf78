"""Hints about valid keys of a workload file that have an unexpected effect or none."""

import posixpath
from collections.abc import Iterable, Iterator

from claw_runtime.spec.marks import Hint, Marked, Place
from claw_runtime.spec.places import locate, state_mounts, volumes
from claw_runtime.spec.sync import endpoint
from claw_runtime.spec.workload import WorkloadFile

LATER = {
    ("pool", "idle_timeout"): "nothing puts a tenant to sleep by itself yet",
    ("pool", "file_idle_ttl"): "nothing puts a tenant to sleep by itself yet",
    ("policy", "min_running"): "nothing puts a tenant to sleep by itself yet",
    ("policy", "min_warm"): "frozen containers are currently removed when space runs out",
}
"""Keys that are checked but have no effect yet, each with a hint."""


def advice(file: WorkloadFile, marked: Marked) -> list[Hint]:
    """Hints about a valid file, at their places."""
    found = _hints(marked, (*_ignored(file), *_surprising(file), *_mappings(file)))
    for place, why in LATER.items():
        if place in marked.keys:
            found.append(Hint(mark=marked.keys[place], kind="ignored", what=f"{'.'.join(map(str, place))}: {why}"))
    return found


def located(file: WorkloadFile, marked: Marked, state: str) -> list[Hint]:
    """Hints about mappings whose path is not in the state, once the image's contract gives the state's path."""
    return [] if "state" in file.volumes else _hints(marked, _places(file, state))


def _hints(marked: Marked, told: Iterable[tuple[Place, str, str]]) -> list[Hint]:
    return [
        Hint(mark=marked.keys.get(place, marked.values[place]), kind=kind, what=what)  # type: ignore[arg-type]
        for place, kind, what in told
        if place in marked.values
    ]


def _ignored(file: WorkloadFile) -> Iterator[tuple[Place, str, str]]:
    policy, sink = file.sync.policy, file.sync.sink
    if not policy.on_claim:
        yield (
            ("sync", "policy", "on_claim"),
            "ignored",
            "on_claim false is ignored: a tenant never starts without its state",
        )
    if not policy.on_release:
        yield (
            ("sync", "policy", "on_release"),
            "ignored",
            "on_release false is ignored: a release stores the state unless it has --no-sync",
        )
    if not policy.manual:
        yield (
            ("sync", "policy", "manual"),
            "ignored",
            "manual false is ignored: an operator can always store state",
        )
    if sink is not None and sink.rclone_flags:
        yield ("sync", "sink", "rclone_flags"), "ignored", "rclone_flags has no effect: nothing here runs rclone"


def _surprising(file: WorkloadFile) -> Iterator[tuple[Place, str, str]]:
    sink = file.sync.sink
    if sink is not None and sink.secret_access_key is not None:
        what = "anyone who can read this file has the keys: set CLAW_S3_ACCESS_KEY and CLAW_S3_SECRET_KEY instead"
        yield ("sync", "sink", "secret_access_key"), "advice", what
    if sink is not None and sink.endpoint != endpoint(sink):
        what = f"this host stores states, not a container: the endpoint is taken as {endpoint(sink)}"
        yield ("sync", "sink", "endpoint"), "advice", what
    if file.user is not None:
        what = f"user {file.user} is the host's own user, mapped into the container (keep-id): leave it out"
        yield ("user",), "advice", what
    if file.seccomp == "browser":
        what = (
            "seccomp browser lets a program make user namespaces, in which it has capabilities: use it only for images"
            " whose browser needs its own sandbox"
        )
        yield ("seccomp",), "advice", what
    if "DOCKER_HOST" in file.environment:
        what = (
            "DOCKER_HOST names a container engine: a program that reaches one can leave its container; claw provides"
            " none, and no filter in front of one makes it safe"
        )
        yield ("environment", "DOCKER_HOST"), "advice", what
    secrets = file.volumes.get("secrets")
    if secrets is not None and "." in posixpath.basename(secrets.target):
        what = f"{secrets.target} becomes a directory that holds values.json; it is not a file of variables"
        yield ("volumes", "secrets", "target"), "advice", what


def _mappings(file: WorkloadFile) -> Iterator[tuple[Place, str, str]]:
    sync = file.sync
    if sync.mappings and sync.rest == "store" and "rest" not in sync.model_fields_set:
        what = (
            "files that no mapping names are stored and restored too, so a list for another version of the program"
            " loses nothing: set rest: store to confirm this, or rest: ignore to leave them out"
        )
        yield ("sync", "mappings"), "advice", what
    if sync.rest == "ignore":
        what = "rest ignore: files that no mapping names are neither stored nor restored, and exist until the release"
        yield ("sync", "rest"), "advice", what
    for number, mapping in enumerate(sync.mappings):
        at: Place = ("sync", "mappings", number)
        if mapping.direction == "upload":
            what = (
                "direction upload: at a claim the program starts without it; bidirectional brings it back, and is safe"
                " for databases too, which are stored as one consistent file"
            )
            yield (*at, "direction"), "advice", what
        if mapping.sink_path is not None and not mapping.plain_view:
            yield (*at, "sink_path"), "ignored", "sink_path is where the plain view is: it needs plain_view: true"
    if "state" in file.volumes:  # else the image's contract has the answer
        yield from _places(file, file.volumes["state"].target)


def _places(file: WorkloadFile, state: str) -> Iterator[tuple[Place, str, str]]:
    own = volumes(state, state_mounts(file))
    for number, mapping in enumerate(file.sync.mappings):
        around = posixpath.normpath(posixpath.join(posixpath.dirname(state), mapping.path))
        found = locate(mapping.path, state, own)
        if found is None or (found[0] != around and posixpath.dirname(state) != "/"):
            meant = f"is taken as {found[0]}: {around}" if found else "names nothing: it"
            what = (
                f"{mapping.path} {meant} is in no volume of the tenant's own, so it is not stored: give it one"
                " under volumes, with per_tenant: true"
            )
            yield ("sync", "mappings", number, "path"), "advice", what
