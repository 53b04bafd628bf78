"""Which ports of this host refuse connections, asked of the kernel's table and of the ports themselves."""

import socket
from pathlib import Path

import pytest
from claw_runtime.engine import probe
from claw_runtime.engine.probe import HttpProber


def listener() -> socket.socket:
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    made.listen(1)
    return made


def test_a_listener_is_found_without_a_connection() -> None:
    """A port with a listener is not asked; one whose listener was closed refuses."""
    with listener() as bound:
        port = bound.getsockname()[1]
        assert HttpProber().refusing([port]) == frozenset()
        bound.settimeout(0.05)
        with pytest.raises(TimeoutError):
            bound.accept()
    assert HttpProber().refusing([port]) == frozenset({port})


def test_a_hidden_table_is_replaced_by_a_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel does not show its listeners, a connection tells the same."""
    monkeypatch.setattr(probe, "_SOCKETS", tmp_path / "none")
    with listener() as bound:
        port = bound.getsockname()[1]
        assert HttpProber().refusing([port]) == frozenset()
    assert HttpProber().refusing([port]) == frozenset({port})


def test_a_full_backlog_is_no_refusal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A program that accepts nothing any more still has its listener."""
    monkeypatch.setattr(probe, "_SOCKETS", tmp_path / "none")
    monkeypatch.setattr(probe, "CONNECT_TIMEOUT", 0.05)
    with listener() as bound:
        port = bound.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        assert HttpProber().refusing([port]) == frozenset()
        for one in waiting:
            one.close()
