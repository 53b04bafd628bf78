"""The seccomp profile that a workload file names."""

from claw_runtime.errors import InvalidSpec
from claw_runtime.seccomp import profiles
from claw_runtime.spec.loader import Document


def profile(document: Document) -> str:
    """Name of one of claw's own profiles, or the absolute path of another: relative ones start at the workload file."""
    name = document.workload.seccomp
    return name if name in profiles.OWN else str((document.path.parent / name).absolute())


def require(document: Document) -> str:
    """The profile's text.

    Raises:
        InvalidSpec: Its file is missing or is no profile; the message has the place in the workload file.
    """
    try:
        return profiles.text(profile(document))
    except InvalidSpec as error:
        raise document.refusal(("seccomp",), error.brief, why=error.why, hint=error.hint) from error
