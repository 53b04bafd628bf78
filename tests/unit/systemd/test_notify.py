"""The datagrams of sd_notify: to a path, to an abstract name, to nobody; and when the daemon sends them."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from claw_runtime.daemon import notifying
from claw_runtime.systemd.notify import Notifier
from fakes.faces import runtime_of, serving
from fakes.world import World


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    """A manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(20)
        yield listener


def words(listener: socket.socket) -> dict[str, str]:
    """The next datagram."""
    return dict(line.split("=", 1) for line in listener.recv(4096).decode().splitlines())


def drain(listener: socket.socket) -> None:
    """Drop what waits to be read."""
    listener.setblocking(False)
    with suppress(BlockingIOError):
        while listener.recv(4096):
            pass


def manager(listener: socket.socket, **more: str) -> Notifier:
    """What a process sees that this manager started."""
    return Notifier({"NOTIFY_SOCKET": listener.getsockname(), **more})


def test_words_arrive_as_lines(heard: socket.socket) -> None:
    """Several assignments are one datagram."""
    notifier = manager(heard)
    assert notifier.listens
    notifier.send(READY="1", STATUS="all is well")
    assert words(heard) == {"READY": "1", "STATUS": "all is well"}


def test_a_descriptor_is_given_to_the_manager_and_back(heard: socket.socket) -> None:
    """It arrives with its name, and a later process of the unit finds it by that."""
    notifier = manager(heard)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        notifier.keep("ingress", listener.fileno())
        said, (held,), _, _ = socket.recv_fds(heard, 4096, 4)
        with socket.socket(fileno=held) as again:
            assert again.getsockname() == listener.getsockname()
    assert said == b"FDSTORE=1\nFDNAME=ingress"
    given = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "ingress:other"}
    later = manager(heard, **given)
    assert later.kept == {"ingress": 3, "other": 4}
    later.drop("ingress")
    assert later.kept == {"other": 4}
    assert words(heard) == {"FDSTOREREMOVE": "1", "FDNAME": "ingress"}


def test_descriptors_of_another_process_are_not_taken(heard: socket.socket) -> None:
    """Variables that a parent left behind mean nothing, and are not passed on."""
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "ingress"}
    assert Notifier(environ).kept == {}
    assert environ == {}


def test_an_abstract_name_works_too() -> None:
    """As user managers of containers have it: @ stands for NUL."""
    name = f"claw-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        listener.settimeout(20)
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).send(READY="1")
        assert words(listener) == {"READY": "1"}


def test_children_do_not_inherit_the_address(heard: socket.socket) -> None:
    """The variables are gone afterwards, and only these."""
    environ = {"NOTIFY_SOCKET": heard.getsockname(), "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1", "HOME": "/h"}
    Notifier(environ)
    assert environ == {"HOME": "/h"}


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_this_process_own(variables: dict[str, str], seconds: float | None) -> None:
    """A watchdog of a parent process, and one that is no number, count as none."""
    assert Notifier(variables).watchdog == seconds


def test_without_a_manager_nothing_happens(tmp_path: Path) -> None:
    """Neither without the variable nor with the address of a manager that is gone."""
    silent = Notifier({})
    assert not silent.listens
    silent.send(READY="1")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).send(READY="1")
    with notifying.telling(silent, lambda: pytest.fail("asked"), lambda: ""):
        time.sleep(0.3)


class TestLife:
    def test_ready_is_the_first_answer(self, heard: socket.socket) -> None:
        """Nothing is sent before the program answered; then readiness once, and signs of life in a third of the
        watchdog's time; the end at last."""
        up = threading.Event()
        with notifying.telling(manager(heard, WATCHDOG_USEC="300000"), up.is_set, lambda: "here"):
            heard.settimeout(0.5)
            with pytest.raises(TimeoutError):
                words(heard)
            heard.settimeout(20)
            up.set()
            assert words(heard) == {"READY": "1", "WATCHDOG": "1", "STATUS": "here"}
            assert words(heard) == {"WATCHDOG": "1", "STATUS": "here"}
        while (last := words(heard)).get("WATCHDOG"):
            pass
        assert last == {"STOPPING": "1", "STATUS": "stopping"}

    def test_a_program_that_hangs_feeds_no_watchdog(self, heard: socket.socket) -> None:
        """It was ready, and then it does not answer any more."""
        alive = threading.Event()
        alive.set()
        with notifying.telling(manager(heard, WATCHDOG_USEC="90000"), alive.is_set, lambda: ""):
            assert "READY" in words(heard)
            alive.clear()
            time.sleep(0.3)
            drain(heard)
            heard.settimeout(0.3)
            with pytest.raises(TimeoutError):
                words(heard)

    def test_a_daemon_that_serves_is_alive(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Its API answers on its socket; where nobody listens, and where somebody only listens, nothing does."""
        world = World(tmp_path_factory.mktemp("n"))
        path = world.layout.api_socket
        assert not notifying.answers(path)
        with serving(world):
            assert notifying.answers(path)
        world.close()

    def test_its_status_says_what_it_does(self, world: World) -> None:
        """While it recovers, how far it is; later how many tenants are active, and which service is silent."""
        runtime = runtime_of(world)
        assert notifying.told(runtime).startswith("recovering: 0 of 0")
        runtime.pools_recovered.set()
        assert notifying.told(runtime) == "0 active tenants"
