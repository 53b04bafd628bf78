"""Podman's words become our errors: each class with what happened, why, and what to do."""

import http.client
import inspect
import json
import warnings
from dataclasses import replace
from pathlib import Path

import podman.errors
import pytest
import requests
from claw_runtime.engine import options
from claw_runtime.engine import podman as adapter
from claw_runtime.engine.refusals import refusal, refuse_what_cannot_be_enforced, refuses_state
from claw_runtime.errors import (
    ClawError,
    DiskFull,
    EngineFailed,
    EngineUnavailable,
    ImageMissing,
    NotClaimed,
    PortTaken,
)
from claw_runtime.ports import Bind, ContainerSpec, EngineInfo

HOST = EngineInfo(
    version="4.3.1",
    rootless=True,
    storage_driver="overlay",
    cgroup_version="v2",
    cgroup_controllers=("cpu", "memory", "pids"),
    runtime="crun",
)
PORT_IN_USE = "rootlessport listen tcp 127.0.0.1:55069: bind: address already in use"


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (None, "connection refused", EngineUnavailable),
        (500, "localhost/none:1: image not known", ImageMissing),
        (404, "failed to find image localhost/none:1: image not known", ImageMissing),
        (404, 'no container with name or ID "c" found: no such container', NotClaimed),
        (500, "no such container", NotClaimed),
        (500, PORT_IN_USE, PortTaken),
        (500, "write /x: no space left on device", DiskFull),
        (500, 'the container name "c" is already in use', EngineFailed),
        (500, "crun: the requested cgroup controller `pids` is not available", EngineFailed),
        (500, "anything else", EngineFailed),
    ],
)
def test_an_answer_becomes_an_error(status: int | None, message: str, expected: type[ClawError]) -> None:
    """The class follows from Podman's words more than from its status, and says what to do."""
    error = refusal("create", "c", status, message, image="localhost/none:1")
    assert type(error) is expected
    assert error.brief
    assert error.why
    assert error.hint


def test_a_missing_image_is_the_one_that_was_asked_for() -> None:
    """The message names the image, not the container that was to be made of it."""
    assert "localhost/none:1" in refusal("create", "c", 500, "image not known", image="localhost/none:1").brief


def test_a_taken_port_is_a_fact() -> None:
    """Callers read the port, they do not parse it."""
    assert refusal("initialise", "c", 500, PORT_IN_USE).facts["port"] == 55069


def public_errors() -> list[type[BaseException]]:
    """Every exception class that podman.errors offers, deprecated ones too."""
    return [kind for _name, kind in inspect.getmembers(podman.errors, inspect.isclass) if kind.__module__ != "typing"]


def instance(kind: type[BaseException]) -> BaseException:
    """Any instance; most need nothing, some want a reason and more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the deprecated classes say so
        for arguments in (("words",), ("words", []), (None, 1, "command", "image")):
            try:
                return kind(*arguments)
            except TypeError:
                continue
    pytest.fail(f"cannot make a {kind.__name__}")


@pytest.mark.parametrize("kind", public_errors(), ids=lambda kind: kind.__name__)
def test_every_error_of_podman_py_is_mapped(kind: type[BaseException]) -> None:
    """No exception class of podman-py passes the adapter."""
    with pytest.raises(ClawError), adapter._mapping_errors("start", "c"):
        raise instance(kind)


def test_the_list_of_podman_py_errors_is_not_empty() -> None:
    """The test above looks at the classes that podman-py 5.8 has."""
    names = {kind.__name__ for kind in public_errors()}
    assert {"APIError", "BuildError", "ContainerError", "ImageNotFound", "NotFound", "StreamParseError"} <= names


@pytest.mark.parametrize(
    "error",
    [
        requests.ConnectionError("refused"),
        requests.ReadTimeout("slow"),
        ConnectionResetError("reset"),
        http.client.RemoteDisconnected("gone"),
        TimeoutError("slow"),
        podman.errors.APIError("http://x", explanation="GET operation failed"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_broken_connection_means_that_the_engine_does_not_answer(error: Exception) -> None:
    """Whatever layer notices it, and nothing of the layer's class leaks."""
    with pytest.raises(EngineUnavailable) as caught, adapter._mapping_errors("start", "c"):
        raise error
    assert caught.value.__cause__ is error


def test_podmans_status_and_words_are_read_from_the_answer() -> None:
    """A real 500 of Podman 4.3.1 for a missing image is ImageMissing."""
    response = requests.Response()
    response.status_code = 500
    body = {"cause": "image not known", "message": "localhost/none:1: image not known", "response": 500}
    response._content = json.dumps(body).encode()
    error = podman.errors.APIError(body["cause"], response=response, explanation=str(body["message"]))
    with pytest.raises(ImageMissing), adapter._mapping_errors("create", "c", image="localhost/none:1"):
        raise error


