"""The daemon talks with a router that comes and goes: it gets whole tables, and reports count from its own start."""

import json
import math
import threading
import time
from pathlib import Path

import pytest
from claw_runtime.ingress import conversation
from claw_runtime.ingress.activity import Activity
from claw_runtime.ingress.ingress import PAUSE, SWEEP
from claw_runtime.tenancy import TenantId
from fakes.ingress import Host
from fakes.router import FakeRouter, until

ALICE = TenantId("alice")
BUSY = {"tenant": "alice", "requests": 2, "sockets": 1, "held": 3, "frame_age": 5.0, "request_age": None}


def test_each_change_gives_a_new_table(host: Host) -> None:
    """A claim and a release show without a wait for the next look."""
    router = host.connect()
    host.tenants.claim(ALICE, "small")
    host.ingress.changed()
    until(lambda: router.route("alice").get("rung") == "active")
    host.tenants.release(ALICE)
    host.ingress.changed()
    until(lambda: router.route("alice").get("rung") == "cold")
    assert len(router.tables) >= 3  # the first, and one for each change


def test_no_change_gives_no_table(host: Host) -> None:
    """Thousands of tenants are not sent again for nothing."""
    router = host.connect()
    for _ in range(3):
        host.link.push()
    assert len(router.tables) == 1


def test_a_router_that_restarts_gets_the_table_again(host: Host) -> None:
    """It knows nothing from before."""
    router = host.connect()
    router.hang_up()
    until(lambda: len(router.tables) == 2)
    assert router.tables[1] == router.tables[0]


def test_without_a_router_the_daemon_works(host: Host) -> None:
    """Nothing is held, nothing waits, and each tenant counts as active."""
    host.tenants.claim(ALICE, "small")
    with host.link.fenced(ALICE):
        pass
    assert not host.link.refresh()
    assert host.link.activity("alice") == Activity()


def test_no_address_no_conversation(directory: Path) -> None:
    """A host that is to have no router starts no thread for one."""
    host = Host(directory, region="nowhere")
    assert host.ingress.run(threading.Event()) == []
    host.close()


def test_ages_grow_between_reports(host: Host) -> None:
    """The router's ages hold at its answer; a tenant that it does not name is as old as the conversation."""
    router = host.connect()
    router.rows = lambda: [BUSY]
    host.clock.advance(7.0)
    assert host.link.refresh()
    host.clock.advance(2.0)
    assert host.link.activity("alice") == Activity(requests=2, sockets=1, held=3, frame_age=7.0, request_age=math.inf)
    assert host.link.activity("bob") == Activity(frame_age=9.0, request_age=9.0)


def test_a_tenant_that_has_only_begun_to_be_used_is_as_old_as_the_conversation(host: Host) -> None:
    """Its WebSocket is open, and neither a frame nor the end of a request has been seen."""
    router = host.connect()
    router.rows = lambda: [{**BUSY, "frame_age": None}]
    host.clock.advance(7.0)
    assert host.link.refresh()
    assert host.link.activity("alice").frame_age == host.link.activity("alice").request_age == 7.0


def test_a_router_that_has_just_started_reports_all_as_active(host: Host) -> None:
    """It cannot know who was active before it."""
    router = host.connect()
    host.clock.advance(100.0)
    assert host.link.activity("bob").request_age == 100.0
    router.hang_up()
    until(lambda: len(router.tables) == 2)
    assert host.link.activity("bob").request_age == 0.0


@pytest.mark.parametrize("line", [b"{\n", b"[]\n", b'{"activity": [{}]}\n', b'{"wake": 1}\n', b"\xff\xfe\n"])
def test_a_line_that_is_not_understood_ends_the_conversation(host: Host, line: bytes) -> None:
    """And the next one begins anew, with the whole table."""
    router = host.connect()
    router.send(line)
    until(lambda: len(router.tables) == 2)
    assert router.tables[1] == router.tables[0]


def test_a_router_that_does_not_answer_holds_no_operation_up(host: Host) -> None:
    """A fence waits seconds for it, not for ever."""
    router = host.connect()
    router.answers = False
    assert not host.link.refresh(timeout=0.05)


def test_the_end_of_the_daemon_ends_the_conversation(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that began as the daemon ended, which nothing closes any more."""
    monkeypatch.setattr(conversation, "PATIENCE", 0.1)
    host.connect()
    monkeypatch.setattr(host.link, "close", lambda: None)
    host.stopping.set()
    host.ingress.changed()
    for thread in host.threads_of_it:
        thread.join(10)
        assert not thread.is_alive()
    monkeypatch.undo()


class TestFences:
    def test_it_holds_before_the_block_begins(self, host: Host) -> None:
        """The router had the table with the fence when it answered."""
        host.tenants.claim(ALICE, "small")
        router = host.connect()
        with host.link.fenced(ALICE):
            assert router.route("alice")["fenced"]
        until(lambda: not router.route("alice")["fenced"])

    def test_it_waits_for_requests_under_way(self, host: Host) -> None:
        """A release cuts no answer off."""
        host.tenants.claim(ALICE, "small")
        router = host.connect()
        left = [2, 1, 1, 0]
        router.rows = lambda: [{**BUSY, "requests": left.pop(0) if left else 0}]
        with host.link.fenced(ALICE):
            assert not left

    def test_it_does_not_wait_for_ever(self, host: Host) -> None:
        """A stream of hours would keep its tenant from every release."""
        host.tenants.claim(ALICE, "small")
        router = host.connect()
        router.rows = lambda: [BUSY]
        before = host.clock.monotonic()
        with host.link.fenced(ALICE):
            assert 10.0 <= host.clock.monotonic() - before < 11.0

    def test_blocks_may_contain_each_other(self, host: Host) -> None:
        """The end of the inner one opens nothing."""
        host.tenants.claim(ALICE, "small")
        with host.link.fenced(ALICE):
            with host.link.fenced(ALICE):
                pass
            assert host.routes.rows()[0]["fenced"]
        assert not host.routes.rows()[0]["fenced"]

    def test_an_error_opens_it_again(self, host: Host) -> None:
        """Also after a release that failed, the tenant can be reached."""
        host.tenants.claim(ALICE, "small")
        with pytest.raises(RuntimeError), host.link.fenced(ALICE):
            raise RuntimeError
        assert not host.routes.rows()[0]["fenced"]


def test_lines_may_come_in_pieces(host: Host) -> None:
    """A line ends with its newline and not with what one call reads."""
    router: FakeRouter = host.connect()
    host.tenants.claim(ALICE, "small")
    host.tenants.release(ALICE)
    text = json.dumps({"wake": {"tenant": "alice", "trigger": "ws"}}).encode() + b"\n"
    router.send(text[:10])
    router.send(text[10:] + text)
    until(lambda: host.row_state("alice") == "active")
    assert router.failed == []


def test_without_changes_no_table_is_made(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand tenants at rest cost nothing twice a second; only a sweep looks at all of them."""
    router = host.connect()
    made: list[int] = []
    real = host.routes.table
    monkeypatch.setattr(host.routes, "table", lambda: made.append(1) or real())
    time.sleep(2 * PAUSE)
    assert made == []
    host.clock.advance(SWEEP)
    until(lambda: made)
    assert len(router.tables) == 1
