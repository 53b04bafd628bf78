"""Types of the workload file's models: durations, sizes, paths, names.

Each has the JSON Schema of the accepted input, which is wider than the value in the model: `10m` becomes 600.0 seconds.
"""

import re
from typing import Annotated, Any

import pathspec
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from claw_runtime import units

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USE = re.compile(r"\$\{([^}]*)\}?")


class Closed(BaseModel):
    """A frozen model that refuses unknown keys and silent conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Misplaced(ValueError):
    """An error in a part of the checked value; `place` is relative to it."""

    def __init__(self, message: str, *place: str | int) -> None:
        super().__init__(message)
        self.place = place


def uses(text: str) -> list[tuple[str, str]]:
    """Every `${name}` in a text: as it is written (`${name` when it is not closed), and its name."""
    return [(found[0], found[1]) for found in _USE.finditer(text)]


def _cores(value: object) -> object:
    """Compose writes cores as a string."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise ValueError(f"{value!r} is not a number of cores: write it as 2 or 0.5") from None
    return value


def _target(value: str) -> str:
    segments = value.split("/")[1:]
    if not value.startswith("/") or value == "/" or any(part in ("", ".", "..") for part in segments):
        raise ValueError(f"{value!r} is not a path in the container: write it as /state, absolute and without '..'")
    return value


def _variable_name(value: str) -> str:
    if not _VARIABLE.fullmatch(value):
        raise ValueError(f"{value[:60]!r} is not a variable's name: letters, digits and '_' only")
    return value


def _text(value: object) -> str:
    """A number is taken as it was written, when it can be written in one way only."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError("not a text: put quotes around it")  # noqa: TRY004  (pydantic turns only this into a report)
    if "\0" in str(value):
        raise ValueError("contains a NUL character")
    return str(value)


def gitignore(value: str) -> str:
    """A pattern that means something. Raises `ValueError`."""
    try:
        meant = pathspec.GitIgnoreSpec.from_lines([value], backend="simple").patterns
    except (ValueError, re.error) as error:
        raise ValueError(f"{value[:80]!r} is no pattern as in .gitignore: {error}") from None
    if not any(pattern.include is not None for pattern in meant):
        raise ValueError(f"{value[:80]!r} names nothing, as a pattern of .gitignore")
    return value


def _plain(value: str) -> str:
    if found := uses(value):
        raise ValueError(f"uses {found[0][0]}: a variable's own text is plain")
    return value


def _listed(value: object) -> object:
    """YAML has lists, models have tuples."""
    return tuple(value) if isinstance(value, list) else value


def _command(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or not value[0]:
        raise ValueError("the command is empty: leave it out, or name a program")
    if any("\0" in word for word in value):
        raise ValueError("contains a NUL character")
    return value


def _schema(**schema: Any) -> WithJsonSchema:
    return WithJsonSchema(schema)


_DURATION = _schema(anyOf=[{"type": "string", "pattern": r"^([0-9.]+(d|h|ms|m|s))+$"}, {"type": "number"}])

Duration = Annotated[float, BeforeValidator(units.duration), _DURATION]
Size = Annotated[
    int,
    BeforeValidator(units.size),
    _schema(anyOf=[{"type": "string", "pattern": r"^[0-9.]+ ?([kKmMgGtTpP](i?[bB])?|[bB])?$"}, {"type": "integer"}]),
]
Cores = Annotated[float, BeforeValidator(_cores), _schema(anyOf=[{"type": "number"}, {"type": "string"}])]
Port = Annotated[int, Field(ge=1, le=65_535)]
Target = Annotated[str, AfterValidator(_target)]
VariableName = Annotated[str, AfterValidator(_variable_name)]
Text = Annotated[str, BeforeValidator(_text), _schema(anyOf=[{"type": "string"}, {"type": "integer"}])]
PlainText = Annotated[Text, AfterValidator(_plain)]
Pattern = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(gitignore)]
Words = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Command = Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_command)]
Listed = BeforeValidator(_listed)