@pytest.mark.parametrize(
    ("answers", "asked"),
    [(["end", "end", "fine"], 3), (["fine"], 1), (["other"], 1), (["end"] * 9, 1 + len(adapter._ENDING_SECONDS))],
)
def test_a_question_that_meets_a_program_s_end_is_put_again(
    answers: list[str], asked: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`/proc` of a process that just ended answers ESRCH, and Podman 500; other refusals are final at once."""
    said = {"end": "read /proc/14666/cgroup: no such process", "other": "anything else", "fine": "{}"}
    made = []

    def answer() -> requests.Response:
        made.append(requests.Response())
        kind = answers[len(made) - 1]
        made[-1].status_code = 200 if kind == "fine" else 500
        made[-1]._content = said[kind].encode()
        return made[-1]

    monkeypatch.setattr(adapter, "_ENDING_SECONDS", [0.0] * len(adapter._ENDING_SECONDS))
    engine = adapter.PodmanEngine(tmp_path / "podman.sock")
    monkeypatch.setattr(engine, "_twice", lambda _ask: answer())

    assert engine._get("/containers/c/json") is made[-1]
    assert len(made) == asked


def test_our_own_errors_pass() -> None:
    """A ClawError is not wrapped a second time."""
    with pytest.raises(DiskFull, match="no room"), adapter._mapping_errors("create", "c"):
        raise DiskFull("no room")


def test_a_limit_without_its_controller_is_refused_by_name() -> None:
    """`cpus` needs the controller `cpu`; the message names the limit and says how to go on."""
    spec = ContainerSpec(name="c", image="i", memory=1 << 30, cpus=0.5, pids=64)
    refuse_what_cannot_be_enforced(spec, HOST)
    with pytest.raises(EngineFailed, match="cpus, pids") as caught:
        refuse_what_cannot_be_enforced(spec, replace(HOST, cgroup_controllers=("memory",)))
    assert caught.value.facts["limits"] == ["cpus", "pids"]
    assert "delegate" in caught.value.hint
    refuse_what_cannot_be_enforced(ContainerSpec(name="c", image="i"), replace(HOST, cgroup_controllers=()))


def test_no_limit_needs_no_controller() -> None:
    """`pids` 0 asks for no limit, so a host without the controller takes it; with 1 it is refused."""
    bare = replace(HOST, cgroup_controllers=())
    refuse_what_cannot_be_enforced(ContainerSpec(name="c", image="i", pids=0), bare)
    with pytest.raises(EngineFailed, match="pids"):
        refuse_what_cannot_be_enforced(ContainerSpec(name="c", image="i", pids=1), bare)


def test_a_bind_that_podman_py_would_misread_is_refused(tmp_path: Path) -> None:
    """A relative source would become a named volume, a second bind of one source would vanish."""
    for sources in ([Path("state")], [tmp_path, tmp_path]):
        binds = [Bind(source=source, target=f"/{n}") for n, source in enumerate(sources)]
        spec = ContainerSpec(name="c", image="i", binds=binds)
        with pytest.raises(EngineFailed, match="cannot mount"):
            options.of(spec, profile=tmp_path, cgroup_parent=None, log_driver="k8s-file", helper="slirp4netns")


@pytest.mark.parametrize(
    "said",
    [
        "crun: create keyring `3f2a`: Disk quota exceeded: OCI runtime error",
        "runc: runc create failed: unable to join session keyring: unable to create session key: disk quota exceeded",
    ],
)
def test_keys_that_are_used_up_are_no_full_disk(said: str) -> None:
    """Both runtimes speak of a quota; the error names the limit of the kernel."""
    error = refusal("initialise", "c", 500, said)
    assert type(error) is EngineFailed
    assert "kernel.keys.maxkeys" in error.hint
    assert "kernel key" in error.brief
    assert type(refusal("create", "c", 500, "write /x: disk quota exceeded")) is DiskFull


def test_a_host_without_an_init_gets_a_hint_what_to_install() -> None:
    """Podman 4.3 names the file that it looked for; the hint names the package."""
    said = "finding init binary: container-init binary not found on the host: stat /usr/libexec/podman/catatonit"
    assert "apt-get install catatonit" in refusal("create", "c", 500, said).hint


def test_podmans_words_lead_to_a_hint_of_their_own() -> None:
    """What is paused, and a host that cannot freeze, are told apart from other refusals."""
    said = "container state improper"
    assert "paused" in refusal("run 'true' in", "c", 500, said).hint
    said = "crun: seccomp_rule_add_array: File exists"
    assert "strict" in refusal("initialise", "c", 500, said).hint
    said = "cannot pause the container without a cgroup"
    assert "CLAW_CGROUP_PARENT" in refusal("pause", "c", 500, said).hint


@pytest.mark.parametrize(
    "said",
    [
        "can only create exec sessions on running containers: container state improper",
        "cannot create exec session as container c is paused",
        "cannot exec in a container that is not running; container c is paused",
    ],
)
def test_a_refusal_of_a_paused_container_is_recognised(said: str) -> None:
    """Podman started nothing, so the command may be tried again when the container runs."""
    assert isinstance(error := refusal("run 'true' in", "c", 409, said), EngineFailed)
    assert refuses_state(error)
    assert "status" in error.hint
    assert not refuses_state(EngineFailed("podman refused", why="no such file"))
