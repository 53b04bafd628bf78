"""The way of a tenant on real parts: rootless Podman, SeaweedFS, a daemon process, and the command line."""

import json
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import live_podman
from fakes.daemon import CLI, Daemon

pytestmark = [pytest.mark.podman, pytest.mark.s3]


def workload(home: Path, image: str, text: str = "") -> Path:
    path = home / "small.yaml"
    path.write_text(
        f"id: small\nimage: {image}\nports: [{{container: 8080}}]\n"
        "healthcheck: {path: /healthz, ready_timeout: 20s}\nvolumes: {state: {target: /state}, logs: {target: /logs}}\n"
        f"pool: {{min_size: 1, max_size: 4, affinity_timeout: 0}}\n{text}"
    )
    return path


@pytest.fixture(scope="module")
def daemon(session_home: Path, small_image: str) -> Iterator[Daemon]:
    """One daemon for the module, with an S3 server of its own; tests use tenants of their own."""
    with live_podman.directory_in(session_home) as home:
        daemon = Daemon(home / "d", [workload(home, small_image)])
        daemon.start(ready=1)
        yield daemon
        daemon.close()


def fetch(endpoint: str, path: str) -> bytes:
    with urllib.request.urlopen(f"{endpoint}{path}", timeout=5) as answer:
        return answer.read()


class TestWay:
    def test_state_crosses_containers(self, daemon: Daemon) -> None:
        """What a tenant's program writes is generation 1 in S3 after a release, gone from the host, and back at the
        next claim, in another container."""
        first = daemon.ok("claim", "alice", "-o", "json").json
        daemon.ok("exec", "alice", "--", "sh", "-c", "mkdir -p /state/memory && echo blue > /state/memory/colour")
        assert fetch(first["endpoints"]["http"], "/memory/colour") == b"blue\n"
        released = daemon.ok("release", "alice", "-o", "json").json
        assert released["generation"] == 1

        assert daemon.ok("sync", "cat", "alice", "memory/colour").out == "blue\n"
        assert "memory/colour" in daemon.ok("sync", "list", "alice").out
        assert list(daemon.home.glob("slots/*/state/memory")) == []

        second = daemon.ok("claim", "alice", "-o", "json").json
        assert second["containerId"] != first["containerId"]
        assert second["generation"] == 1
        assert fetch(second["endpoints"]["http"], "/memory/colour") == b"blue\n"
        daemon.ok("release", "alice")

    def test_tenants_do_not_see_each_other(self, daemon: Daemon) -> None:
        """A second tenant's container holds nothing of the first one's."""
        daemon.ok("claim", "carol")
        daemon.ok("exec", "carol", "--", "sh", "-c", "echo secret-canary > /state/diary")
        daemon.ok("claim", "dave")

        found = daemon.ok("exec", "dave", "--", "sh", "-c", "find / -xdev -name diary; ls /state")

        assert "diary" not in found.out
        daemon.ok("release", "carol")
        daemon.ok("release", "dave")

    def test_claim_twice_keeps_the_container(self, daemon: Daemon) -> None:
        """A second claim ends with 0, says so, and changes nothing."""
        first = daemon.ok("claim", "erin", "-o", "json").json

        again = daemon.ok("claim", "erin", "-o", "json").json

        assert again["status"] == "already_claimed"
        assert again["containerId"] == first["containerId"]
        daemon.ok("release", "erin", "--no-sync")

    def test_database_in_write_ahead_mode_is_whole(self, daemon: Daemon) -> None:
        """Rows that only the write-ahead log held when the writer vanished are there after a restore."""
        daemon.ok("claim", "frank")
        program = (
            "import os, sqlite3, sys\n"
            "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
            "db.execute('PRAGMA journal_mode=WAL'); db.execute('PRAGMA wal_autocheckpoint=0')\n"
            "db.execute('CREATE TABLE memory (text)')\n"
            "db.executemany('INSERT INTO memory VALUES (?)', [(str(n),) for n in range(500)])\n"
            "os.kill(os.getpid(), 9)\n"
        )
        database = daemon.state_of("frank") / "memory.sqlite"
        subprocess.run(["/usr/bin/python3", "-c", program, str(database)], check=False)
        assert database.with_name("memory.sqlite-wal").stat().st_size > 0
        daemon.ok("release", "frank")

        daemon.ok("claim", "frank")

        restored = daemon.state_of("frank") / "memory.sqlite"
        assert not restored.with_name("memory.sqlite-wal").exists()
        with sqlite3.connect(restored) as db:
            assert db.execute("SELECT count(*) FROM memory").fetchone() == (500,)
        db.close()
        daemon.ok("release", "frank")

    def test_exec_passes_exit_code_and_streams(self, daemon: Daemon) -> None:
        """`exec` gives the command's own exit code, output and input; 127 for a command that is not there."""
        daemon.ok("claim", "grace")

        assert daemon.cli("exec", "grace", "--", "sh", "-c", "echo out; echo err >&2; exit 7").code == 7
        assert daemon.ok("exec", "grace", "--", "cat", stdin="hello").out == "hello"
        assert daemon.cli("exec", "grace", "--", "no-such-program").code == 127
        assert "started" in daemon.ok("logs", "grace").out
        daemon.ok("release", "grace", "--no-sync")


