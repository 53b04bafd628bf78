"""A boilerhouse client as its users have one: a base URL, four requests, no header but the body's type.

It is written to the wire that such clients speak, with nothing of ours in it: whatever it needs, the API must give.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

Document = dict[str, Any]


class Refused(Exception):
    """An answer that is not ok; all that such a client shows is its text."""


class Boilerhouse:
    """What `BOILERHOUSE_API_URL` points at."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def claim(self, tenant: str, pool: str) -> Document:
        return self._ask("POST", tenant, "claim", {"poolId": pool})

    def release(self, tenant: str) -> None:
        self._ask("POST", tenant, "release", {"sync": True})

    def status(self, tenant: str) -> Document:
        return self._ask("GET", tenant, "status", None)

    def sync(self, tenant: str, direction: str = "both") -> Document:
        return self._ask("POST", tenant, "sync", {"direction": direction})

    def _ask(self, method: str, tenant: str, verb: str, body: Document | None) -> Document:
        request = urllib.request.Request(f"{self._url}/api/v1/tenants/{tenant}/{verb}", method=method)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                found: Document = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            with error:
                raise Refused(error.read().decode()) from error


def drive(
    client: Boilerhouse,
    pool: str,
    *,
    write: Callable[[str, str, str], None],
    read: Callable[[str, str], str | None],
    saved: Callable[[str], dict[str, str]],
) -> None:
    """The flow of such a client's own tests: two tenants, their state across containers, and apart from each other.

    Args:
        write: Write into the state inside a container: container, name, text.
        read: Read there; None when there is no such file.
        saved: What the store has of a tenant: name → text.
    """
    assert client.status("flow-a")["status"] == "cold"

    first = client.claim("flow-a", pool)
    assert first["containerId"]
    assert first["endpoints"]["http"] == f"http://127.0.0.1:{first['endpoints']['port']}"
    status = client.status("flow-a")
    assert (status["status"], status["poolId"]) == ("warm", pool)
    assert (status["containerId"], status["port"]) == (first["containerId"], first["endpoints"]["port"])
    assert status["endpoints"]["http"] == first["endpoints"]["http"]
    assert status["syncStatus"]["state"] == "idle"
    assert client.claim("flow-a", pool)["containerId"] == first["containerId"]

    write(first["containerId"], "test.txt", "data of a")
    done = client.sync("flow-a", "upload")
    assert done["success"] is True
    assert [(one["success"], one["filesTransferred"] > 0, one["errors"]) for one in done["results"]] == [
        (True, True, [])
    ]
    assert saved("flow-a")["test.txt"] == "data of a"
    assert client.status("flow-a")["syncStatus"]["lastSync"]

    write(first["containerId"], "test.txt", "newer data of a")
    client.release("flow-a")
    assert client.status("flow-a")["status"] == "cold"
    assert saved("flow-a")["test.txt"] == "newer data of a"
    assert client.sync("flow-a")["success"] is True

    other = client.claim("flow-b", pool)
    assert other["containerId"] != first["containerId"]
    assert read(other["containerId"], "test.txt") is None
    write(other["containerId"], "test.txt", "data of b")
    client.release("flow-b")
    assert saved("flow-b")["test.txt"] == "data of b"

    again = client.claim("flow-a", pool)
    assert read(again["containerId"], "test.txt") == "newer data of a"
    assert saved("flow-a")["test.txt"] == "newer data of a"
    client.release("flow-a")
