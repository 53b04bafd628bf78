"""Deeds of tenants on a host whose power will be cut; runs there, with the standard library alone.

`deeds.py SEED VERSION TENANT…` claims each tenant and reads what it has. Then it writes, commits, releases and claims
until it ends. It prints a line of JSON when a deed begins, and another once its answer is there.
"""

import http.client
import json
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

FILES = ("a", "b", "c", "big")
BIG = 100_000
"""Bytes of the file `big`; each of its lines is the version."""
PATIENCE = 150.0
"""Seconds for which a claim is tried after the boot of a host."""
_ONE_LINE = threading.Lock()


class _Api(http.client.HTTPConnection):
    """The API on its Unix socket, with the same answers that the command line prints."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(os.environ["XDG_RUNTIME_DIR"] + "/claw/api.sock")


def _ask(tenant: str, verb: str, body: dict[str, Any]) -> dict[str, Any]:
    connection = _Api("claw")
    try:
        text = json.dumps(body)
        connection.request("POST", f"/api/v1/tenants/{tenant}/{verb}", text, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        document: dict[str, Any] = json.loads(answer.read())
        return {**document, "refused": answer.status} if answer.status >= 400 else document
    finally:
        connection.close()


def _get(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        return body if answer.status == 200 else b""
    finally:
        connection.close()


def _tell(**line: Any) -> None:
    with _ONE_LINE:
        print(json.dumps(line), flush=True)


def version_of(name: str, body: bytes) -> int | None:
    """The version that a file holds; None unless it is whole."""
    line = body.partition(b"\n")[0] + b"\n"
    whole = (line * (BIG // len(line) + 1))[:BIG] if name == "big" else line
    return int(line) if body == whole and line.strip().isdigit() else None


class _Tenant:
    """One tenant and what is done with it, one deed after another."""

    def __init__(self, name: str, dice: random.Random, versions: Iterator[int]) -> None:
        self.name, self._dice, self._versions = name, dice, versions
        self._port: int | None = None

    def act(self) -> None:
        if self._port is None:
            self._claim()
            return
        deed = self._dice.choice((self._write, self._write, self._commit, self._release))
        deed()
        time.sleep(self._dice.choice((0, 0, 0.1, 0.5)))

    def _claim(self) -> None:
        _tell(tenant=self.name, deed="claim", at="begin")
        deadline, answer = time.monotonic() + PATIENCE, dict[str, Any]()
        while not answer or (answer.get("refused") and time.monotonic() < deadline):
            try:
                answer = _ask(self.name, "claim", {"poolId": "small", "wait": 30})
            except OSError as error:  # the daemon is being started
                answer = {"refused": str(error)}
            time.sleep(0.2 if answer.get("refused") else 0)
        _tell(tenant=self.name, deed="claim", at="end", answer=answer)
        if not answer.get("refused"):
            self._port = int(answer["endpoints"]["port"])
            found = {name: version_of(name, _get(self._port, f"/{name}")) for name in FILES}
            _tell(tenant=self.name, deed="read", at="end", found=found)

    def _write(self) -> None:
        version, flushed = next(self._versions), self._dice.random() < 0.4
        deed = "flushed write" if flushed else "write"
        _tell(tenant=self.name, deed=deed, at="begin", version=version)
        body = _get(self._port or 0, f"/cgi-bin/write?{version}-{'flushed' if flushed else 'plain'}")
        _tell(tenant=self.name, deed=deed, at="end", version=version, answer={"refused": not body.strip()})

    def _commit(self) -> None:
        _tell(tenant=self.name, deed="commit", at="begin")
        _tell(tenant=self.name, deed="commit", at="end", answer=_ask(self.name, "sync", {"direction": "upload"}))

    def _release(self) -> None:
        _tell(tenant=self.name, deed="release", at="begin")
        _tell(tenant=self.name, deed="release", at="end", answer=_ask(self.name, "release", {}))
        self._port = None


def _work(tenants: list[_Tenant], dice: random.Random) -> None:
    for tenant in tenants:
        tenant.act()
    while True:
        dice.choice(tenants).act()


def main(seed: int, version: int, names: list[str]) -> None:
    """Two threads, each with every second tenant, until the host ends."""
    versions = count(version)
    for half in (names[::2], names[1::2]):
        dice = random.Random(f"{seed} {half}")
        tenants = [_Tenant(name, dice, versions) for name in half]
        threading.Thread(target=_work, args=(tenants, dice)).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
