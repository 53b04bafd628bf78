"""Hostile clients of the API over TCP, in a process of their own: beside the measuring they would slow it.

    python flood.py    {"host": …, "port": …, "token": …, "paths": […]} on standard input, whose end is their end

At the end it prints how many requests were made, refused with 429 or 503, and answered with 500.
"""

import http.client
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

CLIENTS: Final = 40
"""Requests that are open at a time."""
TIMEOUT: Final = 5.0
"""Seconds after which a client gives a request up, as the slowest of them do."""
PAUSE: Final = 0.05
"""Seconds between two requests of a client."""


@contextmanager
def flood(address: tuple[str, int], token: str, paths: Sequence[str]) -> Iterator[Counter[str]]:
    """Ask until the block ends; the counts are there afterwards."""
    process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    order = {"host": address[0], "port": address[1], "token": token, "paths": list(paths)}
    process.stdin.write(json.dumps(order).encode() + b"\n")
    process.stdin.flush()
    counts = Counter[str]()
    try:
        yield counts
    finally:
        printed, _ = process.communicate(timeout=60)
        counts.update(json.loads(printed))


class _Clients:
    def __init__(self, order: dict[str, Any]) -> None:
        self._order = order
        self._over, self._lock = threading.Event(), threading.Lock()
        self._counts = Counter(made=0, refused=0, failed=0)

    def run(self) -> Counter[str]:
        threads = [threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        sys.stdin.read()
        self._over.set()
        for thread in threads:
            thread.join(2 * TIMEOUT)
        return self._counts

    def _ask(self, number: int) -> None:
        paths, headers = self._order["paths"], {"Authorization": f"Bearer {self._order['token']}"}
        while not self._over.is_set():
            connection = http.client.HTTPConnection(self._order["host"], self._order["port"], timeout=TIMEOUT)
            status = 0
            with suppress(OSError, http.client.HTTPException):
                connection.request("GET", paths[number % len(paths)], headers=headers)
                if number % 2:  # every other client hangs up at once
                    answer = connection.getresponse()
                    status = answer.status
                    answer.read(1 << 16)
            connection.close()
            with self._lock:
                self._counts.update(made=1, refused=status in (429, 503), failed=status == 500)
            self._over.wait(PAUSE)


if __name__ == "__main__":
    print(json.dumps(_Clients(json.loads(sys.stdin.readline())).run()))
