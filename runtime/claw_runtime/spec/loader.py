"""Turns a workload file into a checked `Document`, or into one refusal that names file, line and column.

Every error of the model is reworded here: what the file has, what was expected, and for an unknown key the known key
that resembles it.
"""

import difflib
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from claw_runtime.errors import InvalidSpec
from claw_runtime.logs import redact
from claw_runtime.spec.advice import advice
from claw_runtime.spec.dialect import dotted, modern
from claw_runtime.spec.marks import Hint, Mark, Marked, Place, UnreadableYaml, read
from claw_runtime.spec.sync import KEYS
from claw_runtime.spec.workload import WorkloadFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A workload file that was read and checked, with the position of each part.

    Attributes:
        marked: The file's data in the first dialect, with the places that a person wrote.
        hints: Hints about valid parts, in the order of the file.
    """

    path: Path
    workload: WorkloadFile
    marked: Marked
    hints: tuple[Hint, ...] = ()

    def told(self, hint: Hint) -> str:
        """A hint with its position: `file:line:column: what`."""
        return f"{self.path}:{hint.mark.line}:{hint.mark.column}: {hint.what}"

    def refusal(self, place: Place, what: str, *, why: str = "", hint: str = "") -> InvalidSpec:
        """The error for a well-formed but unacceptable part of the file, such as a second port."""
        return _refusal(self.path, self.marked.nearest(place), what, why=why, hint=hint)


def load(path: Path) -> Document:
    """Read and check a workload file.

    Raises:
        InvalidSpec: It cannot be read, or is not valid; `brief` is `file:line:column: what`, `facts["problems"]` lists
            every complaint, unknown keys first.
    """
    try:
        with path.open("rb") as file:
            text = file.read(1 << 20)
    except OSError as error:
        raise InvalidSpec(
            f"{path}: cannot be read", why=error.strerror or str(error), hint="give the path of a workload file"
        ) from error
    return parse(text, path)


def parse(text: bytes | str, path: Path) -> Document:
    """Check the text of a workload file; `path` is for messages and for paths relative to it. Raises `InvalidSpec`."""
    try:
        # Half a character is as little UTF-8 as any other wrong byte, and is refused with its place.
        marked = read(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    except UnreadableYaml as error:
        raise _refusal(path, error.mark, error.what, why="", hint=error.hint) from error
    if not isinstance(marked.data, dict):
        raise _refusal(
            path, marked.nearest(()), "not a workload", why="", hint="a workload requires at least id and image"
        )
    try:
        marked, hints = modern(marked)
        _redact_keys(marked.data)
        workload = WorkloadFile.model_validate(marked.data)
    except UnreadableYaml as error:
        raise _refusal(path, error.mark, error.what, why="", hint=error.hint) from error
    except ValidationError as error:
        raise _from_model(path, marked, error) from error
    hints = sorted((*hints, *advice(workload, marked)), key=lambda hint: (hint.mark.line, hint.mark.column))
    return Document(path=path, workload=workload, marked=marked, hints=tuple(hints))


def did_you_mean(word: str, known: typing.Iterable[str]) -> str:
    """`did you mean 'image'?`, or the list of what is known when nothing resembles the word."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"


def _meant(word: str, known: typing.Sequence[str]) -> str:
    """`did_you_mean`, or the place where a key of that very name belongs."""
    elsewhere = [place for place in keys() if place.rpartition(".")[2] == word]
    if elsewhere and not difflib.get_close_matches(word, known, n=1, cutoff=0.6):
        return f"it belongs to {' or '.join(elsewhere[:3])}"
    return did_you_mean(word, known)


def keys(model: type[BaseModel] = WorkloadFile, around: str = "") -> typing.Iterator[str]:
    """Every key of the file as people write it: `id`, `pool.max_size`, `volumes.NAME.target`, `ports[].container`."""
    for name, field in model.model_fields.items():
        yield f"{around}{name}"
        inner, form = _inside(field.annotation)
        if inner is not None:
            yield from keys(inner, f"{around}{name}{form}.")


