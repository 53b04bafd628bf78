"""Words to the service manager that started this process, by the protocol of sd_notify(3)."""

import os
import socket
from collections.abc import Mapping, MutableMapping, Sequence
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
        self.kept = _kept(environ)
        """Descriptors that an earlier process of the unit gave the manager with `keep`, by name."""

    @property
    def listens(self) -> bool:
        """Whether there is a manager to tell anything."""
        return bool(self._address)

    def send(self, **fields: str) -> None:
        """Send assignments such as `READY="1"`. A manager that is not there any more is no error."""
        self._send(fields, [])

    def keep(self, name: str, descriptor: int) -> None:
        """Let the manager hold a descriptor while the unit restarts; a name of letters."""
        self._send({"FDSTORE": "1", "FDNAME": name}, [descriptor])

    def drop(self, name: str) -> None:
        """The manager need not hold it any longer."""
        self.kept.pop(name, None)
        self._send({"FDSTOREREMOVE": "1", "FDNAME": name}, [])

    def _send(self, fields: Mapping[str, str], descriptors: Sequence[int]) -> None:
        if not self._address:
            return
        text = "\n".join(f"{name}={value}" for name, value in fields.items())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender, suppress(OSError):
            sender.settimeout(1.0)
            sender.connect(self._address)
            socket.send_fds(sender, [text.encode()], descriptors)


def _kept(environ: MutableMapping[str, str]) -> dict[str, int]:
    """By sd_listen_fds(3): they begin at 3."""
    names, count = environ.pop("LISTEN_FDNAMES", ""), environ.pop("LISTEN_FDS", "")
    if environ.pop("LISTEN_PID", "") != str(os.getpid()) or not count.isdecimal():
        return {}
    return {name: 3 + at for at, name in enumerate(names.split(":")[: int(count)])}
