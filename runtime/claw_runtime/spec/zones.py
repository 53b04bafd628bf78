"""Time zones of `TZ`: a zone that does not exist would be taken for UTC in silence."""

import re
from difflib import get_close_matches
from zoneinfo import ZoneInfo, available_timezones

_RULE = re.compile(r"(?:[A-Za-z]{3,}|<[A-Za-z0-9+-]{3,}>)[+-]?[0-9].*", re.DOTALL)


def mistake(value: str) -> str:
    """What is wrong with a value of `TZ`, with near matches; empty when nothing is.

    A rule such as `CET-1CEST` and the path of a file are left to the program. This host's list of zones decides; a host
    without one refuses nothing.
    """
    name = value.removeprefix(":")
    if not name or name.startswith("/") or _RULE.fullmatch(name) or _exists(name) or not _exists("Europe/London"):
        return ""
    known = available_timezones()
    folded = {zone.casefold(): zone for zone in known}
    near = [folded[found] for found in get_close_matches(name.casefold(), folded, n=3, cutoff=0.7)]
    if not near:  # people often know the city alone
        near = sorted(zone for zone in known if zone.rpartition("/")[2].casefold() == name.casefold())[:3]
    return f"there is no time zone {name[:60]!r}" + (f"; there is {', '.join(near)}" if near else "")


def _exists(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # a name that is none, a directory, or one that leads out of the list
        return False
    return True
