"""What every `ports.Engine` promises, on the fake and on real Podman (marker `podman`).

The services are tested on the fake alone; this suite is what makes that honest.
"""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pytest
from claw_runtime.engine import command
from claw_runtime.engine.podman import PodmanEngine
from claw_runtime.errors import DiskFull, EngineFailed, EngineUnavailable, ImageMissing, NotClaimed, PortTaken
from claw_runtime.ports import Bind, Container, ContainerSpec, Engine
from claw_runtime.seccomp import profiles
from fakes import live_podman, processes
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

    def pause(self, container: str) -> None:
        if not isinstance(self.engine, FakeEngine):
            live_podman.need_freezing()
        self.engine.pause(container)

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


def test_an_entrypoint_runs_in_place_of_the_images(subject: Subject) -> None:
    """The image's own program says nothing, and what runs instead has all arguments."""
    container = subject.running(entrypoint=("sleep", "30"))
    assert subject.look(container).state == "running"
    assert subject.engine.execute(container, ["echo", "hello"]).stdout == b"hello\n"
    assert subject.engine.logs(container) == b""


def test_a_container_that_is_gone_is_no_surprise(subject: Subject) -> None:
    """What ends a container accepts that it is gone, what needs one says NotClaimed."""
    container = subject.running()
    subject.engine.remove(container)
    subject.engine.remove(container)
    subject.engine.stop(container, 1)
    assert subject.engine.inspect(container) is None
    engine = subject.engine
    for call in (engine.start, engine.initialize, engine.logs, engine.lines, engine.pause, engine.unpause):
        with pytest.raises(NotClaimed):
            call(container)
    with pytest.raises(NotClaimed):
        subject.engine.execute(container, ["true"])


@pytest.mark.parametrize(("profile", "code"), [(None, 1), ("strict", 1), ("browser", 0)])
def test_a_container_has_the_profile_that_it_was_made_with(subject: Subject, profile: str | None, code: int) -> None:
    """Without one it is strict, under which there are no new user namespaces; with `browser` there are."""
    container = subject.running(seccomp=profile and profiles.text(profile))
    assert subject.engine.execute(container, ["unshare", "-U", "true"]).exit_code == code


