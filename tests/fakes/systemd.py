"""A systemd user manager in memory: units, whether they run, and what was asked of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from claw_runtime.errors import NoUserSession, UnitFailed


@dataclass
class FakeSystemd:
    """`ports.Systemd`.

    Attributes:
        session: Whether a manager answers at all.
        lingering, may_linger: Whether the user lingers, and whether that can be switched on without root.
        started: Called with a unit's name when it starts; may raise `UnitFailed`.
    """

    session: bool = True
    lingering: bool = True
    may_linger: bool = True
    started: Callable[[str], None] = lambda unit: None
    active: set[str] = field(default_factory=set)
    enabled: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def version(self) -> str:
        self._answer("version")
        return "252"

    def lingers(self) -> bool:
        return self.lingering

    def linger(self) -> bool:
        self.lingering = self.lingering or self.may_linger
        return self.lingering

    def reload(self) -> None:
        self._answer("reload")

    def enable(self, units: Sequence[str]) -> None:
        self._answer(f"enable {' '.join(units)}")
        self.enabled |= set(units)

    def disable(self, units: Sequence[str]) -> None:
        self._answer(f"disable {' '.join(units)}")
        self.enabled -= set(units)

    def restart(self, unit: str) -> None:
        self._answer(f"restart {unit}")
        self.active.discard(unit)
        self.started(unit)
        self.active.add(unit)

    def stop(self, unit: str) -> None:
        self._answer(f"stop {unit}")
        self.active.discard(unit)

    def is_active(self, unit: str) -> bool:
        return unit in self.active

    def _answer(self, question: str) -> None:
        if not self.session:
            raise NoUserSession("no systemd user manager answers for this user", why="no bus", hint="log in")
        self.asked.append(question)


def refusing(unit: str) -> None:
    """A start that fails."""
    raise UnitFailed(f"systemctl --user restart {unit} failed", why="it ended with 16", hint=f"journalctl -u {unit}")
