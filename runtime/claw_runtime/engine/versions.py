"""Which versions of Podman claw works with, and how they differ. Each difference has its source."""

import re
from dataclasses import dataclass
from typing import Final

from claw_runtime.errors import EngineUnsupported

Version = tuple[int, int]

OLDEST: Final[Version] = (4, 3)
"""Debian 12 has 4.3.1, on which all tests of claw run; nothing older was tried."""

BARRED: Final[Version] = (6, 0)
"""The first version that is refused: its release notes change isolation and configuration, and no test ran on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What a version has changed, as far as claw is concerned.

    Attributes:
        since: The first version that behaves so.
        what: The behaviour.
        effect: What claw does about it.
        source: Where it was read or measured.
    """

    since: Version
    what: str
    effect: str
    source: str


DIFFERENCES: Final = (
    Difference(
        since=(4, 4),
        what="reads `CONTAINERS_CONF_OVERRIDE`",
        effect="containers get no kernel keyring; before, `host/setup.sh` configures it",
        source="containers.conf(5)",
    ),
    Difference(
        since=(5, 0),
        what="`pasta` gives containers a network unless configured otherwise",
        effect="claw takes the helper that `podman info` names",
        source="release notes of 5.0.0; run with 5.4.2",
    ),
    Difference(
        since=(6, 0),
        what="no `slirp4netns`, no cgroup v1, no iptables; networks are isolated by default",
        effect="refused: claw was never run on it",
        source="release notes of 6.0.0",
    ),
)


def check(text: str) -> None:
    """Refuse a Podman on which nobody knows whether containers are isolated as claw promises.

    Args:
        text: Its version, such as `4.3.1` or `5.8.0-dev`.

    Raises:
        EngineUnsupported: It is too old, too new, or not a version.
    """
    found = re.match(r"(\d+)\.(\d+)", text)
    version = (int(found[1]), int(found[2])) if found else None
    if version is not None and OLDEST <= version < BARRED:
        return
    if version is None:
        brief, why = f"Podman's version {text[:40]!r} cannot be read", "it does not begin with two numbers"
    elif version < OLDEST:
        brief, why = f"Podman {text} is too old", f"claw needs {_shown(OLDEST)} or newer, and no test ran on older ones"
    else:
        brief = f"Podman {text} is too new"
        why = f"claw works with {_shown(OLDEST)} up to, but not including, {_shown(BARRED)}: {_news(version)}"
    raise EngineUnsupported(
        brief,
        why=why,
        hint=f"install a Podman from {_shown(OLDEST)} up to, but not including, {_shown(BARRED)}: Debian 12 and 13 "
        "have one",
        version=text,
    )


def _news(version: Version) -> str:
    """What the newest known difference says of the version."""
    last = max((one for one in DIFFERENCES if one.since <= version), key=lambda one: one.since)
    return f"{_shown(last.since)} has {last.what}".replace("`", "")


def _shown(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