class TestTrouble:
    def test_a_killed_daemon_continues(self, daemon: Daemon) -> None:
        """After SIGKILL the next daemon knows the running tenant, keeps its container, and saves its state."""
        before = daemon.ok("claim", "heidi", "-o", "json").json
        daemon.ok("exec", "heidi", "--", "sh", "-c", "echo kept > /state/note")

        daemon.kill()
        daemon.start()

        again = daemon.ok("claim", "heidi", "-o", "json").json
        assert (again["containerId"], again["status"]) == (before["containerId"], "already_claimed")
        assert fetch(again["endpoints"]["http"], "/note") == b"kept\n"
        assert daemon.ok("release", "heidi", "-o", "json").json["generation"] == 1
        assert daemon.ok("sync", "cat", "heidi", "note").out == "kept\n"

    def test_container_that_died_loses_nothing(self, daemon: Daemon) -> None:
        """When a tenant's container is killed behind our back, the next claim starts from what it had written."""
        claim = daemon.ok("claim", "ivan", "-o", "json").json
        daemon.ok("exec", "ivan", "--", "sh", "-c", "echo last > /state/words")
        subprocess.run(["podman", "kill", claim["containerId"]], check=True, capture_output=True)

        again = daemon.ok("claim", "ivan", "-o", "json").json

        assert again["containerId"] != claim["containerId"]
        assert fetch(again["endpoints"]["http"], "/words") == b"last\n"
        daemon.ok("release", "ivan")

    def test_release_without_a_store_keeps_the_tree(self, daemon: Daemon) -> None:
        """When S3 is gone, release fails with its own code and says where the tree is; the next daemon commits it."""
        daemon.ok("claim", "judy")
        daemon.ok("exec", "judy", "--", "sh", "-c", "echo precious > /state/note")
        [server] = children(daemon, "weed")
        subprocess.run(["kill", "-KILL", str(server)], check=True)

        failed = daemon.cli("release", "judy")

        assert failed.code == 28
        assert "nothing is lost" in failed.err
        assert (daemon.home / "tenants/judy/kept/note").read_text() == "precious\n"
        assert daemon.cli("claim", "mallory").code == 15
        daemon.stop()
        daemon.start()
        daemon.ok("release", "judy")
        assert daemon.ok("sync", "cat", "judy", "note").out == "precious\n"
        assert not (daemon.home / "tenants/judy/kept").exists()

    def test_second_daemon_is_refused(self, daemon: Daemon) -> None:
        """A data directory has one daemon; the second ends with its own code and names the first."""
        second = daemon.cli("up", *map(str, daemon.workloads))

        assert second.code == 31
        assert str(daemon.process.pid) in second.err  # type: ignore[union-attr]

    def test_clean_stop_leaves_only_tenants(self, daemon: Daemon) -> None:
        """SIGTERM removes waiting slots and leaves claimed containers running."""
        claim = daemon.ok("claim", "kate", "-o", "json").json

        assert daemon.stop() == 0

        left = subprocess.run(["podman", "ps", "-aq", "--no-trunc"], check=True, capture_output=True, text=True).stdout
        assert claim["containerId"] in left
        assert len(live_podman.left_containers(daemon.home)) == 1
        daemon.start()
        daemon.ok("release", "kate", "--no-sync")


