"""Words to the service manager that started this process, by the protocol of sd_notify(3)."""

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress


class Notifier:
    """Sends datagrams to the socket of `NOTIFY_SOCKET`; without one, it does nothing.

    The variables are taken out of the environment: a child process must not speak for this one.

    Args:
        environ: Where the service manager's variables are.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        # A name that begins with @ stands for one in the abstract namespace, which begins with NUL.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        ours = pid in ("", str(os.getpid())) and usec.isdecimal()
        self.watchdog = int(usec) / 1e6 if ours and int(usec) else None
        """Seconds within which the manager expects each sign of life; None if it expects none."""

    @property
    def listens(self) -> bool:
        """Whether there is a manager to tell anything."""
        return bool(self._address)

    def send(self, **fields: str) -> None:
        """Send assignments such as `READY="1"`. A manager that is not there any more is no error."""
        if not self._address:
            return
        text = "\n".join(f"{name}={value}" for name, value in fields.items())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender, suppress(OSError):
            sender.settimeout(1.0)
            sender.sendto(text.encode(), self._address)
