"""The limits of one tree while it is read: a tree that has or takes more is refused, and kept."""

from typing import NoReturn

from claw_runtime.errors import UploadFailed
from claw_runtime.formats.manifest import LATEST
from claw_runtime.ports import Clock
from claw_runtime.spec.parts import SyncLimits


class TreeLimits:
    """What one pass may find, counted from now on.

    Attributes:
        size: Most bytes of all files.
        files: Most names.
    """

    def __init__(self, limits: SyncLimits, clock: Clock) -> None:
        self.size: float = LATEST if limits.size is None else limits.size
        self.files: float = LATEST if limits.files is None else limits.files
        self._time, self._clock, self._started = limits.time, clock, clock.monotonic()

    def check(self, size: int, names: int, hidden: int) -> None:
        """Check bytes and names; `hidden` directories are not counted. Raises `UploadFailed`."""
        if size > self.size:
            _refuse("size", f"{self.size} bytes", f"its first {names} names hold {size}")
        if names > self.files + hidden:
            _refuse("files", f"{self.files} files, directories and links")

    def check_time(self, names: int) -> None:
        """Check the time since the pass began. Raises `UploadFailed`."""
        if self._time is not None and self._clock.monotonic() - self._started > self._time:
            _refuse("time", f"{self._time:g} s of reading", f"{names} names were read before that")


def _refuse(limit: str, what: str, more: str = "") -> NoReturn:
    raise UploadFailed(
        "the state is over its limits",
        why=f"it has more than the {what} that sync.limits.{limit} allows{more and '; '}{more}",
        hint=f"the tree is kept; remove or exclude what is not needed, or raise sync.limits.{limit}",
        limit=limit,
    )