def test_without_seccomp_there_is_no_container(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that cannot filter calls would leave the filter out without a word: nothing is created then."""
    assert subject.engine.info().seccomp
    blind = replace(subject.engine.info(), seccomp=False)
    if isinstance(subject.engine, FakeEngine):
        monkeypatch.setattr(subject.engine, "host", blind)
    else:
        monkeypatch.setattr(subject.engine, "_known", lambda: (blind, ""))
    spec = subject.spec()
    with pytest.raises(EngineFailed, match="cannot filter the system calls"):
        subject.engine.create(spec)
    assert subject.engine.inspect(spec.name) is None


def test_a_profile_that_is_none_makes_no_container(subject: Subject) -> None:
    """The engine refuses it, and nothing is left."""
    spec = subject.spec(seccomp="no profile")
    with pytest.raises(EngineFailed, match="seccomp"):
        subject.engine.create(spec)
    assert subject.engine.inspect(spec.name) is None


def test_an_image_that_inherits_variables_makes_no_container(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry without a value would be filled with the engine's own; the image is refused before it is copied."""
    with ExitStack() as stack:
        if isinstance(subject.engine, FakeEngine):
            image = subject.engine.add_image("localhost/inherits:1", inherits=("HOM*",)).names[0]
        else:
            image = stack.enter_context(live_podman.image_that_inherits("HOM*"))
        assert subject.engine.image(image).inherits == ("HOM*",)
        assert subject.engine.image(subject.image).inherits == ()
        spec = subject.spec(image=image)
        with pytest.raises(EngineFailed, match=r"cannot be used.*'HOM\*'") as caught:
            subject.engine.create(spec)
        assert "ENV NAME=value" in caught.value.hint
        assert subject.engine.inspect(spec.name) is None


@pytest.mark.podman
def test_a_program_finds_its_user_and_a_home(live: Subject) -> None:
    """By its id and by its name: with the home that was given, not the working directory, and one that it may write."""
    container = live.running(
        command=["sh", "-c", "id -un; echo ~claw; touch ~claw/x && echo written"], tmpfs=("/state",), home="/state"
    )
    assert until(lambda: live.engine.logs(container).count(b"\n") >= 4 and live.engine.logs(container)) == (
        b"started\nclaw\n/state\nwritten\n"
    )


def test_a_stopped_program_ends_with_its_own_exit_code(subject: Subject) -> None:
    """A program that ends on SIGTERM gives its own code; stopping again changes nothing."""
    container = subject.running()
    until(lambda: subject.engine.logs(container))
    subject.engine.stop(container, 5)
    assert subject.look(container).state == "exited"
    assert subject.look(container).exit_code == 0
    subject.engine.stop(container, 5)
    assert subject.look(container).exit_code == 0


def test_stopping_what_never_ran_is_fine(subject: Subject) -> None:
    """A created container may be stopped, and still does not run."""
    container = subject.create()
    subject.engine.stop(container, 1)
    assert subject.look(container).state != "running"


@pytest.mark.parametrize("prepare", ["create", "initialize", "start", "pause", "stop"])
def test_a_container_is_removed_from_any_state(subject: Subject, prepare: str) -> None:
    """`remove` never waits for the stop timeout."""
    container = subject.create(command=["sleep", "60"] if prepare in ("start", "pause") else [], stop_timeout=60)
    if prepare == "initialize":
        subject.engine.initialize(container)
    if prepare in ("start", "pause", "stop"):
        subject.engine.start(container)
    if prepare == "pause":
        subject.pause(container)
    if prepare == "stop":
        until(lambda: subject.engine.logs(container))
        subject.engine.stop(container, 5)
    begun = time.monotonic()
    subject.engine.remove(container)
    assert time.monotonic() - begun < 10
    assert subject.engine.inspect(container) is None


def test_a_paused_container_goes_on_where_it_was(subject: Subject) -> None:
    """Pausing and thawing each work twice; what is paused runs nothing and is told as paused."""
    container = subject.running()
    until(lambda: subject.engine.logs(container))
    for _ in range(2):
        subject.pause(container)
        assert subject.look(container).state == "paused"
        assert [seen.state for seen in subject.engine.list({LABEL: OWN})] == ["paused"]
    with pytest.raises(EngineFailed):
        subject.engine.execute(container, ["true"])
    for _ in range(2):
        subject.engine.unpause(container)
        assert subject.look(container).state == "running"
    assert subject.engine.execute(container, ["true"]).exit_code == 0


def test_a_command_waits_for_a_container_that_is_paused_for_a_moment(subject: Subject) -> None:
    """It begins when the container runs again, and runs once."""
    container = subject.running()
    until(lambda: subject.engine.logs(container))
    subject.pause(container)
    thaw = threading.Timer(0.3, subject.engine.unpause, (container,))
    thaw.start()

    done = subject.engine.execute(container, ["echo", "once"])

    thaw.join()
    assert (done.exit_code, done.stdout) == (0, b"once\n")


@pytest.mark.parametrize("prepare", ["create", "initialize", "stop"])
def test_only_what_runs_is_paused(subject: Subject, prepare: str) -> None:
    """A container without a running program refuses both, and says what to do."""
    container = subject.create()
    if prepare == "initialize":
        subject.engine.initialize(container)
    if prepare == "stop":
        subject.engine.start(container)
        until(lambda: subject.engine.logs(container))
        subject.engine.stop(container, 5)
    before = subject.look(container).state
    for call in (subject.engine.pause, subject.engine.unpause):
        with pytest.raises(EngineFailed):
            call(container)
    assert subject.look(container).state == before


def test_a_paused_container_is_stopped_as_any_other(subject: Subject) -> None:
    """Its program ends by itself, on SIGTERM, with its own code."""
    container = subject.running()
    until(lambda: subject.engine.logs(container))
    subject.pause(container)
    subject.engine.stop(container, 5)
    assert subject.look(container).state == "exited"
    assert subject.look(container).exit_code == 0


@pytest.mark.parametrize("prepare", ["initialize", "start"])
def test_a_waiting_container_is_watched_until_it_is_gone(subject: Subject, prepare: str) -> None:
    """That its process and monitor exist shows without asking the engine; of one that is gone nothing shows."""
    container = subject.create()
    assert subject.engine.is_watched(subject.look(container)) is None
    getattr(subject.engine, prepare)(container)
    seen = subject.look(container)
    [listed] = [found for found in subject.engine.list({LABEL: OWN}) if found.id == container]
    assert [subject.engine.is_watched(found) for found in (seen, listed)] == [True, True]

    subject.engine.remove(container)

    assert subject.engine.is_watched(seen) is None


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


def test_a_command_that_takes_too_long_is_ended(subject: Subject) -> None:
    """After its timeout it is gone, and the answer says so; a quicker one is not troubled."""
    container = subject.running()
    begun = time.monotonic()
    said = subject.engine.execute(container, ["sleep", "60"], timeout=0.5)
    assert (said.timed_out, said.exit_code) == (True, 137)
    assert time.monotonic() - begun < 8
    said = subject.engine.execute(container, ["echo", "quick"], timeout=20)
    assert (said.timed_out, said.exit_code, said.stdout) == (False, 0, b"quick\n")
    assert subject.look(container).state == "running"


def test_lines_are_whole_and_end(subject: Subject) -> None:
    """Without following, the lines so far come, each without its newline; a container that never ran has none."""
    engine, container = subject.engine, subject.create()
    assert list(engine.lines(container)) == list(engine.lines(container, follow=True)) == []
    engine.start(container)
    until(lambda: engine.logs(container))
    assert list(engine.lines(container)) == [b"started"]
    assert list(engine.lines(container, tail=0)) == []
    assert list(engine.lines(container, tail=9)) == [b"started"]
    assert list(engine.lines(container, since=time.time() + 60)) == []
    assert list(engine.lines(container, since=time.time() - 600)) == [b"started"]


def test_followed_lines_end_with_the_container(subject: Subject) -> None:
    """Who follows sees the lines as they come, and the end."""
    container = subject.running()
    lines = subject.engine.lines(container, follow=True)
    assert next(lines) == b"started"
    ending = threading.Timer(0.2, subject.engine.stop, (container, 5))
    ending.start()
    assert list(lines) == []
    ending.join()


def test_a_follower_may_leave_from_another_thread(subject: Subject) -> None:
    """Closing ends the wait for a line that never comes; twice is fine, and the container does not notice."""
    container = subject.running()
    lines = subject.engine.lines(container, follow=True)
    assert next(lines) == b"started"
    leaving = threading.Timer(0.2, lines.close)
    leaving.start()
    assert list(lines) == []
    leaving.join()
    lines.close()
    assert subject.look(container).state == "running"


def test_what_containers_use_is_told(subject: Subject) -> None:
    """Those that have a process and carry the labels, with memory and processor time; no others."""
    running, waiting = subject.running(), subject.create()
    subject.engine.initialize(waiting)
    subject.create()
    usage = {use.container.id: use for use in subject.engine.stats({LABEL: OWN})}
    assert set(usage) == {running, waiting}
    assert all(100_000 < use.memory < 64 << 20 for use in usage.values())
    assert all(0 < use.cpu < 60 for use in usage.values())
    assert subject.engine.stats({LABEL: "nobody"}) == []


def test_the_facts_are_asked_once(subject: Subject) -> None:
    """Not `fresh` is the same answer at no cost."""
    asked = subject.engine.info()
    begun = time.monotonic()
    for _ in range(100):
        assert subject.engine.info(fresh=False) == asked
    assert time.monotonic() - begun < 1  # a hundred answers of Podman take longer


def test_another_isolation_is_never_passed_off(subject: Subject) -> None:
    """The engine's own OCI runtime may be named; one that is not there is refused, and no container is made."""
    subject.create(runtime=subject.engine.info().runtime)
    with pytest.raises(EngineFailed, match="nosuch") as caught:
        subject.create(runtime="nosuch")
    assert caught.value.hint
    assert len(subject.engine.list({LABEL: OWN})) == 1


def test_a_host_command_cannot_be_turned_into_options() -> None:
    """What is run in the container comes after the container's name, and that after `--`, whatever it begins with."""
    argv = command.exec_argv("c1", ["--privileged", "; x"], interactive=True, tty=True, detach=False)
    assert argv[-4:] == ["--", "c1", "--privileged", "; x"]


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
@pytest.mark.timed
def test_a_program_that_ignores_sigterm_is_killed(live: Subject) -> None:
    """After the timeout of `stop`, not the container's own, SIGKILL follows: 128 + 9. Others can look meanwhile."""
    container = live.running(command=["sh", "-c", "trap '' TERM; echo deaf; sleep 60"], stop_timeout=60)
    until(lambda: b"deaf" in live.engine.logs(container))
    stopping = threading.Thread(target=live.engine.stop, args=(container, 2))
    begun = time.monotonic()
    stopping.start()
    time.sleep(0.3)
    live.engine.list({LABEL: OWN})
    live.engine.inspect(container)
    assert time.monotonic() - begun < 1.5
    stopping.join()
    assert live.look(container).exit_code == 137
    assert 1.5 < time.monotonic() - begun < 15


def test_a_program_that_was_stopped_is_not_out_of_memory(subject: Subject) -> None:
    """Neither one that runs nor one that ended otherwise was killed at its memory limit."""
    container = subject.running()
    assert not subject.look(container).oom_killed
    subject.engine.stop(container, 0)
    assert not subject.look(container).oom_killed


@pytest.mark.podman
def test_a_kill_at_the_memory_limit_is_told(live: Subject) -> None:
    """Where memory can be limited, a program that needs more is killed with 137, and the engine says why."""
    if "memory" not in live.engine.info().enforceable_limits:
        with pytest.raises(EngineFailed, match="memory"):
            live.create(memory=32 << 20)
        return
    container = live.running(command=["sh", "-c", "exec tail /dev/zero"], memory=32 << 20)
    until(lambda: live.look(container).state == "exited")
    assert (live.look(container).exit_code, live.look(container).oom_killed) == (137, True)


@pytest.mark.podman
@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -9 $$", 137), ("kill -SEGV $$", 139)])
def test_the_program_s_own_end_is_the_container_s(live: Subject, script: str, code: int) -> None:
    """Its exit code, and 128 + n when a signal ended it, with the init as without."""
    for init in (True, False):
        container = live.running(command=["sh", "-c", f"trap : TERM; {script}"], init=init, tmpfs=["/state"])
        until(lambda one=container: live.look(one).state == "exited")  # type: ignore[misc]
        if init or "kill" not in script:  # a process 1 cannot kill itself
            assert live.look(container).exit_code == code


@pytest.mark.podman
def test_orphans_are_reaped(live: Subject) -> None:
    """A program that never waits for children leaves no zombie of forty orphans; without the init it does."""
    orphans = 'i=0; while [ $i -lt 40 ]; do (sh -c "sleep 0.1" &); i=$((i + 1)); done'
    for init, kept in ((True, False), (False, True)):
        container = live.running(command=["sleep", "60"], init=init, tmpfs=["/state"], stop_timeout=0)
        assert live.engine.execute(container, ["sh", "-c", orphans]).exit_code == 0
        until(lambda one=container: not states(live, one) & {"S sh"})  # type: ignore[misc]
        time.sleep(0.3)
        assert any(state.startswith("Z") for state in states(live, container)) is kept


@pytest.mark.podman
def test_a_container_takes_no_kernel_key(live: Subject) -> None:
    """The kernel allows a user 200 keys by default: a keyring for each container would bound the slots of a host."""
    waiting, running = live.create(), live.running()
    live.engine.initialize(waiting)
    live.engine.execute(running, ["true"])
    keys = Path("/proc/keys").read_text()
    assert not [container for container in (waiting, running) if container in keys]


def states(live: Subject, container: str) -> set[str]:
    """State and name of each process of the container."""
    said = live.engine.execute(container, ["sh", "-c", "cat /proc/[0-9]*/stat"]).stdout.decode()
    rows = [line.rpartition(")") for line in said.splitlines()]
    return {f"{row[2].split()[0]} {row[0].partition('(')[2]}" for row in rows}


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
def test_a_killed_monitor_shows(live: Subject) -> None:
    """Podman still shows the container as initialised, and would start it; its ports are gone, and its end is lost."""
    container = live.create()
    live.engine.initialize(container)
    seen = live.look(container)
    monitor = int(Path(f"/proc/{seen.pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(monitor, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while live.engine.is_watched(seen) and time.monotonic() < deadline:
        time.sleep(0.01)

    assert live.engine.is_watched(seen) is False
    assert live.look(container).state == "initialized"


@pytest.mark.podman
def test_a_port_that_nobody_holds_any_more_shows(live: Subject) -> None:
    """The helper that publishes a port can be killed alone: the container stays, and no one would reach it."""
    container = live.create(network="private", port=8080)
    live.engine.initialize(container)
    seen = live.look(container)
    assert live.engine.is_watched(seen) is True
    for helper in holders(seen.host_port or 0):
        os.kill(helper, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while live.engine.is_watched(seen) and time.monotonic() < deadline:
        time.sleep(0.01)

    assert live.engine.is_watched(seen) is False
    assert live.look(container).state == "initialized"


def holders(port: int) -> list[int]:
    """The processes of this user that listen on a port of loopback."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"}
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(os.readlink(file) in sockets for file in (process / "fd").iterdir()):
                found.append(int(process.name))
    return found


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


def test_a_service_that_answers_is_left_alone(subject: Subject) -> None:
    """Supervision of a healthy engine changes nothing."""
    container = subject.running()
    for _ in range(3):
        subject.engine.supervise()
    assert subject.look(container).state == "running"


@pytest.mark.podman
def test_a_hung_service_is_replaced(live: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that waits for it fails soon, the next one is answered, and containers keep running."""
    monkeypatch.setattr("claw_runtime.engine.service._PING_SECONDS", 1.0)
    container = live.running(tmpfs=["/state"])
    assert isinstance(live.engine, PodmanEngine)
    pid = live.engine._service.pid
    assert pid is not None
    processes.harm(pid, signal.SIGSTOP)
    try:
        with pytest.raises(EngineUnavailable, match="does not answer"):
            live.engine.ping()
        begun = time.monotonic()
        while live.engine._service.pid == pid:
            live.engine.supervise()
            assert time.monotonic() - begun < 30
    except BaseException:
        os.kill(pid, signal.SIGCONT)  # or every later test waits for it
        raise
    live.engine.ping()
    assert live.look(container).state == "running"


@pytest.mark.podman
def test_a_paused_program_gets_its_signal_before_anything_else(live: Subject, tmp_path: Path) -> None:
    """A program that writes in a tight loop writes no more: SIGTERM is there when it is thawed."""
    script = "trap 'exit 0' TERM; while :; do printf x >> /state/x; done"
    container = live.running(command=["sh", "-c", script], binds=[Bind(source=tmp_path, target="/state")])
    written = tmp_path / "x"
    until(lambda: written.exists() and written.stat().st_size > 100)
    live.pause(container)
    before = written.stat().st_size
    time.sleep(0.2)
    assert written.stat().st_size == before
    live.engine.stop(container, 5)
    assert live.look(container).exit_code == 0
    assert written.stat().st_size - before <= 2


@pytest.mark.podman
def test_a_paused_program_that_ignores_sigterm_is_killed(live: Subject) -> None:
    """After the timeout, as any other."""
    container = live.running(command=["sh", "-c", "trap '' TERM; echo deaf; sleep 60"])
    until(lambda: b"deaf" in live.engine.logs(container))
    live.pause(container)
    begun = time.monotonic()
    live.engine.stop(container, 1)
    assert 0.9 < time.monotonic() - begun < 10
    assert live.look(container).exit_code == 137


@pytest.mark.podman
def test_a_late_command_takes_what_it_started_along(live: Subject) -> None:
    """Its own children are ended with it, its output so far is there, and the program beside it goes on."""
    container = live.running(network="none", tmpfs=["/state"])
    said = live.engine.execute(container, ["sh", "-c", "echo before; sleep 71 & sleep 72; echo after"], timeout=0.5)
    assert (said.timed_out, said.stdout) == (True, b"before\n")
    processes = live.engine.execute(container, ["ps"]).stdout
    assert b"sleep" not in processes
    assert b"httpd" in processes


@pytest.mark.podman
def test_a_commands_output_is_bounded(live: Subject) -> None:
    """Of a stream the last 1 MiB is kept, so that no tenant fills the daemon's memory."""
    said = live.engine.execute(live.running(), ["sh", "-c", "head -c 3000000 /dev/zero; echo end"])
    assert len(said.stdout) == 1 << 20
    assert said.stdout.endswith(b"\0end\n")


@pytest.mark.podman
def test_commands_leave_no_process_on_the_host(live: Subject) -> None:
    """The conmons of a command are gone soon after it, and all of them when the container is removed."""
    container = live.running()
    for _ in range(3):
        live.engine.execute(container, ["true"])
    assert until(lambda: live.engine.execute(container, ["true"]) and len(conmons(container)) <= 3)
    live.engine.remove(container)
    until(lambda: not conmons(container))


@pytest.mark.podman
def test_long_lines_and_last_words_come_whole(live: Subject) -> None:
    """A line longer than Podman's own pieces is one line; a last one without an end is one too; both streams come."""
    script = "head -c 20000 /dev/zero | tr '\\0' x; echo; echo oops >&2; sleep 1; printf last"
    container = live.running(command=["sh", "-c", script])
    lines = list(live.engine.lines(container, follow=True))
    assert set(lines) == {b"started", b"x" * 20_000, b"oops", b"last"}
    assert len(lines) == 4
    assert lines[0] == b"started"
    assert lines[-1] == b"last"


@pytest.mark.podman
def test_followers_leave_nothing_open(live: Subject) -> None:
    """Twenty of them come and go, and Podman's service holds no more files than before, but for a few of its own."""
    container = live.running()
    until(lambda: live.engine.logs(container))
    files = Path(f"/proc/{live.engine._service.pid}/fd")  # type: ignore[attr-defined]
    before = len(os.listdir(files))
    for _ in range(20):
        lines = live.engine.lines(container, follow=True)
        next(lines)
        lines.close()
    deadline = time.monotonic() + 60
    while len(os.listdir(files)) >= before + 10:
        assert time.monotonic() < deadline, sorted(os.readlink(one) for one in files.iterdir() if one.is_symlink())
        time.sleep(0.1)


@pytest.mark.podman
def test_another_oci_runtime_isolates(live: Subject) -> None:
    """A container made for another runtime than Podman's own is run by that one, through all of its life."""
    other = {"crun": "runc", "runc": "crun"}[live.engine.info().runtime]
    if not shutil.which(other, path="/usr/bin:/usr/sbin:/usr/local/bin"):
        pytest.skip(f"there is no {other} on this host")
    if other == "crun":  # which works in no other cgroup tree than one in which it can also freeze
        live_podman.need_freezing()
    container = live.running(runtime=other)
    said = subprocess.run(
        ["podman", "container", "inspect", "-f", "{{.OCIRuntime}}", container],
        capture_output=True,
        check=True,
        text=True,
    )
    assert said.stdout.strip() == other
    assert live.engine.execute(container, ["echo", "a"]).stdout == b"a\n"
    until(lambda: live.engine.logs(container))
    live.engine.stop(container, 5)
    assert live.look(container).exit_code == 0


@pytest.mark.podman
def test_the_host_commands_work(live: Subject) -> None:
    """The argv of `exec` runs the command in the container."""
    container = live.running()
    argv = command.exec_argv(container, ["echo", "-n", "--x"], interactive=False, tty=False, detach=False)
    assert subprocess.run(argv, capture_output=True, check=True).stdout == b"--x"


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
    fake.stop("c", 1)
    assert Subject(fake, "i").look("c").exit_code == 3


def test_the_fake_waits_at_its_start_gate(tmp_path: Path) -> None:
    """What parks has its gate open, is let in by one line, and begins to run then; what ends closes the gate."""
    told: list[str] = []
    fake = FakeEngine(started=lambda spec: told.append(spec.name))
    fake.add_image("i")
    spec = ContainerSpec(
        name="c", image="i", command=["--park", "entrypoint"], binds=[Bind(source=tmp_path, target="/v")]
    )
    os.mkfifo(tmp_path / "door", 0o600)
    fake.start(fake.create(spec))
    assert told == []
    (tmp_path / "values.json").write_text("{}")
    open_gate(tmp_path)
    until(lambda: "c" in told)
    assert fake.opened == {"c": b"{}"}
    with pytest.raises(OSError, match="No such device"):
        open_gate(tmp_path)
    fake.remove("c")
    fake.start(fake.create(spec))
    fake.crash("c")
    with pytest.raises(OSError, match="No such device"):
        open_gate(tmp_path)
    (tmp_path / "door").unlink()
    fake.start(fake.create(replace(spec, name="d")))
    fake.stop("d", 1)
    assert Subject(fake, "i").look("d").exit_code == 78


def test_the_fake_forgets_containers() -> None:
    """After a reboot there are none."""
    fake = FakeEngine()
    fake.add_image("i")
    fake.start(fake.create(ContainerSpec(name="c", image="i")))
    fake.lose()
    assert fake.inspect("c") is None


def open_gate(values: Path) -> None:
    """What the runtime does at a start gate."""
    fifo = os.open(values / "door", os.O_WRONLY | os.O_NONBLOCK)
    os.write(fifo, b'{"v":1}\n')
    os.close(fifo)


def conmons(container: str) -> list[str]:
    """Processes of Podman that watch over the container or a command in it."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            argv = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else [b""]
        except OSError:
            continue  # it ended while we looked, or is somebody else's
        if argv[0].endswith(b"conmon") and container.encode() in argv:
            found.append(entry.name)
    return found


T = TypeVar("T")


def until(look: Callable[[], T]) -> T:
    """Poll for up to a minute until there is something to see."""
    deadline = time.monotonic() + 60
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
