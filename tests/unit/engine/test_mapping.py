"""The two users of every container, said to Podman in two ways."""

import os

import pytest
from claw_runtime.engine import mapping


def test_both_ways_say_the_same() -> None:
    """Another mapping would copy the image once more, so the API and the command line must agree."""
    made = mapping.options()
    maps = [("uidmap", made["idmappings"]["UIDMap"]), ("gidmap", made["idmappings"]["GIDMap"])]
    flags = [f"--{name}={one['container_id']}:{one['host_id']}:{one['size']}" for name, ids in maps for one in ids]
    assert mapping.flags() == [*flags, f"--user={made['user']}"]


@pytest.mark.parametrize(
    ("home", "fit"),
    [("/state/home", True), ("", False), ("state", False), ("/a:b", False), ("/a\n", False), ("/$x", False)],
)
def test_a_home_that_fits_is_in_the_list_of_users(home: str, fit: bool) -> None:
    """With a name for the user; any other would change the line's meaning, so Podman writes its own."""
    ids = f"{os.getuid()}:{os.getgid()}"
    assert mapping.passwd_entry(home) == (f"claw:*:{ids}:tenant:{home}:/bin/sh" if fit else "")


def test_own_id_is_the_hosts_and_the_images_owner_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """In Podman's count 0 is this user, and 1 the first of its subordinate ids."""
    monkeypatch.setattr(os, "getuid", lambda: 1001)
    monkeypatch.setattr(os, "getgid", lambda: 1002)
    assert mapping.flags() == [
        "--uidmap=0:1:1",
        "--uidmap=1001:0:1",
        "--gidmap=0:1:1",
        "--gidmap=1002:0:1",
        "--user=1001:1002",
    ]
