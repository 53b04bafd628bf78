"""Bodies of requests: JSON that every parser reads alike, checked in one place before a handler sees it.

A key that stands twice means another thing to each parser. Numbers beyond JSON, deep nesting and half characters would
be stored and make later answers unreadable. The schemas then refuse unknown fields and wrong types (schemas.py).
"""

import json
from collections.abc import Sequence
from typing import Any, NoReturn

from claw_runtime.errors import InvalidSpec

DEPTH_MOST = 64
"""Levels of objects and lists in a body."""

DIGITS_MOST = 30
"""Digits of an integer in a body."""


def check_json(body: bytes) -> None:
    """Accept what every parser reads alike. Raises `InvalidSpec`."""
    try:
        text = body.decode("utf-8")
        value = json.loads(
            text, object_pairs_hook=_once, parse_constant=_no_number, parse_float=_finite, parse_int=_integer
        )
    except InvalidSpec:
        raise
    except RecursionError as error:
        raise _deep() from error
    except ValueError as error:  # also of UTF-8
        raise InvalidSpec("the request is not valid: body", why=str(error), hint="send JSON in UTF-8") from error
    if nested_deeper(value, DEPTH_MOST):
        raise _deep()
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise _refused("it has half a character (a lone surrogate)") from error


def nested_deeper(value: object, most: int) -> bool:
    """Whether objects and lists are nested more than `most` levels deep in a value. Needs no deep stack itself."""
    level: Sequence[object] = [value]
    for _ in range(most):
        level = [inner for one in level for inner in _inner(one)]
    return any(isinstance(one, dict | list) for one in level)


def _inner(value: object) -> Sequence[object]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = set[str]()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _refused(f"{twice[:60]!r} is given twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise _refused(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise _refused(f"{text[:60]} is too large")
    return number


def _integer(text: str) -> int:
    if len(text) > DIGITS_MOST:
        raise _refused(f"a number has more than {DIGITS_MOST} digits")
    return int(text)


def _deep() -> InvalidSpec:
    return _refused(f"it is nested deeper than {DEPTH_MOST} levels")


def _refused(why: str) -> InvalidSpec:
    return InvalidSpec("the request is not valid: body", why=why, hint="send plain JSON; docs/API.md has the fields")
