"""What a start says: one JSON object a line on standard error, the fields that the runtime's own log has.

Facts are names, places and reasons. A value is never handed to this module, secret or not.
"""

import os
import time

from claw_entrypoint.document import dumps
from claw_entrypoint.errors import SeedError


class Log:
    """Writes lines, and decides what a defect means.

    Args:
        strict: A defect ends the start (the gateway is to run) instead of being a warning (a person's own command is).
    """

    __slots__ = ("strict",)

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict

    def line(self, level: str, event: str, **facts: object) -> None:
        """Write one line; a closed standard error is no reason not to start."""
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
        text = dumps({"ts": stamp, "level": level, "event": event, **facts}) + "\n"
        try:
            os.write(2, text.encode())
        except OSError:
            return

    def info(self, event: str, **facts: object) -> None:
        self.line("info", event, **facts)

    def warning(self, event: str, **facts: object) -> None:
        self.line("warning", event, **facts)

    def defect(self, error: SeedError) -> None:
        """Raise `error` when strict, otherwise warn of it and go on."""
        if self.strict:
            raise error
        self.line("warning", "seed.defect", message=error.brief, hint=error.hint)

    def fatal(self, error: SeedError) -> None:
        """Say why the start ends here."""
        self.line("error", "seed.failed", message=error.brief, hint=error.hint, exit_code=error.exit_code)
