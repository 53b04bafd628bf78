"""The whole router in a process of its own, programs of tenants behind it, and a daemon that gives it its table."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from claw_runtime.router import presence, process
from claw_runtime.router.presence import Presence
from claw_runtime.tenancy import Layout

ARGV = (sys.executable, "-P", "-m", "claw_runtime.daemon.routers")


def until(true: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait until something is so; what it is."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.005)
    return found


def there(layout: Layout) -> Presence | None:
    """The router that answers, if one does."""
    found = presence.present(layout.router_lock)
    return found if found is not None and process.answers(found) else None


@contextmanager
def routing(layout: Layout, address: str = "127.0.0.1:0") -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """A router that answers, and its address."""
    started = subprocess.Popen([*ARGV, address, str(layout.run)], stderr=subprocess.PIPE)
    try:
        yield started, until(lambda: there(layout)).address
    finally:
        started.kill()
        assert started.stderr is not None
        started.stderr.close()
        started.wait(20)


class Program:
    """A tenant's program: each answer holds its canary, and the path and the body of its request."""

    def __init__(self, canary: str, *, pause: float = 0.0) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                size = int(self.headers.get("content-length", "0"))
                body = self.rfile.read(size).decode()
                if pause and self.path == "/slow":
                    time.sleep(pause)
                said = json.dumps({"canary": canary, "path": self.path, "body": body}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            do_POST = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.address = list(self._server.server_address)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class FakeDaemon:
    """The daemon's end of the conversation."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb")

    def say(self, what: object) -> None:
        self._socket.sendall(json.dumps(what).encode() + b"\n")

    def hear(self) -> Any:
        return json.loads(self._lines.readline())

    def settled(self) -> dict[str, Any]:
        """The router's report; it has everything that was said before."""
        self.say({"activity": True})
        while "activity" not in (said := self.hear()):
            pass
        return dict(said)

    def close(self) -> None:
        """Go away."""
        with suppress(OSError):
            self._lines.close()
            self._socket.close()


def table(*routes: dict[str, Any], tokens: dict[str, str] | None = None) -> dict[str, Any]:
    """A table whose tokens are given as text, by tenant."""
    from claw_runtime.router.table import digest

    passes = [
        {"tenant": tenant, "sha256": digest(text.encode()), "expires_at": None}
        for tenant, text in (tokens or {}).items()
    ]
    return {"domain": "claw.example", "routes": list(routes), "tokens": passes, "links": [], "key": "00" * 32}


def route(tenant: str, address: list[Any] | None, rung: str = "active") -> dict[str, Any]:
    return {"tenant": tenant, "rung": rung, "address": address, "secret": "", "fenced": False, "hooks": []}
