"""Every member of a contract has a reader: no unknown key, and the entrypoint accepts the rest.

Usage: contract_is_understood.py CONTRACT ENTRYPOINT   (the directory with the package `claw_entrypoint`)
"""

import json
import sys
from pathlib import Path
from typing import Any

from verdict import refuse

# Members that are looked at by builders alone; the entrypoint looks at those of `exec`, `values`, `volumes`, … itself.
MEMBERS: dict[str, tuple[str, ...]] = {
    "": (
        *("contract", "name", "image", "application", "node", "build", "exec", "stop", "ports", "probes", "volumes"),
        *("skeleton", "sweep", "sync", "environment", "template", "values", "features", "plugins", "boot_tuning"),
        *("tools", "writable", "capabilities", "limits", "prewarm", "discovery"),
    ),
    "application": ("name", "version", "revision"),
    "build": ("npm", "gemini", "uv", "packages"),
    "stop": ("signal", "timeout"),
    "probes": ("live", "ready"),
    "sync": ("exclude", "logins"),
    "template": ("source", "target"),
    "plugins": ("projects", "entries"),
    "boot_tuning": ("path", "json"),
    "capabilities": ("read_only_root", "network_none", "adopt_signal", "prewarm"),
    "limits": ("memory", "cpus", "pids"),
}


def check(contract: dict[str, Any]) -> None:
    """Refuse the first unknown key."""
    for section, known in MEMBERS.items():
        members = contract.get(section, {}) if section else contract
        unknown = sorted(members.keys() - set(known))
        if unknown:
            where = f"/{section}/{unknown[0]}" if section else f"/{unknown[0]}"
            refuse(f"{where}: nothing reads this key; known here: {', '.join(sorted(known))}")
    for tool, argv in contract.get("tools", {}).items():
        if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv):
            refuse(f"/tools/{tool}: expected a command as a list of words, found {argv!r}")


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[2])
    from claw_entrypoint.contract import load
    from claw_entrypoint.errors import ContractError

    try:
        check(json.loads(Path(sys.argv[1]).read_text()))
        load(sys.argv[1])
    except ContractError as error:
        refuse(error.brief)
    except ValueError as error:
        refuse(f"not JSON: {error}")