def _inside(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """The model within an annotation, and the suffix of its place: empty, `[]` or `.NAME`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    form = {tuple: "[]", dict: ".NAME"}.get(typing.get_origin(annotation), "")
    for choice in typing.get_args(annotation):
        if (found := _inside(choice)[0]) is not None:
            return found, form
    return None, ""


def _redact_keys(data: typing.Mapping[str, Any]) -> None:
    """Keep the store's keys out of every log from now on."""
    sync = data.get("sync")
    sink = sync.get("sink") if isinstance(sync, dict) else None
    for name in KEYS:
        if isinstance(sink, dict) and isinstance(sink.get(name), str):
            redact(sink[name])


def _refusal(path: Path, mark: Mark, what: str, *, why: str, hint: str, **facts: Any) -> InvalidSpec:
    return InvalidSpec(
        f"{path}:{mark.line}:{mark.column}: {what}", why=why, hint=hint, line=mark.line, column=mark.column, **facts
    )


def _from_model(path: Path, marked: Marked, error: ValidationError) -> InvalidSpec:
    # An unknown key comes first: a misspelt 'imag' is the reason that 'image' is missing.
    items = sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    found = [_complaint(marked, item) for item in items]
    problems = [f"{path}:{mark.line}:{mark.column}: {what}" for mark, what, _hint in found]
    mark, what, hint = found[0]
    why = f"and {len(found) - 1} more: {'; '.join(problems[1:])}" if len(found) > 1 else ""
    return _refusal(path, mark, what, why=why, hint=hint or _EXAMPLE, problems=problems)


_EXAMPLE = "docs/WORKLOAD.md describes each key"
_KINDS = {
    "string_type": "a text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def _complaint(marked: Marked, item: Any) -> tuple[Mark, str, str]:
    """Position, problem and remedy of one pydantic error."""
    kind, place = item["type"], tuple(item["loc"])
    place = place[:-1] if place and place[-1] == "[key]" else place
    inner = getattr(item.get("ctx", {}).get("error"), "place", ())
    name = dotted((*place, *inner)) or "workload"
    value = "a key" if place[-1:] and place[-1] in KEYS else _shown(item["input"])
    if kind == "extra_forbidden":
        return (
            marked.nearest(place, key=True),
            f"unknown key {name!r}",
            _meant(str(place[-1]), _known(place[:-1])),
        )
    if kind == "missing":
        return marked.nearest(place), f"{name!r} is missing", f"add {name}"
    if kind == "value_error":
        return marked.nearest((*place, *inner)), f"{name}: {item['ctx']['error']}", ""
    if kind in _KINDS:
        return (
            marked.nearest(place),
            f"{name}: {value} is not {_KINDS[kind]}",
            _quoting(kind, item["input"]),
        )
    return marked.nearest(place), f"{name}: {value}: {item['msg'][:1].lower()}{item['msg'][1:]}", ""


def _quoting(kind: str, value: object) -> str:
    if kind == "string_type" and isinstance(value, (bool, int, float)):
        return "put quotes around it"
    if kind in ("int_type", "float_type") and isinstance(value, str):
        return "write the number without quotes or unit"
    if kind == "tuple_type":
        return "write it as [one, two]"
    if kind == "bool_type" and isinstance(value, str):
        return "write true or false, without quotes"
    return ""


def _shown(value: object) -> str:
    words: dict[object, str] = {True: "true", False: "false", None: "null"}
    if value is None or isinstance(value, bool):
        return words[value]
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    return repr(value)[:80]


def _known(place: Place) -> list[str]:
    """The keys that the model knows at a place."""
    current: Any = WorkloadFile
    for part in place:
        if isinstance(current, type) and issubclass(current, BaseModel):
            current = current.model_fields[str(part)].annotation
        else:
            current = typing.get_args(current)[-1 if isinstance(part, str) else 0]
        if isinstance(current, types.UnionType):
            current = next(choice for choice in typing.get_args(current) if choice is not types.NoneType)
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []
