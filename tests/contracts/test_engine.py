"""What every `ports.Engine` promises, on the fake and on real Podman (marker `podman`).

The services are tested on the fake alone; this suite is what makes that honest.
"""

import os
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from claw_runtime.engine import command
from claw_runtime.errors import DiskFull, EngineFailed, ImageMissing, NotClaimed, PortTaken
from claw_runtime.ports import Bind, Container, ContainerSpec, Engine
from fakes import live_podman
from fakes.engine import FakeEngine

LABEL = "io.claw.test"
OWN = f"engine-{os.getpid()}"
NUMBER = count()


class Subject:
    """An engine with an image, and the containers that a test makes; all are removed afterwards."""

    def __init__(self, engine: Engine, image: str) -> None:
        self.engine = engine
        self.image = image
        self.made: list[str] = []

    def spec(self, **changes: Any) -> ContainerSpec:
        name = f"claw-test-{OWN}-{next(NUMBER)}"
        return replace(
            ContainerSpec(name=name, image=self.image, labels={LABEL: OWN}, network="none", stop_timeout=2), **changes
        )

    def create(self, **changes: Any) -> str:
        self.made.append(self.engine.create(self.spec(**changes)))
        return self.made[-1]

    def running(self, **changes: Any) -> str:
        container = self.create(**changes)
        self.engine.start(container)
        return container

    def look(self, container: str) -> Container:
        seen = self.engine.inspect(container)
        assert seen is not None
        return seen


@pytest.fixture(scope="module")
def podman() -> Iterator[Subject]:
    """One service for all tests of the module; each test still makes its own containers."""
    with live_podman.directory_in() as home:
        with live_podman.engine_at(home / "podman.sock") as engine:
            yield Subject(engine, live_podman.small_image())
        assert live_podman.left_processes(home) == []


@pytest.fixture(params=["fake", pytest.param("podman", marks=pytest.mark.podman)])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """The engine under test."""
    if request.param == "fake":
        fake = FakeEngine()
        fake.add_image("localhost/small:1")
        yield Subject(fake, "localhost/small:1")
        return
    live: Subject = request.getfixturevalue("podman")
    yield live
    for container in live.made:
        live.engine.remove(container)
    live.made.clear()
    assert live.engine.list({LABEL: OWN}) == []


def test_a_new_container_has_run_nothing(subject: Subject) -> None:
    """`create` gives a container by id and by name, in state created, without a process."""
    spec = subject.spec()
    container = subject.engine.create(spec)
    subject.made.append(container)
    by_name = subject.look(spec.name)
    assert by_name == subject.look(container)
    assert (by_name.id, by_name.name, by_name.state, by_name.pid) == (container, spec.name, "created", 0)
    assert by_name.exit_code is None
    assert by_name.image_id == subject.engine.image(subject.image).id
    assert subject.engine.logs(container) == b""


def test_initialising_runs_no_code_of_the_image(subject: Subject) -> None:
    """After `initialize` there is a process, but the program has not said anything; a second call is fine."""
    container = subject.create()
    subject.engine.initialize(container)
    subject.engine.initialize(container)
    assert subject.look(container).state == "initialized"
    assert subject.look(container).pid > 0
    assert subject.engine.logs(container) == b""


@pytest.mark.parametrize("initialised", [True, False])
def test_starting_runs_the_program(subject: Subject, initialised: bool) -> None:
    """A created and an initialised container both start; starting a running one changes nothing."""
    container = subject.create()
    if initialised:
        subject.engine.initialize(container)
    subject.engine.start(container)
    subject.engine.start(container)
    assert subject.look(container).state == "running"
    assert until(lambda: subject.engine.logs(container)) == b"started\n"


def test_a_container_that_is_gone_is_no_surprise(subject: Subject) -> None:
    """What ends a container accepts that it is gone, what needs one says NotClaimed."""
    container = subject.running()
    subject.engine.remove(container)
    subject.engine.remove(container)
    assert subject.engine.stop(container, 1) is None
    assert subject.engine.inspect(container) is None
    for call in (subject.engine.start, subject.engine.initialize, subject.engine.logs):
        with pytest.raises(NotClaimed):
            call(container)
    with pytest.raises(NotClaimed):
        subject.engine.execute(container, ["true"])


def test_stopping_tells_the_exit_code(subject: Subject) -> None:
    """A program that ends on SIGTERM gives its own code; stopping again tells it again."""
    container = subject.running()
    until(lambda: subject.engine.logs(container))
    assert subject.engine.stop(container, 5) == 0
    assert subject.look(container).state == "exited"
    assert subject.look(container).exit_code == 0
    assert subject.engine.stop(container, 5) == 0


def test_stopping_what_never_ran_is_fine(subject: Subject) -> None:
    """A created container has no exit code."""
    assert subject.engine.stop(subject.create(), 1) is None


@pytest.mark.parametrize("prepare", ["create", "initialize", "start", "stop"])
def test_a_container_is_removed_from_any_state(subject: Subject, prepare: str) -> None:
    """`remove` never waits for the stop timeout."""
    container = subject.create(command=["sleep", "60"] if prepare == "start" else [], stop_timeout=60)
    if prepare == "initialize":
        subject.engine.initialize(container)
    if prepare in ("start", "stop"):
        subject.engine.start(container)
    if prepare == "stop":
        until(lambda: subject.engine.logs(container))
        subject.engine.stop(container, 5)
    begun = time.monotonic()
    subject.engine.remove(container)
    assert time.monotonic() - begun < 10
    assert subject.engine.inspect(container) is None


def test_listing_needs_every_label(subject: Subject) -> None:
    """A container is listed in any state, when it carries all the labels that were asked for."""
    one = subject.create(labels={LABEL: OWN, "io.claw.which": "one", "io.claw.text": "a=b c"})
    two = subject.running(labels={LABEL: OWN, "io.claw.which": "two"})
    assert {seen.id for seen in subject.engine.list({LABEL: OWN})} == {one, two}
    assert [seen.id for seen in subject.engine.list({LABEL: OWN, "io.claw.which": "two"})] == [two]
    assert [seen.id for seen in subject.engine.list({"io.claw.text": "a=b c"})] == [one]
    assert subject.engine.list({LABEL: OWN, "io.claw.which": "three"}) == []


def test_a_listing_says_what_inspection_says(subject: Subject) -> None:
    """Both ways to look at a container agree, before, while and after it runs."""
    container = subject.create(network="private", port=8080)
    assert list(subject.engine.list({LABEL: OWN})) == [subject.look(container)]
    subject.engine.start(container)
    assert list(subject.engine.list({LABEL: OWN})) == [subject.look(container)]
    until(lambda: subject.engine.logs(container))
    subject.engine.stop(container, 5)
    assert list(subject.engine.list({LABEL: OWN})) == [subject.look(container)]


def test_a_missing_image_is_named(subject: Subject) -> None:
    """Nothing is pulled: looking, mapping and creating all say ImageMissing, with the reference."""
    reference = "localhost/claw-test-none:1"
    calls: list[Callable[[], object]] = [
        lambda: subject.engine.image(reference),
        lambda: subject.engine.map_image(reference),
        lambda: subject.create(image=reference),
    ]
    for call in calls:
        with pytest.raises(ImageMissing, match=reference) as caught:
            call()
        assert caught.value.hint


def test_an_image_is_found_by_name_and_by_id(subject: Subject) -> None:
    """A container can be made of an image whose name has meanwhile gone to another."""
    image = subject.engine.image(subject.image)
    assert subject.engine.image(image.id) == image
    assert subject.look(subject.create(image=image.id)).image_id == image.id


def test_an_image_has_a_digest_and_is_mapped_twice_as_well_as_once(subject: Subject) -> None:
    """`map_image` leaves no container behind."""
    assert subject.engine.image(subject.image).digest.startswith("sha256:")
    subject.engine.map_image(subject.image)
    subject.engine.map_image(subject.image)
    assert subject.engine.list({"io.claw.mapping": "1"}) == []


def test_a_name_is_given_once(subject: Subject) -> None:
    """The second container of a name is refused, and the first stays."""
    spec = subject.spec()
    subject.made.append(subject.engine.create(spec))
    with pytest.raises(EngineFailed, match=spec.name):
        subject.engine.create(spec)
    assert subject.look(spec.name).id == subject.made[-1]


def test_a_directory_that_does_not_exist_is_not_made(subject: Subject, tmp_path: Path) -> None:
    """A bind of a missing directory is refused."""
    with pytest.raises(EngineFailed):
        subject.create(binds=[Bind(source=tmp_path / "none", target="/state")])
    assert not (tmp_path / "none").exists()


