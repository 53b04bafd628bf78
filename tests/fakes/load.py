"""A steady load on a tenant's published port, and the count of what it lost."""

import http.client
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

ANSWER_SECONDS = 20.0
"""How long one request may take: a busy machine is slow, and a dead port refuses at once or never answers."""


@dataclass(slots=True)
class Counted:
    """What became of the requests; `lost` has a line for each that failed."""

    asked: int = 0
    lost: list[str] = field(default_factory=list)


class Load:
    """Asks an endpoint `rate` times a second while the block runs; every request has its own connection.

    Args:
        endpoint: `http://127.0.0.1:PORT` of a claim.
        path: Answered with 200.
        rate: Requests a second. One that is slow does not delay the next, up to 32 of them.
    """

    def __init__(self, endpoint: str, path: str = "/healthz", *, rate: float = 50.0) -> None:
        place = urlsplit(endpoint)
        self._address = (place.hostname or "", place.port or 0)
        self._path, self._rate = path, rate
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go, name="load")
        self.counted = Counted()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _go(self) -> None:
        asked: list[Future[str]] = []
        next_at = time.monotonic()
        with ThreadPoolExecutor(32, thread_name_prefix="load") as pool:
            while not self._ended.wait(max(0.0, next_at - time.monotonic())):
                asked.append(pool.submit(self._ask))
                next_at += 1 / self._rate
        self.counted = Counted(len(asked), [why for request in asked if (why := request.result())])

    def _ask(self) -> str:
        connection = http.client.HTTPConnection(*self._address, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", self._path)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return repr(error)
        finally:
            connection.close()
        return "" if status == http.client.OK else f"status {status}"
