"""Durations and sizes as people write them in a workload file, and as they read them in a table.

A duration is `500ms`, `10m`, `1h30m`, or a plain number of seconds. A size is `512m`, `2G`, `2GiB`, or a plain number
of bytes; as in Podman every unit is a power of 1024. What is printed follows Podman's listings: powers of 1000.
"""

import math
import re

_SECONDS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile(
    r"(?:([0-9]+(?:\.[0-9]+)?)d)?(?:([0-9]+(?:\.[0-9]+)?)h)?(?:([0-9]+(?:\.[0-9]+)?)m(?!s))?(?:([0-9]+(?:\.[0-9]+)?)s)?(?:([0-9]+(?:\.[0-9]+)?)ms)?"
)
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgtp]?)(i?b)?", re.IGNORECASE)
_POWERS = " kmgtp"


def duration(value: object) -> float:
    """Seconds of a written duration.

    Args:
        value: A string with units from days to milliseconds, largest first (`1h30m`, `1.5s`), or a number of seconds.

    Raises:
        ValueError: It is neither, is negative, or is a string without a unit.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"{value!r} is not a duration: write it as 500ms, 30s, 10m or 1h30m")  # noqa: TRY004
    if isinstance(value, str):
        return _duration_text(value.strip())
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{value!r} is not a duration: seconds are a finite number, zero or more")
    return float(value)


def _duration_text(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", text):
            raise ValueError(f"{text!r} has no unit: write {text}s for seconds or {text}m for minutes")
        raise ValueError(f"{text!r} is not a duration: write it as 500ms, 30s, 10m or 1h30m")
    return math.fsum(float(part) * unit for part, unit in zip(match.groups(), _SECONDS.values(), strict=True) if part)


def size(value: object) -> int:
    """Bytes of a written size.

    Args:
        value: A string such as `512m`, `2G`, `2GiB`, `1.5g` or `4096` (units are powers of 1024), or an int of bytes.

    Raises:
        ValueError: It is neither, or is negative.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ValueError(f"{value} is not a size: bytes are zero or more")
        return value
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        number, power, suffix = match.groups()
        if power or (suffix or "b").lower() == "b":
            return int(float(number) * 1024 ** (_POWERS.index(power.lower()) if power else 0))
    raise ValueError(f"{value!r} is not a size: write it as 512m, 2G or 2GiB (powers of 1024)")


def format_duration(seconds: float) -> str:
    """A duration for people: `0.4 ms`, `640 ms`, `1.2 s`, `2 min 5 s`, `3 h 4 min`, `2 d 3 h`."""
    if seconds < 0:
        return f"-{format_duration(-seconds)}"
    if seconds < 0.9995:
        return f"{seconds * 1000:.{1 if seconds < 0.00995 else 0}f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for large, small, big_name, small_name in ((86_400, 3_600, "d", "h"), (3_600, 60, "h", "min"), (60, 1, "min", "s")):
        if whole >= large:
            rest = whole % large // small
            return f"{whole // large} {big_name}" + (f" {rest} {small_name}" if rest else "")
    return f"{whole} s"


def format_size(count: int) -> str:
    """A number of bytes for people, in powers of 1000 as Podman lists them: `512 B`, `4.1 kB`, `143 MB`, `2.1 GB`."""
    if count < 0:
        return f"-{format_size(-count)}"
    if count < 1000:
        return f"{count} B"
    value = float(count)
    name = "B"
    for name in ("kB", "MB", "GB", "TB", "PB"):
        value /= 1000
        if value < 999.5 or name == "PB":
            break
    return f"{value:.1f} {name}" if value < 9.95 else f"{value:.0f} {name}"
