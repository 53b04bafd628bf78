"""Reads YAML as plain data with the position of each part, so that errors can name file, line and column.

Stricter than YAML: one document, at most 256 KiB, 32 levels deep, no aliases (which grow without bound when they are
nested), no duplicate keys, keys are strings, and only the JSON types: `no`, `0777` and `1:30` stay strings.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import yaml

Place = tuple[str | int, ...]
MAX_BYTES = 256 * 1024
MAX_DEPTH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A position in a file; both numbers begin at 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """A hint about a valid part of a file.

    Attributes:
        mark: Where.
        kind: `deprecated` for an old form, `ignored` for a key without effect, `advice` for an unexpected effect.
        what: What the file has, how it is read, and what to write.
    """

    mark: Mark
    kind: Literal["deprecated", "ignored", "advice"]
    what: str


class UnreadableYaml(Exception):
    """The text is not acceptable YAML.

    Attributes:
        mark: Where.
        what, hint: What is wrong and what to do, without the position.
    """

    def __init__(self, what: str, mark: Mark, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.mark = mark
        self.hint = hint


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """Plain data with the mark of every value, and of every key under `keys`, by its place (`("pool", "min_size")`)."""

    data: Any
    values: dict[Place, Mark]
    keys: dict[Place, Mark]

    def nearest(self, place: Place, *, key: bool = False) -> Mark:
        """The mark of a place, or of the nearest enclosing part of the file."""
        if key and place in self.keys:
            return self.keys[place]
        while place not in self.values:
            place = place[:-1]
        return self.values[place]


_SCALARS: tuple[tuple[re.Pattern[str], Callable[[str], Any]], ...] = (
    (re.compile(r"true|false"), lambda text: text == "true"),
    (re.compile(r"-?(?:0|[1-9][0-9]{0,17})"), int),
    (re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,18}"), float),
    (re.compile(r"~|null|"), lambda _text: None),
)


def read(text: bytes) -> Marked:
    """Read one YAML document.

    Raises:
        UnreadableYaml: It is not UTF-8, too large, too deep, not YAML, or uses what the module refuses.
    """
    start = Mark(line=1, column=1)
    if len(text) > MAX_BYTES:
        raise UnreadableYaml(f"larger than {MAX_BYTES // 1024} KiB", start, "a workload file is normally a page or two")
    try:
        return _Reader(text.decode("utf-8")).document()
    except UnicodeDecodeError as error:
        raise UnreadableYaml(f"not UTF-8 at byte {error.start}", start, "save the file as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        problem, mark = error.problem or error.context or "unreadable", _mark(error.problem_mark or error.context_mark)
        in_braces = any(b"${" in line for line in text.split(b"\n")[mark.line - 1 : mark.line])
        hint = "put a text with ${…} in quotes when it stands in {…}" if in_braces else "check indentation and brackets"
        raise UnreadableYaml(f"not YAML: {problem}", mark, hint) from error
    except yaml.YAMLError as error:
        raise UnreadableYaml(f"not YAML: {str(error).splitlines()[0]}", start) from error


class _Reader:
    """Builds data from the parser's events, which come one by one: a bomb is refused before it is built."""

    def __init__(self, text: str) -> None:
        self._events = yaml.parse(text, Loader=yaml.SafeLoader)
        self._values: dict[Place, Mark] = {}
        self._keys: dict[Place, Mark] = {}

    def document(self) -> Marked:
        data: Any = None
        documents = 0
        self._values[()] = Mark(line=1, column=1)
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise UnreadableYaml("a second document", _mark(event.start_mark), "put one workload in each file")
            elif isinstance(event, yaml.NodeEvent):
                data = self._value(event, ())
        return Marked(data=data, values=self._values, keys=self._keys)

    def _value(self, event: Any, place: Place) -> Any:
        mark = _mark(event.start_mark)
        if len(place) > MAX_DEPTH:
            raise UnreadableYaml(f"nested deeper than {MAX_DEPTH} levels", mark)
        if isinstance(event, yaml.AliasEvent):
            raise UnreadableYaml(f"the alias *{event.anchor}", mark, "aliases are not accepted: write the value out")
        self._values[place] = mark
        if getattr(event, "tag", None) not in (None, "!"):
            raise UnreadableYaml(f"the tag {event.tag}", mark, "tags are not accepted: write plain values")
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(place)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(place)
        return _scalar(event)

    def _mapping(self, place: Place) -> dict[str, Any]:
        result: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            mark = _mark(event.start_mark)
            key = _scalar(event) if isinstance(event, yaml.ScalarEvent) else None
            if not isinstance(key, str):
                raise UnreadableYaml("a key that is not a string", mark, "put the key in quotes")
            if key in result:
                first = self._keys[(*place, key)]
                raise UnreadableYaml(
                    f"the key {key!r} again: it is on line {first.line} and on line {mark.line}",
                    mark,
                    "keep only one of them",
                )
            self._keys[(*place, key)] = mark
            result[key] = self._value(next(self._events), (*place, key))
        return result

    def _sequence(self, place: Place) -> list[Any]:
        result: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            result.append(self._value(event, (*place, len(result))))
        return result


def _scalar(event: Any) -> Any:
    text = str(event.value)
    if event.style is None:
        for pattern, convert in _SCALARS:
            if pattern.fullmatch(text):
                return convert(text)
    return text


def _mark(mark: Any) -> Mark:
    return Mark(line=mark.line + 1, column=mark.column + 1) if mark is not None else Mark(line=1, column=1)
