"""The composition root: one daemon a directory, an id that stays, and what the reconciler does between claims."""

import os
import socket
import stat
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from claw_runtime import settings
from claw_runtime.api import server
from claw_runtime.concurrency import Workers
from claw_runtime.daemon import assembly, loops, stores, tools
from claw_runtime.daemon import home as home_module
from claw_runtime.errors import (
    BucketMissing,
    ClawError,
    DaemonRunning,
    EngineUnavailable,
    InvalidSpec,
    RestoreFailed,
    StoreUnavailable,
)
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.ports import AmbiguousWrite, Container, HostFacts
from claw_runtime.settings import Settings
from claw_runtime.tenancy import Layout, TenantId, tenant_id
from fakes.engine import FakeEngine
from fakes.faces import runtime_of
from fakes.stores import Fault, FaultyStore
from fakes.world import IMAGE, WORKLOAD, World
from structlog.testing import capture_logs


class OpenedEngine(FakeEngine):
    """A fake with the adapter's constructor; `made` are all that were made."""

    made: list["OpenedEngine"]

    def __init__(self, socket: Path, *, cgroup_parent: str | None = None, restart: object = None) -> None:
        super().__init__()
        self.add_image(IMAGE)
        self.socket, self.cgroup_parent, self.restart, self.closed = socket, cgroup_parent, restart, False
        OpenedEngine.made.append(self)

    def __enter__(self) -> "OpenedEngine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a home with one workload and a store in a directory; Podman is a fake."""
    OpenedEngine.made = []
    monkeypatch.setattr(assembly, "PodmanEngine", OpenedEngine)
    monkeypatch.setattr(tools, "PodmanEngine", OpenedEngine)
    (tmp_path / "bucket").mkdir()
    workload = tmp_path / "home" / "workloads" / "small.yaml"
    workload.parent.mkdir(parents=True)
    workload.write_text(WORKLOAD)
    return _settings(tmp_path, bucket=f"file://{tmp_path}/bucket")


def _settings(tmp_path: Path, **flags: str) -> Settings:
    return settings.load(
        {"home": tmp_path / "home", "run": tmp_path / "run", **flags}, environ={}, system_file=tmp_path / "none"
    )


