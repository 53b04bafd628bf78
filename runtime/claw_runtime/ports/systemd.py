"""The systemd user manager, as the daemon and the installation need it."""

from collections.abc import Sequence
from typing import Final, Protocol

CLAW_UNIT: Final = "claw.service"
PODMAN_UNIT: Final = "claw-podman.service"
S3_UNIT: Final = "claw-s3.service"
ROUTER_UNIT: Final = "claw-router.service"


class Systemd(Protocol):
    """Units of this user.

    Every method raises `NoUserSession` when no user manager answers, `UnitFailed` when it refuses.
    """

    def version(self) -> str:
        """The manager's version; a question that shows whether it answers."""

    def lingers(self) -> bool:
        """Whether the manager starts at boot and outlives the user's logins."""

    def linger(self) -> bool:
        """Ask for that. Whether it is so afterwards: it may need root."""

    def reload(self) -> None:
        """Read the unit files again."""

    def enable(self, units: Sequence[str]) -> None:
        """Start these units with the manager from now on."""

    def disable(self, units: Sequence[str]) -> None:
        """No longer start these units with the manager; unknown ones are fine."""

    def restart(self, unit: str) -> None:
        """End the unit if it runs and start it; returns when it is ready. Its last log lines are in the error."""

    def stop(self, unit: str) -> None:
        """End the unit; one that does not run, or that is unknown, is fine."""

    def is_active(self, unit: str) -> bool:
        """Whether the unit runs, or is about to."""