def children(daemon: Daemon, name: str) -> list[int]:
    """Pids of the daemon's own children whose program has that name."""
    assert daemon.process is not None
    found = []
    for task in Path(f"/proc/{daemon.process.pid}/task").iterdir():
        for pid in (task / "children").read_text().split():
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                found.append(int(pid))
    return found


class TestBadInput:
    @pytest.mark.parametrize("tenant", ["../x", "a/b", "", "a" * 300, "Alice", "ålice", "a b", "a\n"])
    def test_tenant_ids(self, daemon: Daemon, tenant: str) -> None:
        """What is not a tenant id is refused with its own code, and makes nothing."""
        answer = daemon.cli("claim", "--", tenant)

        assert answer.code == 18
        assert "1-40 lower-case letters" in answer.err

    def test_tenant_id_that_looks_like_an_option(self, daemon: Daemon) -> None:
        """`-x` is a usage error, and behind `--` no tenant id."""
        assert daemon.cli("claim", "-x").code == 2
        assert daemon.cli("claim", "--", "-x").code == 18

    @pytest.mark.parametrize(
        ("arguments", "code", "says"),
        [
            (("claim", "alice", "--pool", "large"), 19, "there is no pool 'large'"),
            (("release", "nobody"), 10, "not claimed"),
            (("exec", "nobody", "--", "true"), 10, "not known"),
            (("sync", "list", "nobody"), 34, "no generation"),
        ],
    )
    def test_what_is_not_there(self, daemon: Daemon, arguments: tuple[str, ...], code: int, says: str) -> None:
        """Each is one clear error with a hint and a code of its own."""
        answer = daemon.cli(*arguments)

        assert (answer.code, says in answer.err, "hint:" in answer.err) == (code, True, True), answer.err

    def test_missing_image(self, session_home: Path) -> None:
        """A pool whose image is missing says so at once, and a claim of it has its own code."""
        with live_podman.directory_in(session_home) as home:
            daemon = Daemon(
                home / "d", [workload(home, "localhost/no-such-image:dev")], {"CLAW_BUCKET": f"file://{home}"}
            )
            daemon.start()

            claim = daemon.cli("claim", "alice")

            assert (claim.code, "localhost/no-such-image:dev" in claim.err) == (20, True)
            assert daemon.stop() == 0

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("min_siz: 3\n", "small.yaml:7:1"),
            ("id: again\n", "small.yaml:7:1"),
            ("deploy: {resources: {limits: {memory: lots}}}\n", "small.yaml:7:39"),
        ],
        ids=["unknown key", "duplicate key", "wrong unit"],
    )
    def test_workload_files(self, session_home: Path, text: str, says: str) -> None:
        """An unknown key, a duplicate key and a wrong unit are refused with file, line and column."""
        with live_podman.directory_in(session_home) as home:
            answer = Daemon(home / "d").cli("up", str(workload(home, "localhost/x", text)))

        assert (answer.code, says in answer.err) == (16, True), answer.err