class TestOpened:
    def test_everything_is_there_and_private(self, configured: Settings) -> None:
        """The directories are ours alone, the workloads directory is loaded, the store is the configured one."""
        with assembly.opened(configured) as opened:
            assert list(opened.pools.ids()) == ["small"]
            assert opened.store.url == configured.bucket
            assert opened.engine.info().rootless
            for directory in (configured.home / "slots", configured.home / "tenants", configured.run):
                assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert opened.stopping.is_set()
        assert OpenedEngine.made[0].closed

    def test_services_are_children_unless_they_are_units(self, configured: Settings, tmp_path: Path) -> None:
        """Only where the setting says so does the engine restart a unit; otherwise it has a service of its own."""
        with assembly.opened(configured):
            pass
        with assembly.opened(_settings(tmp_path, bucket=f"file://{tmp_path}/bucket", services="units")):
            pass
        assert [engine.restart is None for engine in OpenedEngine.made] == [True, False]

    def test_named_workloads_replace_the_directory(self, configured: Settings, tmp_path: Path) -> None:
        """Files on the command line are loaded instead of the directory's."""
        other = tmp_path / "other.yaml"
        other.write_text(WORKLOAD.replace("id: small", "id: other"))

        with assembly.opened(configured, [other]) as opened:
            assert list(opened.pools.ids()) == ["other"]

    def test_a_second_daemon_is_refused(self, configured: Settings) -> None:
        """One directory, one daemon: the second learns the first one's process id and disturbs nothing."""
        with assembly.opened(configured):
            with pytest.raises(DaemonRunning) as caught, assembly.opened(configured):
                pytest.fail("two daemons in one directory")
            assert f"process {os.getpid()} " in caught.value.why
            assert len(OpenedEngine.made) == 1

    def test_the_lock_goes_with_its_holder(self, configured: Settings) -> None:
        """After one daemon has ended, in whatever way, the next one can start."""
        with pytest.raises(ZeroDivisionError), assembly.opened(configured):
            raise ZeroDivisionError
        with assembly.opened(configured):
            pass

    def test_an_engine_that_does_not_answer_is_closed_again(
        self, configured: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A start that fails leaves no service and no lock behind."""

        def down(_: object) -> None:
            raise EngineUnavailable("no Podman")

        with monkeypatch.context() as patch:
            patch.setattr(OpenedEngine, "info", down)
            with pytest.raises(EngineUnavailable), assembly.opened(configured):
                pytest.fail("it must not open")
        assert OpenedEngine.made[0].closed
        with assembly.opened(configured):
            pass

    def test_another_store_is_refused_until_it_is_accepted(self, configured: Settings, tmp_path: Path) -> None:
        """A disk that is not mounted leaves an empty directory: nothing is written to it, and the ledger stays."""
        bucket = tmp_path / "bucket"
        with assembly.opened(configured) as opened:
            mine = opened.repository.store_id.open()
        bucket.rename(tmp_path / "disk")
        bucket.mkdir()

        told = "is not the store that the tenants' states are in"
        with pytest.raises(RestoreFailed, match=told), assembly.opened(configured):
            pytest.fail("it must not open")
        assert OpenedEngine.made[-1].closed
        assert not [path for path in bucket.rglob("*") if path.is_file() and not path.name.startswith("+")]
        bucket.rename(tmp_path / "bare")
        (tmp_path / "disk").rename(bucket)
        with assembly.opened(configured) as opened:
            assert opened.repository.store_id.open() == mine

        bucket.rename(tmp_path / "disk")
        bucket.mkdir()
        with assembly.opened(configured, accept_store=True) as opened:
            assert opened.repository.store_id.open() != mine
        with assembly.opened(configured):
            pass

    def test_a_missing_store_is_reported_before_podman_is_touched(self, configured: Settings, tmp_path: Path) -> None:
        """A bucket that is not there ends the start at once."""
        (tmp_path / "bucket").rmdir()

        with pytest.raises(BucketMissing), assembly.opened(configured):
            pytest.fail("it must not open")
        assert OpenedEngine.made == []

    def test_a_wrong_workload_stops_the_start(self, configured: Settings) -> None:
        """A file with a mistake is refused before anything is opened."""
        (configured.workloads / "wrong.yaml").write_text("id: wrong\nimag: x\n")

        with pytest.raises(InvalidSpec, match=r"wrong\.yaml"), assembly.opened(configured):
            pytest.fail("it must not open")

    def test_a_home_that_cannot_be_made(self, tmp_path: Path) -> None:
        """A file in the place of the data directory is an error with the directory's name."""
        (tmp_path / "home").write_text("")

        with pytest.raises(ClawError, match="cannot be made"), assembly.opened(_settings(tmp_path)):
            pytest.fail("it must not open")

    @pytest.mark.parametrize("place", ["home", "run"])
    def test_a_directory_that_others_may_write_to_is_refused(
        self, configured: Settings, tmp_path: Path, place: str
    ) -> None:
        """Sockets and secrets never go where another user could rename them."""
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place).chmod(0o777)

        with pytest.raises(ClawError, match=f"{place} is not private to this user"), assembly.opened(configured):
            pytest.fail("it must not open")

    def test_a_directory_of_another_user_is_refused(
        self, configured: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A run directory that somebody else made first, in /tmp for one, is theirs and not used."""
        real = os.geteuid()
        monkeypatch.setattr(home_module.os, "geteuid", lambda: real + 4711)

        with pytest.raises(ClawError, match="is not private to this user") as caught, assembly.opened(configured):
            pytest.fail("it must not open")
        assert f"belongs to user {real}" in caught.value.why

    def test_settings_reach_the_adapters(self, configured: Settings, tmp_path: Path) -> None:
        """The control group, the socket and what to do about limits go where they belong."""
        chosen = _settings(tmp_path, bucket=str(configured.bucket), cgroup_parent="/claw", limits="drop")

        with assembly.opened(chosen) as opened:
            assert OpenedEngine.made[0].cgroup_parent == "/claw"
            assert OpenedEngine.made[0].socket == chosen.layout.engine_socket
            assert opened.pools._templates._drop_limits

    def test_an_operators_key_reaches_every_state(self, configured: Settings, tmp_path: Path) -> None:
        """A file that cannot be used ends the start before anything is asked of the store."""
        path = tmp_path / "operator.key"
        chosen = _settings(tmp_path, bucket=str(configured.bucket), encryption_key_file=str(path))
        with pytest.raises(InvalidSpec, match="no such file"), assembly.opened(chosen):
            pytest.fail("it must not open")
        path.write_text("ab" * 32)
        path.chmod(0o600)
        with assembly.opened(chosen) as opened:
            assert opened.repository.keyring.sealer(tenant_id("alice")).seals
            assert opened.keyring.sealer(tenant_id("alice")).seals


class TestStore:
    @pytest.mark.parametrize(
        ("flags", "expected"),
        [
            ({"bucket": "s3://b"}, "s3://b"),
            ({"bucket": "s3://b/prefix"}, "s3://b/prefix"),
            ({"bucket": "s3://b", "region": "eu-central-1"}, "s3://b?region=eu-central-1"),
            (
                {"bucket": "s3://b", "endpoint": "http://127.0.0.1:8333"},
                "s3://b?endpoint=http%3A%2F%2F127.0.0.1%3A8333",
            ),
            (
                {"bucket": "s3://b?region=a", "endpoint": "https://s3.example.org"},
                "s3://b?region=a&endpoint=https%3A%2F%2Fs3.example.org",
            ),
            ({"bucket": "s3://b?region=a", "region": "b"}, "s3://b?region=a"),
            ({"bucket": "file:///srv/claw", "endpoint": "https://s3.example.org"}, "file:///srv/claw"),
        ],
    )
    def test_endpoint_and_region_complete_the_url(self, tmp_path: Path, flags: dict[str, str], expected: str) -> None:
        """What was set beside the bucket is added to its URL; what the URL says itself wins."""
        assert stores.store_url(_settings(tmp_path, **flags)) == expected

    def test_all_three_keys_reach_the_store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Temporary credentials work: the session token goes along with the keys, boxed."""
        given: dict[str, Any] = {}

        def open_store(url: str, **keys: Any) -> MemoryStore:
            given.update(keys)
            return MemoryStore()

        monkeypatch.setattr(stores, "open_store", open_store)
        chosen = _settings(tmp_path, bucket="s3://b", access_key="AKIA", secret_key="hush-hush", session_token="tok-en")

        with stores.probed_store(chosen):
            pass

        assert {name: box.reveal() for name, box in given.items()} == {
            "access_key": "AKIA",
            "secret_key": "hush-hush",
            "session_token": "tok-en",
        }
        assert "hush-hush" not in repr(given)

    def test_a_probe_without_an_answer_is_an_error_for_people(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A connection that breaks while the store is probed is `StoreUnavailable`, not a traceback."""
        faulty = FaultyStore(MemoryStore(), Fault(operation="put", action="applied, answer lost"))
        monkeypatch.setattr(stores, "open_store", lambda *_, **__: faulty)

        chosen = _settings(tmp_path, bucket="s3://b")
        with pytest.raises(StoreUnavailable, match="while it was probed") as caught, stores.probed_store(chosen):
            pytest.fail("it must not open")
        assert isinstance(caught.value.__cause__, AmbiguousWrite)


class TestLeftovers:
    def test_copies_of_databases_do_not_outlive_their_daemon(self, configured: Settings) -> None:
        """What a daemon that was killed left of a tenant's database is removed by the next one."""
        copy = configured.layout.scratch / "sqlite-x"
        copy.mkdir(parents=True)
        (copy / "database").write_text("private")

        with assembly.opened(configured):
            assert not configured.layout.scratch.exists()


class TestIdentity:
    def test_the_id_stays(self, tmp_path: Path) -> None:
        """A runtime keeps its id over restarts, two homes have two, and only the owner reads it."""
        home, other = (Layout(home=tmp_path / name, run=tmp_path / "run") for name in "ab")
        home.home.mkdir()
        other.home.mkdir()

        first = home_module.runtime_id(home)

        assert home_module.runtime_id(home) == first
        assert home_module.runtime_id(other) != first
        assert stat.S_IMODE(home.runtime_id.stat().st_mode) == 0o600

    def test_two_workloads_of_one_id_are_refused(self, tmp_path: Path) -> None:
        """A pool has one file; both are named."""
        for name in ("a.yaml", "b.yaml"):
            (tmp_path / name).write_text(WORKLOAD)

        with pytest.raises(InvalidSpec) as caught:
            home_module.load_workloads([tmp_path / "a.yaml", tmp_path / "b.yaml"])

        assert "b.yaml" in caught.value.brief
        assert "a.yaml" in caught.value.why


class TestExamine:
    FACTS = HostFacts(
        user="claw",
        uid=1000,
        podman="/usr/bin/podman",
        init="/usr/libexec/podman/catatonit",
        subordinate_uids=65536,
        subordinate_gids=65536,
        tun=True,
        systemd=True,
        room=1 << 40,
        writable=True,
    )

    @pytest.fixture(autouse=True)
    def host(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tools.host, "facts", lambda _home: self.FACTS)

    def test_beside_a_running_daemon(self, configured: Settings) -> None:
        """The doctor looks at a host whose daemon runs: it takes no lock, and its service has a socket of its own."""
        with assembly.opened(configured):
            found = list(tools.examine(configured))

        assert {one.verdict for one in found} == {"ok"}
        assert OpenedEngine.made[1].socket != configured.layout.engine_socket
        assert OpenedEngine.made[1].closed

    @pytest.mark.parametrize(("answer", "verdict"), [(b'{"store": "s3://x"}', "ok"), (b"", "fail")])
    def test_a_running_daemon_is_asked(self, configured: Settings, answer: bytes, verdict: str) -> None:
        """Its own socket tells whether the services that it uses answer; a daemon that hangs up fails the check."""
        configured.layout.api_socket.parent.mkdir(parents=True, exist_ok=True)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(configured.layout.api_socket))
            server.listen()

            def serve() -> None:
                connection, _ = server.accept()
                with connection:
                    asked = connection.recv(1000)
                    if answer and asked.startswith(b"GET /readyz "):
                        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\n\r\n"
                        connection.sendall(head.encode() + answer)

            thread = threading.Thread(target=serve)
            thread.start()
            found = next(one for one in tools.examine(configured) if one.check == "running daemon")
            thread.join()
        assert found.verdict == verdict
        configured.layout.api_socket.unlink()
        assert "running daemon" not in {one.check for one in tools.examine(configured)}

    def test_faults_are_findings(self, configured: Settings, tmp_path: Path) -> None:
        """A missing bucket and a wrong file are found in one go."""
        (tmp_path / "bucket").rmdir()
        (configured.workloads / "wrong.yaml").write_text("id: [")

        found = {one.check: one.verdict for one in tools.examine(configured)}

        assert (found["workloads"], found["object store"]) == ("fail", "fail")

    def test_without_a_bucket_no_server_is_started(self, tmp_path: Path, configured: Settings) -> None:
        """The doctor starts no S3 server: it says that `up` will."""
        found = {one.check: one for one in tools.examine(_settings(tmp_path))}

        assert found["object store"].verdict == "warn"
        assert not (tmp_path / "home" / "s3").exists()


class TestReconciler:
    @pytest.fixture
    def world(self, world: World, monkeypatch: pytest.MonkeyPatch) -> World:
        monkeypatch.setattr(loops, "RECONCILER_PAUSE", 0.01)
        return world

    @pytest.fixture
    def reconciler(self, world: World) -> Iterator[assembly.Runtime]:
        """A runtime whose reconciler runs in a thread until the test ends."""
        kept = runtime_of(world)
        with ExitStack() as stack, capture_logs():
            thread = threading.Thread(target=kept.keep)
            thread.start()
            stack.callback(thread.join, 10)
            stack.callback(kept.poked.set)
            stack.callback(kept.stopping.set)
            yield kept
        assert not thread.is_alive()

    def wait_for(self, what: Any) -> None:
        deadline = time.monotonic() + 10
        while not what():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def test_it_fills_pools(self, world: World, reconciler: assembly.Runtime) -> None:
        """Slots are made without anybody asking, and made again after a claim."""
        self.wait_for(lambda: [slot.state for slot in world.ledger.slots()] == ["ready", "ready"])
        world.tenants.claim(TenantId("alice"), "small")
        self.wait_for(lambda: [slot.state for slot in world.ledger.slots()].count("ready") == 2)

    def test_it_retries_kept_trees(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A tree whose upload failed reaches the store once the store is back."""
        world.tenants.claim(TenantId("alice"), "small")
        world.write("alice", {"colour.txt": "blue"})
        with monkeypatch.context() as patch:
            patch.setattr(world.store, "put", _refuse)
            with pytest.raises(ClawError):
                world.tenants.release(TenantId("alice"))
        assert world.row_state("alice") == "kept"
        monkeypatch.setattr(loops, "RETRY_KEPT", 0.01)
        kept = runtime_of(world)
        thread = threading.Thread(target=kept.keep)

        thread.start()
        try:
            self.wait_for(lambda: world.row_state("alice") == "cold")
        finally:
            kept.stopping.set()
            thread.join(10)

        assert world.saved("alice") == {"colour.txt": "blue"}

    def test_pools_do_not_wait_for_uploads(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """While a kept tree is on its way for as long as it takes, slots are made."""
        monkeypatch.setattr(loops, "RETRY_KEPT", 0.01)
        begun, end = threading.Event(), threading.Event()

        def upload() -> None:
            begun.set()
            assert end.wait(10)

        monkeypatch.setattr(world.recovery, "retry", upload)
        kept = runtime_of(world)
        thread = threading.Thread(target=kept.keep)
        thread.start()
        try:
            assert begun.wait(10)
            world.tenants.claim(TenantId("alice"), "small")
            self.wait_for(lambda: [slot.state for slot in world.ledger.slots()].count("ready") == 2)
        finally:
            kept.stopping.set()
            end.set()
            thread.join(10)

    def test_a_defect_does_not_end_it(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """An unforeseen error is logged, and the next pass is made."""
        world.engine.fail("create", ZeroDivisionError("a defect"))
        kept = runtime_of(world)
        with capture_logs() as logged:
            thread = threading.Thread(target=kept.keep)
            thread.start()
            try:
                self.wait_for(lambda: [slot.state for slot in world.ledger.slots()].count("ready") == 2)
            finally:
                kept.stopping.set()
                thread.join(10)

        assert "the reconciler failed: internal error" in [line["event"] for line in logged]

    def test_its_end_does_not_wait_for_ever(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A commit and an end that do not come to theirs are left behind after `LAST_UPLOAD`, which they share."""
        monkeypatch.setattr(loops, "LAST_UPLOAD", 0.3)
        kept, go, begun = runtime_of(world), threading.Event(), threading.Semaphore(0)

        def stuck() -> None:
            begun.release()
            go.wait(30)

        kept.maintenance.workers = Workers("commit", 2)
        kept.recovery.workers = Workers("end", 2)
        for workers in (kept.maintenance.workers, kept.recovery.workers):
            for name in ("alice", "bob"):
                workers.offer(name, stuck)
        assert begun.acquire(timeout=10)
        assert begun.acquire(timeout=10)
        kept.stopping.set()
        thread = threading.Thread(target=kept.keep)
        began = time.monotonic()
        thread.start()
        thread.join(10)

        assert not thread.is_alive()
        assert time.monotonic() - began < 5
        go.set()
        assert kept.maintenance.workers.stop(10)
        assert kept.recovery.workers.stop(10)
        assert not begun.acquire(timeout=0.01)  # bob's waited for a thread, and were dropped

    def test_claims_are_served_while_slots_are_recovered(self, world: World) -> None:
        """A start waits for nothing: a claim gets its container although the engine has not listed any yet."""
        world.pools.keep()
        runtime, go, real = runtime_of(world), threading.Event(), world.engine.list

        def slow(labels: Mapping[str, str]) -> Sequence[Container]:
            assert go.wait(30)
            return real(labels)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.engine, "list", slow)
            worker = runtime.start()
            claim = runtime.tenants.claim(TenantId("alice"), "small")
            before = runtime.recovered()
            go.set()
            assert runtime.pools_recovered.wait(30)
        runtime.stopping.set()
        runtime.poked.set()
        worker.join(30)

        assert not before["pools_ready"]  # whether alice counts depends on whether the recovery saw her claim
        assert (before["to_restart"], before["restarted"], before["restarts_failing"]) == (0, 0, 0)
        assert world.engine.inspect(claim.container)
        assert world.tenants.claim(TenantId("alice"), "small").already

    def test_a_recovery_that_fails_is_repeated(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """The engine did not answer at first; the daemon serves and tries again."""
        monkeypatch.setattr(assembly, "RECOVER_AGAIN", 0.01)
        runtime = runtime_of(world)
        world.engine.fail("list", EngineUnavailable("no Podman"))
        worker = runtime.start()
        assert runtime.pools_recovered.wait(30)
        runtime.stopping.set()
        runtime.poked.set()
        worker.join(30)
        assert not worker.is_alive()

    def test_recovery_prepares_images(self, world: World) -> None:
        """A start makes each image ready, so that no claim waits for the copy."""
        runtime_of(world).recover()

        assert world.engine.mapped == [IMAGE]


def _refuse(*_: object, **__: object) -> str:
    raise StoreUnavailable("the store is down", why="test", hint="wait")


class Watched(socket.socket):
    """Remembers the mode that its name had right after it got one."""

    modes: list[int]

    def bind(self, address: Any) -> None:
        super().bind(address)
        Watched.modes.append(stat.S_IMODE(os.stat(address).st_mode))


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_socket_is_private_from_its_first_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    """The API's socket is never wider than 0600, whatever the umask, which stays as it was for other threads."""
    Watched.modes = []
    monkeypatch.setattr(server.socket, "socket", Watched)
    path = tmp_path / "api.sock"
    path.write_text("a stale one")
    before = os.umask(umask)
    try:
        listener = server.listen_at(path)
        during = os.umask(umask)
    finally:
        os.umask(before)

    listener.close()

    assert Watched.modes == [0o600]
    assert during == umask
