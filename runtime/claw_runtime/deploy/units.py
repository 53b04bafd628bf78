"""The systemd user units of an installation, rendered from `templates/`; whether a file still is as rendered."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from claw_runtime.ports import CLAW_UNIT, PODMAN_UNIT, ROUTER_UNIT, S3_UNIT

UNITS: Final = (PODMAN_UNIT, S3_UNIT, ROUTER_UNIT, CLAW_UNIT)
"""In the order of their start."""

MARK: Final = (
    "# Written by claw-runtime install. Change it with `systemctl --user edit`: an edited file is kept.\n# sha256: "
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What the units run.

    Attributes:
        venv: The virtual environment; a link, so that an upgrade changes no unit.
        socket: Where Podman's API service listens.
        environment: Variables of the daemon and of the S3 server.
        variables: A file of further variables, which may be absent.
        s3: Whether the S3 server that comes with claw holds the states.
        run: The run directory.
        ingress: Where the router listens, as `127.0.0.1:8080`; empty without one.
    """

    venv: Path
    socket: Path
    environment: Mapping[str, str]
    variables: Path
    s3: bool
    run: Path
    ingress: str = ""


def rendered(program: Program) -> dict[str, str]:
    """Unit name → text, of the units that are to exist."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("claw_runtime.deploy"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - units, not HTML; `word` and `assignment` quote
    )
    made.filters |= {"word": word, "assignment": assignment, "path": escaped}
    wanted = {S3_UNIT: program.s3, ROUTER_UNIT: bool(program.ingress)}
    names = [name for name in UNITS if wanted.get(name, True)]
    return {name: marked(made.get_template(f"{name}.j2").render(program=program)) for name in names}


def escaped(text: object) -> str:
    """Text in a unit file in which `%` means nothing.

    Raises:
        ValueError: It has control characters, which no unit file can hold.
    """
    value = str(text)
    if not value.isprintable():
        raise ValueError(f"not printable: {value!r}")
    return value.replace("%", "%%")


def word(text: object) -> str:
    """One word of a command line."""
    return _quoted(escaped(text).replace("$", "$$"))


def assignment(name: str, value: str) -> str:
    """One variable, for `Environment=`."""
    return _quoted(escaped(f"{name}={value}"))


def _quoted(text: str) -> str:
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{plain}"' if plain != text or " " in text or "'" in text or ";" in text else text


def marked(body: str) -> str:
    """A unit's text with the comment that tells whether it was edited."""
    return f"{MARK}{_digest(body)}\n{body}"


def is_edited(text: str) -> bool:
    """Whether a unit file is not as it was rendered, by whatever version, or was never rendered."""
    if not text.startswith(MARK):
        return True
    digest, _, body = text.removeprefix(MARK).partition("\n")
    return digest != _digest(body)


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()
