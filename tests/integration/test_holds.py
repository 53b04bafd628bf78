"""A large file that a container's program never lets rest: its versions get into the store while the program runs."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import live_podman
from fakes.daemon import Daemon

pytestmark = pytest.mark.podman

PAGE, PAGES = 4096, 3072
# 12 MiB of text; its first page gets the next number, and then its last page the same one, all the time.
RESTLESS = (
    f"base64 /dev/urandom | head -c {PAGE * PAGES} > /state/model; n=0; while :; do n=$((n+1)); "
    f"for page in 0 {PAGES - 1}; do printf '%08d' $n | "
    f"dd of=/state/model bs={PAGE} seek=$page conv=notrunc 2>/dev/null; done; sleep 0.01; done"
)


@pytest.fixture
def daemon(session_home: Path, small_image: str) -> Iterator[Daemon]:
    """A daemon with alice, whose program has begun to write."""
    live_podman.need_freezing()
    with live_podman.directory_in(session_home) as home:
        workload = home / "small.yaml"
        workload.write_text(
            f'id: small\nimage: {small_image}\ncommand: ["sh", "-c", "{RESTLESS}"]\n'
            'healthcheck: {test: ["CMD", "true"], ready_timeout: 20s}\n'
            "volumes: {state: {target: /state}, logs: {target: /logs}}\npool: {max_size: 1, affinity_timeout: 0}\n"
        )
        daemon = Daemon(home / "d", [workload], {"CLAW_BUCKET": f"file://{home}/store"})
        (home / "store").mkdir()
        daemon.start(ready=1)
        daemon.ok("claim", "alice")
        model = daemon.state_of("alice") / "model"
        until(lambda: model.exists() and model.stat().st_size == PAGE * PAGES and number(model) > 0)
        yield daemon
        daemon.close()


def until(reached: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def number(model: Path) -> int:
    """The last number that the program has written to the first page."""
    with model.open("rb") as file:
        text = file.read(8)
    return int(text) if text.isdigit() else 0


def stored(daemon: Daemon) -> tuple[int, int]:
    """The numbers of the first and the last page in the newest generation; -1 when it does not have the file."""
    answer = daemon.cli("sync", "cat", "alice", "model")
    if answer.code:
        assert "no file 'model'" in answer.err
        return -1, -1
    assert len(answer.out) == PAGE * PAGES
    return int(answer.out[:8]), int(answer.out[-PAGE:][:8])


def freezer(daemon: Daemon) -> Path:
    """What the kernel says of alice's cgroup: a file with a line `frozen 0` or `frozen 1`."""
    container = daemon.ok("status", "alice", "-o", "json").json["containerId"]
    argv = ["podman", "container", "inspect", "-f", "{{.State.Pid}}", container]
    pid = int(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
    own = next(line for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if line.startswith("0::"))
    for base in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        at = base / own[3:].lstrip("/")
        for place in (at, at.parent):  # the container's own, or one for its programs within
            if (place / "cgroup.events").exists() and "frozen" in (place / "cgroup.events").read_text():
                return place / "cgroup.events"
    pytest.skip("the kernel does not say which cgroup is frozen")


def is_frozen(events: Path) -> bool:
    return "frozen 1" in events.read_text()


def test_each_version_of_it_is_stored_after_a_few_commits(daemon: Daemon) -> None:
    """What is stored is of one moment; no pause is long, and the program runs on after each."""
    model, events = daemon.state_of("alice") / "model", freezer(daemon)
    over, pauses = threading.Event(), [0.0]

    def watch() -> None:
        began = None
        while not over.wait(0.002):
            if is_frozen(events):
                began = began or time.monotonic()
            elif began:
                pauses.append(time.monotonic() - began)
                began = None

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(2):
            before, first = number(model), -1
            until_pushed = time.monotonic() + 90
            while first < before:
                assert time.monotonic() < until_pushed, "no version of the file got through"
                daemon.ok("sync", "push", "alice")
                first, last = stored(daemon)
                assert first - last in (0, 1)
    finally:
        over.set()
        watcher.join()

    print(f"pauses: {[f'{seconds * 1e3:.0f} ms' for seconds in pauses[1:]]}")
    assert max(pauses) < 5
    until(lambda: number(model) > first)


def test_commands_and_pauses_do_not_meet(daemon: Daemon) -> None:
    """While commits pause the container now and then, one command after the other runs in it, and none is refused."""
    events, over, pauses, codes = freezer(daemon), threading.Event(), [0], list[tuple[int, str]]()

    def watch() -> None:
        while not over.wait(0.002):
            if is_frozen(events):
                pauses[0] += 1
                until(lambda: not is_frozen(events))

    def push() -> None:
        while not over.is_set():
            daemon.cli("sync", "push", "alice")

    threads = [threading.Thread(target=watch), threading.Thread(target=push)]
    for thread in threads:
        thread.start()
    try:
        deadline = time.monotonic() + 60
        while pauses[0] < 3 and time.monotonic() < deadline:
            done = daemon.cli("exec", "alice", "--", "true")
            codes.append((done.code, done.err))
    finally:
        over.set()
        for thread in threads:
            thread.join()

    assert [one for one in codes if one[0]] == []
    if not pauses[0]:
        pytest.skip("the file could be read without a pause: this host is too busy")


def killed_while_frozen(daemon: Daemon, events: Path, deadline: float) -> bool:
    """Kills the daemon when it has paused the container; False if it was quicker, and the container runs again."""
    over = threading.Event()

    def push() -> None:
        while not over.is_set() and time.monotonic() < deadline:
            daemon.cli("sync", "push", "alice")

    pusher = threading.Thread(target=push)
    pusher.start()
    while not is_frozen(events) and time.monotonic() < deadline:
        time.sleep(0.001)
    daemon.kill()
    over.set()
    pusher.join()
    time.sleep(0.5)  # what was asked before the kill has been done
    return is_frozen(events)


def test_a_daemon_killed_in_the_pause_leaves_nothing_paused(daemon: Daemon) -> None:
    """The next daemon resumes the container, and the tenant's program runs on where it was."""
    model, events = daemon.state_of("alice") / "model", freezer(daemon)
    container = daemon.ok("status", "alice", "-o", "json").json["containerId"]
    deadline = time.monotonic() + 60
    while not killed_while_frozen(daemon, events, deadline):
        daemon.start()
        if time.monotonic() > deadline:
            pytest.skip("no daemon was killed within a pause: this host is too busy")
    before = number(model)

    daemon.start()

    until(lambda: not is_frozen(events))
    until(lambda: number(model) > before)
    assert daemon.ok("status", "alice", "-o", "json").json["containerId"] == container
    assert daemon.ok("exec", "alice", "--", "true").code == 0
    assert daemon.ok("release", "alice", "-o", "json").json["generation"] > 0
