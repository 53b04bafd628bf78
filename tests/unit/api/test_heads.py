"""What the head of a request says before it is parsed: whose it is, and which lane it needs."""

from urllib.parse import quote

import pytest
from claw_runtime.api.heads import Asked, Heads
from claw_runtime.api.lanes import CLAIMS, FOLLOWERS, LOOKS, READERS
from fakes.faces import runtime_of
from fakes.world import World

ALICE = "/api/v1/tenants/alice"


@pytest.mark.parametrize(
    ("line", "lane"),
    [
        (f"GET {ALICE}/files", READERS),
        (f"POST {ALICE}/claim", CLAIMS),
        (f"GET {ALICE}/logs?follow=true", FOLLOWERS),
        (f"GET {quote(ALICE, safe='')}", LOOKS),
        ("GET /livez", LOOKS),
        ("GET /none", LOOKS),
    ],
)
@pytest.mark.parametrize("name", ["Authorization", "authorization", "AUTHORIZATION"])
def test_a_tenants_token_takes_the_tenants_share(world: World, line: str, lane: object, name: str) -> None:
    """All tokens of a tenant share, whatever they ask for."""
    tokens = runtime_of(world).tokens
    for token in ("one", "two"):
        text = tokens.create(token, "tenant", tenant="alice")[1].reveal()
        head = f"{line} HTTP/1.1\r\nHost: x\r\n{name}: Bearer {text}\r\n\r\n".encode()
        assert Heads(tokens).read(head) == Asked("tenant alice", lane)  # type: ignore[arg-type]


def test_a_token_may_begin_the_path(world: World) -> None:
    """As the guard reads it, which prefers it to a header."""
    tokens = runtime_of(world).tokens
    text = tokens.create("one", "tenant", tenant="alice")[1].reveal()
    head = f"GET /t/{text}{ALICE}/files HTTP/1.1\r\nAuthorization: Bearer wrong\r\n\r\n".encode()

    assert Heads(tokens).read(head) == Asked("tenant alice", READERS)


def test_an_operators_token_waits_for_no_turn(world: World) -> None:
    """Its requests have their lanes alone."""
    tokens = runtime_of(world).tokens
    text = tokens.create("board", "admin")[1].reveal()
    head = f"GET {ALICE}/files HTTP/1.1\r\nAuthorization: Bearer {text}\r\n\r\n".encode()

    assert Heads(tokens).read(head) == Asked("token board", READERS, limited=False)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nAuthorization: Bearer claw_00000000_wrong\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nAuthorization: Basic x\r\n\r\n",
        b"GET /t/ HTTP/1.1\r\n\r\n",
        b"\xff\xfe \x00\r\n\r\n",
        b"\r\n\r\n",
        b"",
    ],
)
def test_a_head_without_a_valid_token_is_nobodys(world: World, head: bytes) -> None:
    """Whatever it is."""
    assert Heads(runtime_of(world).tokens).read(head) == Asked("", LOOKS)
