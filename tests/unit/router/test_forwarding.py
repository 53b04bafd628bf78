"""A tenant learns its client's address from the connection, or from a proxy that is known; never from the client."""

import pytest
from claw_runtime.router import heads
from claw_runtime.router.forwarding import forwarded

HERE = b"127.0.0.1"


def told(peer: bytes, *lines: str, proxies: frozenset[bytes] = frozenset((HERE,))) -> dict[bytes, bytes]:
    head = "\r\n".join(["GET / HTTP/1.1", "Host: alice.claw.example", *lines, "", ""])
    return dict(forwarded(peer, heads.request(head.encode()), proxies))


def test_a_client_says_nothing_of_itself() -> None:
    """One that is no proxy is known by its connection."""
    found = told(b"192.0.2.7", "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: bob")
    assert found == {
        b"x-forwarded-for": b"192.0.2.7",
        b"x-forwarded-proto": b"http",
        b"x-forwarded-host": b"alice.claw.example",
    }


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        (["X-Forwarded-For: 192.0.2.7"], b"192.0.2.7"),
        (["X-Forwarded-For: 127.0.0.1, 192.0.2.7"], b"192.0.2.7"),
        (["X-Forwarded-For: 127.0.0.1", "X-Forwarded-For: 2001:db8::7"], b"2001:db8::7"),
        (["X-Forwarded-For: localhost"], b"unknown"),
        (["X-Forwarded-For: 192.0.2.7,"], b"unknown"),
        ([], HERE),
    ],
)
def test_a_proxy_names_its_client(lines: list[str], address: bytes) -> None:
    """By the last address: those before it are what the client claimed."""
    found = told(HERE, *lines, "X-Forwarded-Proto: https")
    assert (found[b"x-forwarded-for"], found[b"x-forwarded-proto"]) == (address, b"https")


def test_without_proxies_nobody_is_believed() -> None:
    """Also not this host."""
    assert told(HERE, "X-Forwarded-For: 192.0.2.7", proxies=frozenset())[b"x-forwarded-for"] == HERE