def test_every_published_port_is_different(subject: Subject) -> None:
    """The port is known from `create` on and stays; without a port, or without a network, there is none."""
    ports = []
    for _ in range(3):
        container = subject.create(network="private", port=8080)
        before = subject.look(container).host_port
        subject.engine.initialize(container)
        ports.append(subject.look(container).host_port)
        assert ports[-1] == before
    assert len(set(ports)) == 3
    assert all(port and port > 1023 for port in ports)
    assert subject.look(subject.create(network="private")).host_port is None
    assert subject.look(subject.create(network="none", port=8080)).host_port is None


def test_a_port_that_somebody_took_meanwhile_is_named(subject: Subject) -> None:
    """Between `create` and `initialize` the port is free for anybody."""
    container = subject.create(network="private", port=8080)
    port = subject.look(container).host_port
    assert port is not None
    with socket.create_server(("127.0.0.1", port)):
        with pytest.raises(PortTaken) as caught:
            subject.engine.initialize(container)
        assert caught.value.facts["port"] == port
    subject.engine.remove(container)
    assert subject.engine.inspect(container) is None


def test_a_command_answers_with_its_code_and_output(subject: Subject) -> None:
    """Standard output and code come back; a program that does not exist is 127, as in a shell."""
    container = subject.running(environment={"CLAW_A": "1"})
    said = subject.engine.execute(container, ["echo", "hello", "wörld"])
    assert (said.exit_code, said.stdout, said.stderr) == (0, "hello wörld\n".encode(), b"")
    assert subject.engine.execute(container, ["true"]).exit_code == 0
    assert subject.engine.execute(container, ["false"]).exit_code == 1
    assert subject.engine.execute(container, ["no-such-program"]).exit_code == 127
    lines = subject.engine.execute(container, ["env"], environment={"CLAW_B": "x = y"}).stdout.splitlines()
    assert {b"CLAW_A=1", b"CLAW_B=x = y"} <= set(lines)


def test_a_command_needs_a_running_container(subject: Subject) -> None:
    """A container that exists but does not run refuses."""
    with pytest.raises(EngineFailed):
        subject.engine.execute(subject.create(), ["true"])


def test_the_last_lines_of_the_log(subject: Subject) -> None:
    """`tail` counts lines from the end; more than there are is all of them."""
    container = subject.running()
    assert until(lambda: subject.engine.logs(container)) == b"started\n"
    assert subject.engine.logs(container, tail=1) == b"started\n"
    assert subject.engine.logs(container, tail=5) == b"started\n"
    assert subject.engine.logs(container, tail=0) == b""


def test_a_host_command_cannot_be_turned_into_options() -> None:
    """What is run in the container comes after the container's name, and that after `--`, whatever it begins with."""
    argv = command.exec_argv("c1", ["--privileged", "; x"], interactive=True, tty=True, detach=False)
    assert argv[-4:] == ["--", "c1", "--privileged", "; x"]
    assert command.logs_argv("c1", follow=True, tail=3, since="5m")[-2:] == ["--", "c1"]


def test_limits_are_enforced_or_refused(subject: Subject) -> None:
    """A limit whose controller is missing is refused by name, and no container is made of it."""
    enforceable = subject.engine.info().enforceable_limits
    limits: dict[str, dict[str, Any]] = {"memory": {"memory": 64 << 20}, "cpus": {"cpus": 0.5}, "pids": {"pids": 64}}
    for name, limit in limits.items():
        if name in enforceable:
            subject.engine.initialize(subject.create(**limit))
        else:
            with pytest.raises(EngineFailed, match=name) as caught:
                subject.create(**limit)
            assert caught.value.facts["limits"] == [name]
    assert len(subject.engine.list({LABEL: OWN})) == len(enforceable)


def test_many_threads_share_an_engine(subject: Subject) -> None:
    """Containers made from several threads at once all exist."""
    failures: list[BaseException] = []

    def make() -> None:
        try:
            subject.engine.initialize(subject.create())
        except BaseException as error:  # noqa: BLE001 -- a failure in a thread must reach the test
            failures.append(error)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [seen.state for seen in subject.engine.list({LABEL: OWN})] == ["initialized"] * 4


# --- only where there is a kernel -------------------------------------------------------------------------------------


@pytest.fixture
def live(podman: Subject) -> Iterator[Subject]:
    """Podman, for what the fake cannot have."""
    yield podman
    for container in podman.made:
        podman.engine.remove(container)
    podman.made.clear()


