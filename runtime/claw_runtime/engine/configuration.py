"""The Podman configuration of a service that claw starts: the user's own, and no kernel keyring for a container.

A keyring takes one of the host user's kernel keys for each container, of 200 that the kernel allows by default.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from claw_runtime import fsutil

_LINE = "keyring = false"
_SECTION = re.compile(r"^[ \t]*\[containers\][ \t]*(#.*)?$", re.MULTILINE)


def without_keyrings(environment: Mapping[str, str], path: Path) -> dict[str, str]:
    """The variables with which Podman gives no container a keyring.

    There are none if the operator's `CONTAINERS_CONF` sets `keyring`, or has an override already. A file that
    `CONTAINERS_CONF` names is the only one that Podman reads, so it is copied and completed. Otherwise the file is one
    that Podman reads last, from 4.4 on; `host/setup.sh` configures older versions.

    Args:
        environment: What the service would get.
        path: Where the file is written, whose directory exists.
    """
    chosen = environment.get("CONTAINERS_CONF")
    variable = "CONTAINERS_CONF" if chosen else "CONTAINERS_CONF_OVERRIDE"
    if not chosen and variable in environment:
        return {}
    try:
        text = _completed(Path(chosen).read_text() if chosen else "")
        if text is not None:
            fsutil.write_atomic(path, text.encode())
    except (OSError, ValueError):  # Podman reports what is wrong with its configuration
        return {}
    return {} if text is None else {variable: str(path)}


def _completed(text: str) -> str | None:
    """The configuration with the line, or None if it sets `keyring` already. Raises ValueError if it cannot be read."""
    containers = tomllib.loads(text).get("containers", {})
    if "keyring" in containers:
        return None
    section = _SECTION.search(text)
    end = section.end() if section else len(text)
    made = f"{text[:end]}\n{_LINE}{text[end:]}" if section else f"{text}\n[containers]\n{_LINE}\n"
    tomllib.loads(made)
    return made