class TestBadHost:
    def up(self, home: Path, small_image: str, **environment: str) -> object:
        daemon = Daemon(home / "d", [workload(home, small_image)], {"CLAW_BUCKET": f"file://{home}"})
        return daemon.cli("up", str(daemon.workloads[0]), **environment)

    def test_no_podman(self, session_home: Path, small_image: str) -> None:
        """Without Podman `up` names it and says how to get it."""
        with live_podman.directory_in(session_home) as home:
            (home / "bin").mkdir()
            answer = self.up(home, small_image, PATH=str(home / "bin"))

        assert (answer.code, "podman" in answer.err.lower(), "apt-get" in answer.err) == (14, True, True), answer.err

    def test_vfs_storage(self, session_home: Path, small_image: str) -> None:
        """The vfs driver is refused, and the error names the file to write."""
        with live_podman.directory_in(session_home) as home:
            conf = home / "config/containers/storage.conf"
            conf.parent.mkdir(parents=True)
            conf.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{home}/graph"\nrunroot = "{home}/runroot"\n')
            answer = self.up(home, small_image, XDG_CONFIG_HOME=str(home / "config"))
            subprocess.run(["podman", "unshare", "rm", "-rf", f"{home}/graph", f"{home}/runroot"], check=False)

        assert (answer.code, "vfs" in answer.err) == (21, True), answer.err

    @pytest.mark.parametrize(
        ("bucket", "code"),
        [
            ("s3://claw?endpoint=http://127.0.0.1:9", 15),
            ("file:///no/such/directory", 23),
            ("ftp://example.org", 16),
        ],
        ids=["unreachable", "no directory", "no such scheme"],
    )
    def test_stores(self, session_home: Path, small_image: str, bucket: str, code: int) -> None:
        """A store that cannot be used ends `up` with its own code, before anything is made."""
        with live_podman.directory_in(session_home) as home:
            keys = {"CLAW_S3_ACCESS_KEY": "key", "CLAW_S3_SECRET_KEY": "secret"}
            answer = self.up(home, small_image, CLAW_BUCKET=bucket, **keys)

        assert (answer.code, "hint:" in answer.err) == (code, True), answer.err

    def test_wrong_keys_and_missing_bucket(self, session_home: Path, small_image: str, daemon: Daemon) -> None:
        """Wrong S3 keys and a bucket that does not exist are told apart."""
        endpoint = next(word for word in daemon.log.split('"') if word.startswith("http://127.0.0.1:"))
        keys = json.loads(next(daemon.home.glob("s3/*.json")).read_text())
        access, secret = keys["access_key"], keys["secret_key"]
        with live_podman.directory_in(session_home) as home:
            wrong = self.up(
                home,
                small_image,
                CLAW_BUCKET=f"s3://claw?endpoint={endpoint}",
                CLAW_S3_ACCESS_KEY=access,
                CLAW_S3_SECRET_KEY="wrong",
            )
            absent = self.up(
                home,
                small_image,
                CLAW_BUCKET=f"s3://absent?endpoint={endpoint}",
                CLAW_S3_ACCESS_KEY=access,
                CLAW_S3_SECRET_KEY=secret,
            )

        assert (wrong.code, absent.code) == (22, 23), wrong.err + absent.err
        assert secret not in wrong.err + absent.err

    def test_port_taken(self, session_home: Path) -> None:
        """A port of the S3 server that another process holds is named."""
        with live_podman.directory_in(session_home) as home:
            daemon = Daemon(home / "d")
            with subprocess.Popen(
                [*CLI, "s3", "up"], env=daemon.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            ) as first:
                line = first.stdout.readline()  # type: ignore[union-attr]
                first.send_signal(signal.SIGTERM)
            port = int(line.strip().rsplit(":", 1)[1])
            with socket.socket() as holder:
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                deadline = time.monotonic() + 20
                while True:
                    try:
                        holder.bind(("127.0.0.1", port))
                        break
                    except OSError:
                        assert time.monotonic() < deadline
                        time.sleep(0.2)
                holder.listen()
                answer = daemon.cli("s3", "up", timeout=60)

        assert (answer.code, str(port) in answer.err) == (25, True), answer.err