@pytest.mark.podman
def test_a_program_that_ignores_sigterm_is_killed(live: Subject) -> None:
    """After the timeout of `stop`, not the container's own, SIGKILL follows: 128 + 9. Others can look meanwhile."""
    container = live.running(command=["sleep", "60"], stop_timeout=60)
    codes: list[int | None] = []
    stopping = threading.Thread(target=lambda: codes.append(live.engine.stop(container, 2)))
    begun = time.monotonic()
    stopping.start()
    time.sleep(0.3)
    live.engine.list({LABEL: OWN})
    live.engine.inspect(container)
    assert time.monotonic() - begun < 1.5
    stopping.join()
    assert codes == [137]
    assert 1.5 < time.monotonic() - begun < 15


@pytest.mark.podman
def test_state_and_port_are_the_tenants(live: Subject, tmp_path: Path) -> None:
    """The program writes to its bind as the host user, reads a read-only one, and answers on the loopback port."""
    state, values = tmp_path / "state", tmp_path / "values"
    state.mkdir()
    values.mkdir()
    (values / "v").write_text("secret")
    binds = [Bind(source=state, target="/state"), Bind(source=values, target="/run/claw", read_only=True)]
    container = live.running(binds=binds, network="private", port=8080)
    port = live.look(container).host_port
    assert until(lambda: fetch(f"http://127.0.0.1:{port}/healthz")) == b"ok\n"
    assert (state / "starts").stat().st_uid == os.getuid()
    assert live.engine.execute(container, ["cat", "/run/claw/v"]).stdout == b"secret"
    assert live.engine.execute(container, ["touch", "/run/claw/w"]).exit_code == 1


@pytest.mark.podman
def test_output_and_errors_are_kept_apart(live: Subject) -> None:
    """A command's streams do not mix, also when they are long and binary."""
    container = live.running()
    script = "head -c 200000 /dev/zero; echo oops >&2; exit 3"
    said = live.engine.execute(container, ["sh", "-c", script])
    assert (said.exit_code, said.stdout, said.stderr) == (3, bytes(200_000), b"oops\n")


@pytest.mark.podman
def test_containers_outlive_the_service(live: Subject) -> None:
    """When Podman's service is killed, the next call starts it again and finds the container still serving."""
    container = live.running(network="private", port=8080, tmpfs=["/state"])
    port = live.look(container).host_port
    assert until(lambda: fetch(f"http://127.0.0.1:{port}/healthz")) == b"ok\n"
    live.engine.close()  # type: ignore[attr-defined]
    assert fetch(f"http://127.0.0.1:{port}/healthz") == b"ok\n"
    assert live.look(container).state == "running"


@pytest.mark.podman
def test_the_host_commands_work(live: Subject) -> None:
    """The argv of `exec` and `logs` do what they say."""
    import subprocess

    container = live.running()
    until(lambda: live.engine.logs(container))
    argv = command.exec_argv(container, ["echo", "-n", "--x"], interactive=False, tty=False, detach=False)
    assert subprocess.run(argv, capture_output=True, check=True).stdout == b"--x"
    argv = command.logs_argv(container, follow=False, tail=1, since="1h")
    assert subprocess.run(argv, capture_output=True, check=True).stdout == b"started\n"


# --- the fake's own promises ------------------------------------------------------------------------------------------


def test_the_fake_fails_when_it_is_told_to() -> None:
    """The nth call from now fails, those before and after do not."""
    fake = FakeEngine()
    fake.fail("info", DiskFull("no room"), at=2)
    fake.info()
    with pytest.raises(DiskFull):
        fake.info()
    fake.info()


def test_the_fake_emulates_a_workload() -> None:
    """`started` and `ended` are called with the spec, and a crash shows as an exit code."""
    told: list[tuple[str, str]] = []
    fake = FakeEngine(
        started=lambda spec: told.append(("started", spec.name)), ended=lambda spec: told.append(("ended", spec.name))
    )
    fake.add_image("i")
    container = fake.create(ContainerSpec(name="c", image="i"))
    fake.start(container)
    fake.crash("c", 3)
    assert told == [("started", "c"), ("ended", "c")]
    assert fake.stop("c", 1) == 3


def until(look: Callable[[], bytes | None]) -> bytes:
    """Poll for up to 15 seconds until there is something to see."""
    deadline = time.monotonic() + 15
    while not (seen := look()):
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.02)
    return seen


def fetch(url: str) -> bytes | None:
    """The body, or None while nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            body: bytes = answer.read()
            return body
    except OSError:
        return None
