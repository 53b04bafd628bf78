"""JSON through the interpreter's own C scanner.

The `json` package is the same scanner behind a front that imports `re` and `enum`: 6 ms, as much again as a bare
interpreter's whole start. Tests hold both halves of this module equal to `json`.
"""

from _json import encode_basestring_ascii, make_scanner

_BLANK = " \t\n\r"


def _refuse(text: str) -> object:
    raise ValueError(f"{text} is not JSON")


class _Context:
    """What the scanner asks for; plain JSON, no hooks."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    array_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_refuse)


_scan = make_scanner(_Context())  # type: ignore[arg-type]  # any object with these attributes does


def loads(text: str) -> object:
    """The value of one JSON text.

    Raises:
        ValueError: It is not JSON, or nested too deeply to be a configuration.
    """
    start = len(text) - len(text.lstrip(_BLANK))
    try:
        value, end = _scan(text, start)
    except StopIteration as stop:
        raise ValueError(f"expected a JSON value at character {stop.value}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if text[end:].strip(_BLANK):
        raise ValueError(f"more text after the JSON value, at character {end}")
    return value


def dumps(value: object, indent: int | None = None, margin: str = "\n") -> str:
    """ASCII-only JSON text, as `json.dumps` writes it; `indent` spaces a level, or all on one line.

    Raises:
        TypeError: It holds something other than dict, list, tuple, str, int, float, bool or None.
    """
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if value is None or isinstance(value, bool):
        return "null" if value is None else "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    deeper = margin if indent is None else margin + " " * indent
    if isinstance(value, dict):
        parts = [f"{encode_basestring_ascii(key)}: {dumps(item, indent, deeper)}" for key, item in value.items()]
        brackets = "{}"
    elif isinstance(value, list | tuple):
        parts = [dumps(item, indent, deeper) for item in value]
        brackets = "[]"
    else:
        raise TypeError(f"{type(value).__name__} is not JSON")
    if not parts or indent is None:
        return brackets[0] + ", ".join(parts) + brackets[1]
    return brackets[0] + deeper + ("," + deeper).join(parts) + margin + brackets[1]
