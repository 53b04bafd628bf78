"""Doctor: every finding of every check, over hosts, engines and stores that are made up."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from claw_runtime.errors import (
    BucketMissing,
    ClawError,
    EngineUnavailable,
    EngineUnsupported,
    InvalidSpec,
    StorageUnusable,
    StoreDenied,
    StoreDishonest,
    StoreUnavailable,
)
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.operations import limit_probe
from claw_runtime.operations.doctor import ROOM_WANTED, SUBORDINATE_IDS, Finding, examine
from claw_runtime.ports import Capabilities, ContainerSpec, Engine, ExecResult, HostFacts, ObjectStore
from claw_runtime.spec import loader
from claw_runtime.spec.loader import Document
from claw_runtime.tenancy import LABEL_CONTRACT
from fakes.engine import FakeEngine
from fakes.world import IMAGE, WORKLOAD

HOST = HostFacts(
    user="claw",
    uid=1000,
    podman="/usr/bin/podman",
    init="/usr/libexec/podman/catatonit",
    subordinate_uids=SUBORDINATE_IDS,
    subordinate_gids=SUBORDINATE_IDS,
    tun=True,
    systemd=True,
    room=ROOM_WANTED,
    writable=True,
    keys=20_000,
    inotify=8_192,
)

ABLE = Capabilities(
    put_if_absent=True,
    compare_and_swap=True,
    ranges=True,
    conditional_delete=True,
    multipart=True,
    checksums=True,
    paging=True,
)


PROFILE = '{"defaultAction": "%s", "syscalls": []}'


def engine() -> FakeEngine:
    made = FakeEngine()
    made.add_image(IMAGE)
    return made


def documents() -> dict[str, Document]:
    return {"small": loader.parse(WORKLOAD, Path("small.yaml"))}


def failing(error: ClawError) -> Callable[[], object]:
    def fail() -> object:
        raise error

    return fail


def findings(
    host: HostFacts = HOST,
    *,
    engine: Callable[[], Engine] = engine,
    store: Callable[[], tuple[ObjectStore, Capabilities] | None] = lambda: (MemoryStore(), ABLE),
    documents: Callable[[], Mapping[str, Document]] = documents,
    operators: Callable[[], Sequence[bytes]] = tuple,
    drop_limits: bool = False,
) -> dict[str, Finding]:
    """All findings by their check; no check is made twice."""
    found = list(examine(host, engine, store, documents, operators, drop_limits=drop_limits))
    assert len({one.check for one in found}) == len(found)
    return {one.check: one for one in found}


def test_a_good_host_has_nothing_to_mend() -> None:
    """Where everything is there, everything is ok and nothing is advised."""
    found = findings()

    assert {one.verdict for one in found.values()} == {"ok"}
    assert {one.hint for one in found.values()} == {""}
    assert list(found) == [
        "unprivileged user",
        "podman installed",
        "init of containers",
        "subordinate ids",
        "container network",
        "room for data",
        "podman answers",
        "storage driver",
        "rootless",
        "system calls",
        "network helper",
        "workloads",
        "kernel keys",
        "inotify instances",
        "seccomp of small",
        "image of small",
        "limits",
        "object store",
    ]


@pytest.mark.parametrize(
    ("host", "check", "verdict", "hint"),
    [
        (replace(HOST, uid=0, user="root"), "unprivileged user", "fail", "unprivileged user"),
        (replace(HOST, podman=None), "podman installed", "fail", "apt-get install podman"),
        (replace(HOST, init=None), "init of containers", "fail", "apt-get install catatonit"),
        (replace(HOST, subordinate_uids=0), "subordinate ids", "fail", "--add-subuids"),
        (replace(HOST, subordinate_gids=SUBORDINATE_IDS - 1), "subordinate ids", "fail", "usermod"),
        (replace(HOST, tun=False), "container network", "warn", "/dev/net/tun"),
        (replace(HOST, cgroup_v2=False), "cgroup v2", "warn", "unified_cgroup_hierarchy"),
        (replace(HOST, selinux=True), "SELinux", "warn", "container_file_t"),
        (replace(HOST, room=ROOM_WANTED - 1), "room for data", "warn", "CLAW_HOME"),
        (replace(HOST, writable=False), "room for data", "fail", "CLAW_HOME"),
        (replace(HOST, writable=False, room=0), "room for data", "fail", "CLAW_HOME"),
    ],
)
def test_hosts(host: HostFacts, check: str, verdict: str, hint: str) -> None:
    """Each fault of a host is found, alone, with the way to mend it."""
    found = findings(host)

    assert (found[check].verdict, hint in found[check].hint) == (verdict, True)
    assert [one.check for one in found.values() if one.verdict != "ok"] == [check]


def test_without_podman_nobody_asks_it() -> None:
    """On a host without Podman the engine is not opened, and the rest is still examined."""
    found = findings(replace(HOST, podman=None), engine=failing(AssertionError()))  # type: ignore[arg-type]

    assert "podman answers" not in found
    assert (found["workloads"].verdict, found["object store"].verdict) == ("ok", "ok")
    assert "image of small" not in found


@pytest.mark.parametrize(
    "error",
    [
        EngineUnavailable("Podman does not answer", why="timeout", hint="look at it"),
        StorageUnusable("Podman stores with vfs", why="no storage.conf", hint="write one"),
        EngineUnsupported("Podman 6.0.0 is too new", why="no test ran on it", hint="install another"),
    ],
)
def test_an_engine_that_does_not_answer(error: ClawError) -> None:
    """What the engine raises is a finding in its own words, and the rest is still examined."""
    found = findings(engine=failing(error))  # type: ignore[arg-type]

    assert found["podman answers"] == Finding(
        check="podman answers", verdict="fail", detail=str(error), hint=error.hint
    )
    assert found["object store"].verdict == "ok"


def test_an_engine_that_fails_later() -> None:
    """An engine that opens and then fails is one finding, not the end of the examination."""
    made = engine()
    made.fail("info", EngineUnavailable("gone", hint="look"))

    assert findings(engine=lambda: made)["podman answers"].verdict == "fail"


def test_podman_of_root() -> None:
    """A Podman that runs as root is a failure."""
    made = engine()
    made.host = replace(made.host, rootless=False)

    assert findings(engine=lambda: made)["rootless"].verdict == "fail"


@pytest.mark.parametrize(
    ("controllers", "missing"),
    [(("cpu", "pids"), "memory"), ((), "cpus, memory, pids"), (("hugetlb", "memory"), "cpus, pids")],
)
def test_limits_that_cannot_be_enforced(controllers: tuple[str, ...], missing: str) -> None:
    """Missing controllers are a warning that names the limits as a workload file does."""
    made = engine()
    made.host = replace(made.host, cgroup_controllers=controllers)

    found = findings(engine=lambda: made)["limits"]

    assert (found.verdict, found.detail.partition(";")[0]) == ("warn", f"not enforceable here: {missing}")
    assert "--limits drop" in found.hint


def test_without_controllers_no_container_is_made() -> None:
    """There is nothing to prove, and the finding says that nothing is enforced."""
    made = engine()
    made.host = replace(made.host, cgroup_controllers=())
    assert findings(engine=lambda: made)["limits"].detail == "not enforceable here: cpus, memory, pids"
    assert "create" not in made.calls


def test_limits_are_proven_in_a_container() -> None:
    """What its own control group says counts, and not the files of the host."""
    made = engine()
    found = findings(engine=lambda: made)["limits"]
    assert (found.verdict, found.detail) == ("ok", "a container had its limits of cpus, memory, pids")
    assert made.list({}) == []


def test_a_limit_that_does_not_hold_fails() -> None:
    """The controllers are there, and the container is not limited all the same."""

    def lax(spec: ContainerSpec, argv: Sequence[str], environment: Mapping[str, str]) -> ExecResult:
        lines = f"{limit_probe.WANTED['memory']}\ncpu.max max 100000\n{limit_probe.WANTED['pids']}\npids.events max 0\n"
        return ExecResult(exit_code=0, stdout=lines.encode(), stderr=b"")

    made = engine()
    made.commands = lax
    found = findings(engine=lambda: made)["limits"]
    assert found.verdict == "fail"
    assert "a container had its limits of memory;" in found.detail
    assert "no limit of cpus, pids" in found.detail


def test_without_an_image_the_controllers_are_believed() -> None:
    """And the finding says that nothing was proven."""
    found = findings(documents=dict)["limits"]
    assert (found.verdict, "by their controllers" in found.detail) == ("ok", True)


def test_the_smallest_image_is_the_probes() -> None:
    """The first container of an image copies its layers; one that inherits variables is not used."""
    made = FakeEngine()
    made.add_image("inherits", inherits=("AWS_*",))
    made.add_image(IMAGE)
    texts = [WORKLOAD, WORKLOAD.replace("id: small", "id: other").replace(IMAGE, "inherits")]
    two = {str(number): loader.parse(text, Path("w.yaml")) for number, text in enumerate(texts)}
    used: list[str] = []
    made.commands = lambda spec, *_: used.append(spec.image) or ExecResult(exit_code=0, stdout=b"", stderr=b"")  # type: ignore[func-returns-value]
    findings(engine=lambda: made, documents=lambda: two)
    assert used == [IMAGE]


def test_no_workloads() -> None:
    """A host without a workload can be up, to no purpose: a warning."""
    assert findings(documents=dict)["workloads"].verdict == "warn"


def test_a_wrong_workload_file() -> None:
    """A file that cannot be read is a failure with its line, and the store is still examined."""
    found = findings(documents=failing(InvalidSpec("w.yaml:3:1: unknown key 'imag'", hint="did you mean 'image'?")))  # type: ignore[arg-type]

    assert (found["workloads"].verdict, found["workloads"].hint) == ("fail", "did you mean 'image'?")
    assert "w.yaml:3:1" in found["workloads"].detail
    assert found["object store"].verdict == "ok"


def test_an_image_that_is_not_there() -> None:
    """A workload whose image is missing is a failure of its own check."""
    found = findings(engine=FakeEngine)["image of small"]

    assert found.verdict == "fail"
    assert IMAGE in found.detail
    assert found.hint


@pytest.mark.parametrize(("labels", "kind"), [({}, "without a contract"), ({LABEL_CONTRACT: "{}"}, "with a contract")])
def test_an_image_says_whether_it_promises_anything(labels: dict[str, str], kind: str) -> None:
    """An image with a contract is told from one without."""
    made = FakeEngine()
    made.add_image(IMAGE, labels=labels)

    assert findings(engine=lambda: made)["image of small"].detail.endswith(kind)


def test_a_file_that_does_not_fit_its_image() -> None:
    """A contract that promises nothing is a failure of its own check: no slot could be made."""
    made = FakeEngine()
    made.add_image(IMAGE, labels={LABEL_CONTRACT: "{}"})

    assert findings(engine=lambda: made)["plan of small"].verdict == "fail"


@pytest.mark.parametrize(
    ("drop", "verdict", "detail"),
    [(False, "fail", "slots with cpus, memory cannot be created"), (True, "warn", "dropped: cpus, memory")],
)
def test_limits_of_a_workload(*, drop: bool, verdict: str, detail: str) -> None:
    """Limits that this host cannot enforce keep a pool empty, or are dropped, and the doctor says so each time."""
    made = engine()
    made.host = replace(made.host, cgroup_controllers=("pids",))
    text = WORKLOAD + "deploy: {resources: {limits: {memory: 64m, cpus: 1, pids: 64}}}\n"
    limited = {"small": loader.parse(text, Path("small.yaml"))}

    found = findings(engine=lambda: made, documents=lambda: limited, drop_limits=drop)["limits of small"]

    assert (found.verdict, found.detail) == (verdict, detail)
    assert found.hint


def test_no_bucket_is_a_warning() -> None:
    """Without a bucket states lie on this disk alone."""
    found = findings(store=lambda: None)["object store"]

    assert (found.verdict, "CLAW_BUCKET" in found.hint) == ("warn", True)


def test_what_a_store_lacks_is_said() -> None:
    """It may be used, and the operator knows."""
    partial = replace(ABLE, checksums=False, conditional_delete=False)
    found = findings(store=lambda: (MemoryStore(), partial))["object store"]
    assert found.verdict == "warn"
    assert found.detail.endswith("conditional writes are honoured; it lacks conditional delete, checksums")
    assert "CONFORMANCE" in found.hint


@pytest.mark.parametrize("cls", [StoreUnavailable, StoreDenied, BucketMissing, StoreDishonest])
def test_a_store_that_cannot_be_used(cls: type[ClawError]) -> None:
    """What the store raises is a finding in its own words."""
    found = findings(store=failing(cls("it does not work", why="a cause", hint="a cure")))["object store"]  # type: ignore[arg-type]

    assert found == Finding(check="object store", verdict="fail", detail="it does not work: a cause", hint="a cure")


def test_every_fault_has_a_remedy() -> None:
    """No finding but an ok one comes without something to do."""
    worst = replace(
        HOST, uid=0, podman=None, init=None, keys=1, inotify=1, subordinate_uids=0, tun=False, room=0, writable=False
    )
    found = findings(worst, store=lambda: None, documents=dict)

    assert all(one.hint for one in found.values() if one.verdict != "ok")
    assert sum(one.verdict != "ok" for one in found.values()) == len(found)


def test_an_operators_key_that_cannot_be_used_fails_the_check() -> None:
    """As does what it says at the start of the daemon; one that can is counted, none is no fault."""
    told = findings(operators=lambda: (b"o" * 32,))["encryption"]
    assert (told.verdict, told.detail) == ("ok", "states are encrypted with the first of 1 operator's keys")
    assert "encryption" not in findings()
    refused = InvalidSpec("others can read it", hint="chmod 0600")
    found = findings(operators=failing(refused))["encryption"]  # type: ignore[arg-type]
    assert found == Finding(check="encryption", verdict="fail", detail="others can read it", hint="chmod 0600")


@pytest.mark.parametrize(
    ("text", "verdict"),
    [(PROFILE % "SCMP_ACT_ERRNO", "ok"), (PROFILE % "SCMP_ACT_ALLOW", "warn"), ("{}", "fail"), (None, "fail")],
)
def test_an_operators_profile_is_read(tmp_path: Path, text: str | None, verdict: str) -> None:
    """A profile that is missing or none fails, one that allows what it does not name is a warning; each names it."""
    if text is not None:
        (tmp_path / "own.json").write_text(text)
    found = findings(
        documents=lambda: {"small": loader.parse(f"{WORKLOAD}seccomp: ./own.json\n", tmp_path / "small.yaml")}
    )
    one = found["seccomp of small"]
    assert one.verdict == verdict
    assert f"{tmp_path}/own.json" in one.detail
    assert bool(one.hint) == (verdict != "ok")


def test_an_image_that_inherits_variables_fails() -> None:
    """With the entry that is at fault, before a pool tries to fill itself."""
    made = FakeEngine()
    made.add_image(IMAGE, inherits=("AWS_*",))
    found = findings(engine=lambda: made)["image of small"]
    assert (found.verdict, "'AWS_*'" in found.detail, "ENV NAME=value" in found.hint) == ("fail", True, True)


def test_claws_own_profile_is_named() -> None:
    """Without the key the finding says strict."""
    assert findings()["seccomp of small"].detail == "strict"


def test_a_podman_without_seccomp_fails() -> None:
    """It would run every container without a filter, and say nothing."""
    made = engine()
    made.host = replace(made.host, seccomp=False)
    found = findings(engine=lambda: made)["system calls"]
    assert (found.verdict, "no container" in found.detail, "CONFIG_SECCOMP_FILTER" in found.hint) == (
        "fail",
        True,
        True,
    )


@pytest.mark.parametrize(("helper", "verdict"), [("pasta", "ok"), ("slirp4netns", "ok"), ("", "fail")])
def test_the_helper_for_networks_is_named(helper: str, verdict: str) -> None:
    """Without one no container with a network starts, and the hint names the packages."""
    made = engine()
    made.host = replace(made.host, network=helper)
    found = findings(engine=lambda: made)["network helper"]
    assert (found.verdict, "passt" in found.hint) == (verdict, verdict == "fail")


@pytest.mark.parametrize(
    ("limit", "check", "hint"),
    [("keys", "kernel keys", "kernel.keys.maxkeys"), ("inotify", "inotify instances", "fs.inotify.max_user_instances")],
)
def test_the_sum_of_all_pools_must_fit_into_the_user_s_limits(limit: str, check: str, hint: str) -> None:
    """Each container may take one, and the user's own sessions take some; a kernel that tells nothing is no fault."""
    two = {name: loader.parse(WORKLOAD.replace("id: small", f"id: {name}"), Path("w.yaml")) for name in ("a", "b")}
    needed = 2 * 3 + 20
    for room, verdict in ((needed, "ok"), (needed - 1, "warn")):
        found = findings(replace(HOST, **{limit: room}), documents=lambda: two)[check]
        assert found.verdict == verdict
        assert (hint in found.hint) is (verdict == "warn")
        assert "6 containers" in found.detail
    assert check not in findings(replace(HOST, **{limit: None}))
