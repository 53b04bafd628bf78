"""The digest of a file while it is written in pieces, in any order: it is computed up to the first missing byte."""

import hashlib
import os
import threading
from typing import Final, Self

_BLOCK: Final = 1024 * 1024


class TrailingDigest:
    """SHA-256 of a file that other threads write, each byte once; one thread reads behind them.

    Args:
        fd: Open for reading until the end of the `with` block.
        size: Bytes that the file will have.
    """

    def __init__(self, fd: int, size: int) -> None:
        self._fd, self._size = fd, size
        self._turn = threading.Condition()
        self._there: dict[int, int] = {}
        self._end, self._over = 0, False
        self._digest = ""
        self._error: OSError | None = None
        self._reader = threading.Thread(target=self._follow, name="claw-digest", daemon=True)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end_reading()

    def wrote(self, offset: int, size: int) -> None:
        """Report that these bytes were written."""
        with self._turn:
            self._there[offset] = size
            while size := self._there.pop(self._end, 0):
                self._end += size
            self._turn.notify()

    def whole(self) -> str:
        """The digest, once everything was read; empty when a piece was never written. Call it after the last write.

        Raises:
            OSError: It could not be read.
        """
        self._end_reading()
        if self._error:
            raise self._error
        return self._digest

    def _end_reading(self) -> None:
        with self._turn:
            self._over = True
            self._turn.notify()
        self._reader.join()

    def _follow(self) -> None:
        try:
            self._read()
        except OSError as error:
            self._error = error

    def _read(self) -> None:
        sha256, at = hashlib.sha256(), 0
        while at < self._size:
            with self._turn:
                while self._end <= at and not self._over:
                    self._turn.wait()
                end = self._end
            if end <= at:
                return
            while at < end:
                piece = os.pread(self._fd, min(_BLOCK, end - at), at)
                if not piece:
                    return
                sha256.update(piece)
                at += len(piece)
        self._digest = sha256.hexdigest()
