"""Masks one tenant's secrets in its program's output before it is shown.

logs.py masks what the daemon writes; it knows every secret that this process has used. A tenant's output is also shown
after a restart, when this process has used no secret yet, and programs write secrets in more forms. So it is masked
with the tenant's own secrets.
"""

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence

from claw_runtime import logs
from claw_runtime.errors import ClawError

SHORTEST = 6
"""Characters of the shortest secret that is looked for: a shorter one (a flag, a port, `true`) is found everywhere, so
that the log would be unreadable, and where it was masked would tell what it is."""


class Redactor:
    """Masks these secrets, also as JSON, `repr`, a URL or base64 writes them, alone or inside something longer.

    A secret of several lines is masked line by line, if the lines have 12 characters or more. Bearer headers, `token=…`
    pairs and passwords in URLs are masked whatever they hold.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._known: logs.KnownSecrets = {}
        for secret in secrets:
            if len(secret.strip()) >= SHORTEST:
                logs.learn(self._known, (form for form in logs.forms(secret) if len(form) >= SHORTEST))
                logs.learn(self._known, _inside_base64(secret))

    def text(self, text: str) -> str:
        """The text without the secrets."""
        return logs.mask(text, self._known)

    def line(self, line: bytes) -> bytes:
        """The line without the secrets; bytes that are no UTF-8 stay as they are."""
        return self.text(line.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

    def lines(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """The lines as they come."""
        return map(self.line, lines)


def when_needed(secrets: Callable[[], Sequence[str]]) -> Callable[[str], str]:
    """Masks texts with secrets that are asked for at the first of them; nothing of a text is shown when they cannot be
    had, and nobody who has no text to show fails for it."""

    def text(text: str) -> str:
        try:
            return Redactor(secrets()).text(text)
        except (ClawError, OSError):
            return logs.MASK

    return text


def _inside_base64(secret: str) -> Iterator[str]:
    """What of the secret is the same in every base64 text that holds it: it may begin at each of three places in a
    group, and the groups at both ends hold bits of its neighbours too."""
    data = secret.encode("utf-8", "surrogateescape")
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + data).decode()
        begin = (0, 2, 3)[shift]
        end = (shift + len(data)) * 8 // 6
        inner = encoded[begin:end]
        if len(inner) >= SHORTEST:
            yield inner
            yield inner.replace("+", "-").replace("/", "_")
